"""The paper's split: seeded, written down, without a shared image between training and what is held out."""

import json
from collections import Counter

import pytest

from mstar_pl.cli import main
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.data.labelled import reveal
from mstar_pl.data.sources.given import load_prompts
from mstar_pl.data.sources.splits import image_groups, split_places
from mstar_pl.types import InputError, Prompt
from tests.tables import png, write_table

NUM = 60


@pytest.fixture
def source(tmp_path):
    """Sixty questions about thirty images, in MathV360K's layout."""
    folder = tmp_path / "data_images/TabMWP/images"
    folder.mkdir(parents=True)
    rows = []
    for number in range(NUM):
        image = f"TabMWP/images/{number // 2}.png"
        (tmp_path / "data_images" / image).write_bytes(png((number // 2, 0, 0)))
        turns = [
            {"from": "human", "value": f"<image>\nQuestion: {number}+1?"},
            {"from": "gpt", "value": "The answer is 7"},
        ]
        rows.append({"id": "identity_1", "image": image, "conversations": turns})
    return write_table(tmp_path / "train.list.json", rows)


def split(source, out, *options):
    given = [
        "--source",
        "MathV360K",
        "--source.path",
        str(source),
        "--source.images",
        str(source.parent / "data_images"),
    ]
    return main(["data", "split", *given, "--out", str(out), "--test", "9", "--val", "4", *options])


def test_the_parts_cover_the_set_and_share_no_image(source, tmp_path, capsys):
    assert split(source, tmp_path / "split") == 0
    assert "source 60, test 9, val 4" in capsys.readouterr().out
    train, half, test, val = (
        read_prompts(tmp_path / f"split/{name}.jsonl") for name in ("train", "half", "test", "val")
    )
    assert [len(test), len(val)] == [9, 4]
    unlabelled = [prompt for prompt in half if prompt.answer is None]
    assert [prompt for prompt in half if prompt.answer is not None] == list(train)
    assert {reveal(prompt).answer for prompt in unlabelled} == {"7"}
    assert abs(len(train) - len(unlabelled)) <= 2
    parts = [train, unlabelled, test, val]
    ids = Counter(prompt.id for part in parts for prompt in part)
    assert set(ids.values()) == {1}
    assert NUM - 2 <= len(ids) <= NUM, "of the image that fills a held-out part, a prompt may be left over"
    images = Counter(image for part in parts for image in {prompt.images for prompt in part})
    assert set(images.values()) == {1}


@pytest.fixture
def linked(tmp_path):
    """Rows whose images lie in cells: 0, 1 and 2 are linked by equal images, 3 has one of its own."""
    sets = [["red"], ["red", "blue"], ["green", "blue"], ["black"]]
    rows = [
        {"id": str(number), "question": "?", "answer": "1", "image": [png(color) for color in colors]}
        for number, colors in enumerate(sets)
    ]
    return write_table(tmp_path / "a.parquet", rows)


def test_equal_images_are_one_image_wherever_they_lie(linked):
    keys = image_groups(load_prompts(linked), "a.parquet")
    assert keys[0] == keys[1] == keys[2] != keys[3]
    texts = [Prompt(id=name, question="?") for name in "ab"]
    assert len(set(image_groups(texts, "b"))) == 2


@pytest.mark.parametrize(("test", "percent"), [(-2, 50), (1, 150), (1, -20), (1, 0)])
def test_sizes_out_of_range_are_refused(test, percent):
    with pytest.raises(InputError, match="give sizes of at least 0, a percentage in"):
        split_places([1, 2, 3], {"test": test}, percent, seed=0)


def test_a_split_is_made_again_from_its_seed_and_says_what_it_is(source, tmp_path, capsys):
    for out, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert split(source, tmp_path / out, "--seed", seed) == 0
    written = [json.loads((tmp_path / out / "split.json").read_text()) for out in "abc"]
    assert written[0] == written[1]
    assert written[0]["rows_sha256"] != written[2]["rows_sha256"]
    assert (tmp_path / "a/half.jsonl").read_bytes() == (tmp_path / "b/half.jsonl").read_bytes()
    assert (written[0]["seed"], written[0]["percent"]) == (3, 50)
    assert written[0]["class_path"] == "mstar_pl.data.sources.mathv360k.MathV360K"
    assert written[0]["options"]["images"] == str(source.parent / "data_images")
    assert written[0]["num_prompts"].keys() == {"source", "labelled", "unlabelled", "test", "val"}
    assert len(written[0]["source_sha256"]) == 64
    assert split(tmp_path / "none", tmp_path / "a") == 2, "parts of two splits do not come into one folder"
    assert "a: exists; remove it" in capsys.readouterr().err, "which is found out first"


def test_too_few_prompts_are_refused():
    with pytest.raises(InputError, match="3 prompts are too few to hold out 3; hold out fewer"):
        split_places([1, 2, 3], {"test": 2, "val": 1}, 50, seed=0)
    assert split_places([1, 1, 1], {"test": 0}, 100, 0) == {
        "test": [],
        "labelled": [0, 1, 2],
        "unlabelled": [],
    }
