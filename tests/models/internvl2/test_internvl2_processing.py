"""Tokens and tiles of the converted InternVL2 are those of the published code."""

import json
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from sentencepiece import SentencePieceProcessor
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import SentencePieceExtractor

from mstar_pl.models import InternVL
from mstar_pl.models.internvl2.conversion import convert_internvl2
from mstar_pl.models.internvl2.tokenizer import check_tokenizer, native_tokenizer
from mstar_pl.types import InputError
from tests.tiny.internvl2 import build_published, write_tokenizer

SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型\uff0c"
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
PARTS = [
    "How",
    " many",
    "bars",
    " ",
    "  ",
    "\n",
    "\n\n",
    "\t",
    "12",
    "3.5",
    "图中",
    "红色",
    "\uff1f",
    "é",
    "👩\u200d🚀",
]
PARTS += [
    "aaaa",
    "a",
    "-----",
    "=",
    "(B)",
    "# Answer",
    "\\frac{1}{2}",
    "x_1",
    "\r\n",
    "[UNUSED_TOKEN_0]",
    "▁",
]
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<box>"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return build_published(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def converted(published, tmp_path_factory):
    return str(convert_internvl2(published, tmp_path_factory.mktemp("native") / "out"))


def published_tokens(folder):
    """The rule of the slow tokenizer: added tokens are cut out, the rest goes to sentencepiece."""
    model = SentencePieceProcessor(str(folder / "tokenizer.model"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    added = {token["content"]: int(place) for place, token in settings["added_tokens_decoder"].items()}
    pattern = re.compile("(" + "|".join(map(re.escape, sorted(added, key=len, reverse=True))) + ")")

    def encode(text):
        parts = [part for part in pattern.split(text) if part]
        return [id for part in parts for id in ([added[part]] if part in added else model.encode(part))]

    return encode


def test_tokens_are_those_of_sentencepiece(published, converted):
    encode, tokenizer = published_tokens(published), AutoTokenizer.from_pretrained(converted)
    draw = random.Random(0)
    plain = ["".join(draw.choices(PARTS, k=draw.randint(1, 30))) for _ in range(500)]
    mixed = ["".join(draw.choices(PARTS + SPECIAL, k=draw.randint(1, 30))) for _ in range(500)]
    for text in plain + mixed:
        assert tokenizer.encode(text) == encode(text), text
    for text in plain:
        assert tokenizer.decode(tokenizer.encode(text)) == text.replace("▁", " ")


def test_a_space_is_put_in_front_where_sentencepiece_does(tmp_path):
    write_tokenizer(tmp_path, prefix=True)
    encode, tokenizer = published_tokens(tmp_path), native_tokenizer(tmp_path)
    check_tokenizer(tokenizer, tmp_path)
    for text in ("How many", " How", "图中<img>How<box> many\n", "  12", "<|im_end|>"):
        assert tokenizer.encode(text) == encode(text), text
    assert tokenizer.decode(tokenizer.encode(" How  many")) == " How  many"


def test_a_tokenizer_that_cannot_be_kept_is_refused(tmp_path):
    """Sentencepiece would take spaces away at the end, a rule that the published model has not."""
    write_tokenizer(tmp_path)
    model = SentencePieceExtractor(str(tmp_path / "tokenizer.model")).proto
    model.normalizer_spec.remove_extra_whitespaces = True
    (tmp_path / "tokenizer.model").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"tokenizer\.model: its rules cannot be kept"):
        check_tokenizer(native_tokenizer(tmp_path), tmp_path)


def test_special_tokens_keep_their_places(published, converted):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    settings = json.loads((published / "tokenizer_config.json").read_text())
    config = json.loads((published / "config.json").read_text())
    for place, token in settings["added_tokens_decoder"].items():
        assert tokenizer.convert_tokens_to_ids(token["content"]) == int(place)
    special = [int(place) for place in settings["added_tokens_decoder"]]
    assert tokenizer.decode(special, skip_special_tokens=True) == ""
    assert len(tokenizer) == config["llm_config"]["vocab_size"], "<video> takes the place of an unused piece"
    assert tokenizer.decode(tokenizer.encode("[UNUSED_TOKEN_8]")) == "[UNUSED_TOKEN_8]"
    assert len(tokenizer.encode("[UNUSED_TOKEN_8]")) > 1, "a text cannot spell <|im_start|>"


def test_the_prompt_is_that_of_the_published_chat(published, converted):
    lmm = InternVL(converted)
    query = f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n<image>\nHow many?<|im_end|>"
    query += "<|im_start|>assistant\n"
    picture = Image.effect_noise((30, 28), 90).convert("RGB")
    encoded = lmm.encode([lmm.chat("How many?", 1)], [[picture]])
    images = query.replace("<image>", "<img>" + "<IMG_CONTEXT>" * 4 + "</img>")
    assert encoded["input_ids"][0].tolist() == published_tokens(published)("<s>" + images)
    short = InternVL(converted, system_prompt="Be exact.").chat("How many?", 0)
    query = "<|im_start|>system\nBe exact.<|im_end|><|im_start|>user\nHow many?<|im_end|>"
    assert short == f"<s>{query}<|im_start|>assistant\n"


def tiles_of(image, side, most):
    """The published rule (`dynamic_preprocess`), with Pillow alone."""
    grids = sorted(
        ((i, j) for i in range(1, most + 1) for j in range(1, most + 1) if i * j <= most),
        key=lambda grid: grid[0] * grid[1],
    )
    width, height = image.size
    chosen, least = (1, 1), float("inf")
    for i, j in grids:
        distance = abs(width / height - i / j)
        if distance < least:
            chosen, least = (i, j), distance
        elif distance == least and width * height > 0.5 * side * side * i * j:
            chosen = (i, j)
    columns, rows = chosen
    large = image.resize((side * columns, side * rows), Image.Resampling.BICUBIC)
    tiles = [
        large.crop((side * column, side * row, side * (column + 1), side * (row + 1)))
        for row in range(rows)
        for column in range(columns)
    ]
    return tiles if len(tiles) == 1 else [*tiles, image.resize((side, side), Image.Resampling.BICUBIC)]


def pixels(tiles):
    """In [0, 1], then less the mean of ImageNet, over its standard deviation."""
    values = (
        torch.from_numpy(np.stack([np.asarray(tile) for tile in tiles])).permute(0, 3, 1, 2).float() / 255
    )
    mean, std = (
        torch.tensor(three).view(3, 1, 1) for three in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    return (values - mean) / std


@pytest.mark.parametrize(("side", "num_sizes", "longest"), [(28, 200, 300), (448, 2, 900)])
def test_tiles_are_those_of_the_published_rule(converted, side, num_sizes, longest):
    """Of the small processor, and with tiles of the published size."""
    processor = InternVL(converted).processor.image_processor
    draw, counts = random.Random(0), set()
    sizes = [(draw.randint(1, longest), draw.randint(1, longest)) for _ in range(num_sizes)]
    sizes += [(side * i, side * j) for i, j in ((1, 1), (2, 2), (3, 2), (1, 3))]  # ties between grids
    for index, size in enumerate(sizes):
        image = Image.merge("RGB", [Image.effect_noise(size, 120) for _ in range(3)])
        expected = pixels(tiles_of(image, side, 12))
        options = {"size": {"height": side, "width": side}, "max_patches": 12, "return_tensors": "pt"}
        found = processor(image, **options)["pixel_values"]
        assert found.shape == expected.shape, (index, size)
        assert torch.equal(found, expected), (index, size)
        counts.add(len(expected))
    assert num_sizes < 100 or counts == {1, *range(3, 14)}
