"""The HD transform against a statement of its rule that looks at every grid and cuts with Pillow."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mstar_pl.models.phi3_v import Phi3VImageProcessor
from mstar_pl.models.phi3_v.image_processing import num_image_tokens, padded_size

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
RANDOM = random.Random(0)
EDGES = [(1, 1), (336, 336), (337, 336), (335, 336), (1000, 300), (300, 1000), (8000, 50), (50, 8000), (7, 5)]
SIZES = EDGES + [(RANDOM.randint(20, 2000), RANDOM.randint(20, 2000)) for _ in range(1000)]
CROPS = (1, 2, 3, 4, 6, 9, 12, 16)
PICTURES = EDGES + [(RANDOM.randint(20, 400), RANDOM.randint(20, 400)) for _ in range(93)]


def best_grid(width, height, num_crops):
    """Columns and rows of the grid with the most columns that covers a wide image, less an empty row."""
    if width < height:
        return best_grid(height, width, num_crops)[::-1]
    ratio = width / height
    columns, rows = max(
        (columns, rows)
        for columns in range(1, num_crops + 1)
        for rows in range(1, num_crops + 1)
        if columns * rows <= num_crops and rows == math.ceil(columns / ratio)
    )
    empty = 336 * (rows - 1) >= int(336 * columns / ratio)  # the height is rounded down
    return columns, rows - empty


def turned(picture):
    return Image.fromarray(np.ascontiguousarray(np.asarray(picture).swapaxes(0, 1)))


def on_grid(picture, columns, rows):
    """The picture as wide as its grid, with white above and below."""
    if picture.width < picture.height:
        return turned(on_grid(turned(picture), rows, columns))
    height = int(336 * columns / (picture.width / picture.height))
    missing = 336 * rows - height
    small = picture.resize((336 * columns, height), Image.Resampling.BILINEAR)
    return ImageOps.expand(small, (0, missing // 2, 0, missing - missing // 2), (255, 255, 255))


def values(picture):
    """Channels first, normalised in float32."""
    scaled = np.asarray(picture).astype(np.float32) / np.float32(255)
    return ((scaled - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("num_crops", CROPS)
def test_grids_and_tokens_of_a_thousand_sizes(num_crops):
    for width, height in SIZES:
        columns, rows = best_grid(width, height, num_crops)
        assert padded_size(width, height, num_crops) == (336 * columns, 336 * rows), (width, height)
        published = (rows * columns + 1) * 144 + 1 + (rows + 1) * 12
        assert num_image_tokens(336 * columns, 336 * rows) == published


def test_pixels_are_those_of_the_rule_bit_by_bit():
    noise = np.random.default_rng(0)
    for place, size in enumerate(PICTURES):
        num_crops = 16 if place % 30 == 10 else CROPS[place % 4]
        picture = Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), np.uint8))
        columns, rows = best_grid(*size, num_crops)
        grid = on_grid(picture, columns, rows)
        encoded = Phi3VImageProcessor(num_crops=num_crops)([picture])
        assert encoded["image_sizes"].tolist() == [[336 * rows, 336 * columns]]
        whole, *parts = encoded["pixel_values"][0]
        assert len(parts) == num_crops
        for number, part in enumerate(parts[: rows * columns]):
            left, top = 336 * (number % columns), 336 * (number // columns)
            expected = values(grid.crop((left, top, left + 336, top + 336)))
            assert np.array_equal(part.numpy(), expected), (size, num_crops, number)
        assert not any(part.any() for part in parts[rows * columns :])
        seen = torch.nn.functional.interpolate(
            torch.tensor(values(grid))[None], size=(336, 336), mode="bicubic"
        )
        assert torch.equal(whole, seen[0]), size


def test_images_of_other_modes_become_rgb():
    grey = Image.new("L", (40, 30), 100)
    pixels = [Phi3VImageProcessor()([one])["pixel_values"] for one in (grey, grey.convert("RGB"))]
    assert torch.equal(*pixels)


def test_an_image_of_which_nothing_is_left_and_no_crops_are_refused():
    with pytest.raises(ValueError, match="an image of 9000 to 1 pixels is too narrow; crop it"):
        Phi3VImageProcessor(num_crops=4)([Image.new("RGB", (1, 9000))])
    with pytest.raises(ValueError, match="num_crops 0: an image has at least one crop"):
        Phi3VImageProcessor(num_crops=4)([Image.new("RGB", (9, 9))], num_crops=0)
