"""What tests share: tiny models, pictures, prompts."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import settings
from PIL import Image, ImageDraw

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.types import Example, Prompt
from tests.tiny import build_internvl, build_qwen

# The same cases in every run, and no time limit: machines are busy.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

# Several folders have one, and no doctest: as test modules of the same name they would clash.
collect_ignore_glob = ["*/conftest.py"]

SIZES = [(96, 96), (131, 77), (60, 200), (96, 96), (250, 90), (33, 45), (96, 97), (180, 60)]


@pytest.fixture(scope="session")
def internvl_folder(tmp_path_factory):
    torch.manual_seed(0)
    return str(build_internvl(tmp_path_factory.mktemp("internvl")))


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory):
    torch.manual_seed(0)
    return str(build_qwen(tmp_path_factory.mktemp("qwen")))


@pytest.fixture(params=["internvl", "qwen2_5_vl"])
def family_folder(request):
    """The folder of each family in turn."""
    return request.getfixturevalue(
        {"internvl": "internvl_folder", "qwen2_5_vl": "qwen_folder"}[request.param]
    )


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory) -> Path:
    """Pictures of eight sizes, each with other contents."""
    folder = tmp_path_factory.mktemp("pictures")
    for index, size in enumerate(SIZES):
        image = Image.new("RGB", size, (20 * index, 255 - 30 * index, 90))
        ImageDraw.Draw(image).ellipse((5, 5, 15 + 4 * index, 30), fill=(255, 40 * index % 255, 0))
        image.save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def prompts(picture_folder) -> list[Prompt]:
    """Eight prompts of different lengths, one picture each."""
    words = ["What", "is", "the", "sum", "of", "the", "bars", "and", "the", "area"]
    return [
        Prompt(
            id=f"p{index}",
            question=" ".join(words[: index + 2]),
            images=(str(picture_folder / f"{index}.png"),),
            answer="4",
        )
        for index in range(len(SIZES))
    ]


@pytest.fixture(scope="session")
def examples(prompts) -> list[Example]:
    """The prompts with responses of different lengths."""
    texts = [
        "The answer is 4.\n\n# Answer\n\n4",
        "4",
        "I count: red 4.\n\n# Answer\n\n4",
        "red 2, blue 2.\n\nAdd: 2 + 2 = 4.",
    ]
    return [Example(prompt=prompt, response=texts[index % 4]) for index, prompt in enumerate(prompts)]


@pytest.fixture(scope="session")
def train_file(tmp_path_factory, examples):
    """12 steps of 2 examples: 24 rows, ids repeated, as several responses of a prompt are."""
    rows = [examples[index % len(examples)].to_json() for index in range(24)]
    return str(write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", rows))
