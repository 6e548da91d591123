"""Slicing of images against a statement of the published rules of its own, on many sizes."""

import math
import random
import re

import numpy as np
import pytest
from PIL import Image

from mstar_pl.models.minicpmv import MiniCPMVImageProcessor

PATCH = 14
CORNERS = [
    (1, 1),
    (448, 448),
    (448, 449),
    (1344, 1344),
    (5000, 10),
    (10, 5000),
    (3, 448),
    (896, 448),
    (4032, 448),
]


def sizes(num, largest):
    """Sizes of all shapes, the extreme ones included."""
    generator = random.Random(0)
    return CORNERS + [(generator.randint(8, largest), generator.randint(8, largest)) for _ in range(num)]


def layouts(most):
    """All layouts of cells, by their number, the narrowest first."""
    return [
        (cells, columns)
        for cells in range(2, most + 1)
        for columns in range(1, cells + 1)
        if cells % columns == 0
    ]


def stated_layout(width, height, side, most):
    """Columns and rows by the rule: the number of cells next to the area, the shape next to the image's."""
    area = math.ceil(width * height / (side * side))
    if area < 2 or most < 2:
        return (0, 0)
    area = min(area, most)
    best = None
    for cells, columns in layouts(most):
        if abs(cells - area) < 2:
            distance = abs(math.log(width / height) - math.log(columns / (cells // columns)))
            if best is None or distance < best[0]:
                best = (distance, columns, cells // columns)
    return best[1:]


def stated_size(width, height, side, small_grow):
    """The size in whole patches by the rule: the area of a square of this side, the shape kept."""
    if small_grow or width * height > side * side:
        tall = int(side / math.sqrt(width / height))
        width, height = int(tall * (width / height)), tall
    # Python rounds halves to even numbers, as the published code does.
    return [PATCH if length < PATCH else PATCH * round(length / PATCH) for length in (width, height)]


def stated_slices(image, side, most):
    """The slices as images: an overview, and the cells from top left to bottom right."""
    columns, rows = stated_layout(*image.size, side, most)
    yield image.resize(stated_size(*image.size, side, not columns), Image.BICUBIC)
    if columns:
        near = [max(round(image.width / columns), 1), max(round(image.height / rows), 1)]
        wide, tall = stated_size(*near, side, True)
        large = image.resize((wide * columns, tall * rows), Image.BICUBIC)
        for place in range(columns * rows):
            left, top = place % columns * wide, place // columns * tall
            yield large.crop((left, top, left + wide, top + tall))


def stated_strip(image):
    """Patches pasted side by side, as numbers from -1 to 1."""
    across, down = image.width // PATCH, image.height // PATCH
    row = Image.new("RGB", (PATCH * across * down, PATCH))
    for place in range(across * down):
        left, top = place % across * PATCH, place // across * PATCH
        row.paste(image.crop((left, top, left + PATCH, top + PATCH)), (place * PATCH, 0))
    grey = np.asarray(row).astype(np.float32) / np.float32(255)
    return ((grey - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)


def noise(size):
    pixels = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("most", [1, 2, 4, 9, 12])
def test_layout_text_and_tokens_follow_the_rule(most):
    processor = MiniCPMVImageProcessor(max_slice_nums=most)
    seen = set()
    for size in sizes(200, 2000):
        columns, rows = stated_layout(*size, 448, most)
        seen.add((columns, rows))
        assert (processor.get_sliced_grid(size) or (0, 0)) == (columns, rows), size
        text = processor.get_slice_image_placeholder(size)
        assert text.count("<unk>") == 96 * (1 + columns * rows), size
        assert max(columns * rows, 1) <= most
        short = re.sub("(<unk>){96}", "*", text)
        expected = "<image>*</image>"
        if columns:
            expected += "<slice>" + "\n".join("<image>*</image>" * columns for _ in range(rows)) + "</slice>"
        assert short == expected, size
    assert len(seen) >= most, "many layouts have been seen"


def test_pixels_of_all_slices_follow_the_rule():
    processor = MiniCPMVImageProcessor(max_slice_nums=9, scale_resolution=56)
    checked = 0
    for size in sizes(110, 260):
        image = noise(size)
        found = processor(image)
        expected = list(stated_slices(image, 56, 9))
        assert found["image_sizes"] == [[size]]
        assert found["tgt_sizes"][0].tolist() == [
            [one.height // PATCH, one.width // PATCH] for one in expected
        ]
        for strip, one in zip(found["pixel_values"][0], expected, strict=True):
            assert np.array_equal(strip.numpy(), stated_strip(one)), size
        checked += 1
    assert checked >= 100


@pytest.mark.parametrize("size", [(448, 448), (90, 60), (1000, 700), (350, 1900)])
def test_pixels_follow_the_rule_at_the_published_size(size):
    image = noise(size)
    found = MiniCPMVImageProcessor()(image)["pixel_values"][0]
    expected = [stated_strip(one) for one in stated_slices(image, 448, 9)]
    assert all(np.array_equal(strip, one) for strip, one in zip(found, expected, strict=True))


def test_other_modes_become_colours():
    grey = noise((40, 30)).convert("L")
    found, expected = (
        MiniCPMVImageProcessor()(one)["pixel_values"][0][0] for one in (grey, grey.convert("RGB"))
    )
    assert np.array_equal(found, expected)
