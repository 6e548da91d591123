"""The same prompts from each form of a table with the field's column names."""

import base64

import datasets
import pytest

from mstar_pl.data.images import image_bytes
from mstar_pl.data.sources.dataset import DatasetPrompts
from mstar_pl.data.sources.source import read_all
from mstar_pl.types import InputError, Prompt
from tests.tables import png, write_table

PICTURE = png("green")
ROWS = [
    {
        "pid": "71",
        "question": "Which is wide?",
        "choices": ["left", "right"],
        "answer": "B",
        "unit": None,
        "precision": None,
        "answer_type": "text",
        "image": "a.png",
        "source": "X",
    },
    {
        "pid": "72",
        "question": "How wide?",
        "choices": None,
        "answer": "1.2",
        "unit": "m",
        "precision": 1.0,  # as Parquet copies have it
        "answer_type": "float",
        "image": "a.png",
        "source": "Y",
    },
]
EXPECTED = [
    {
        "id": "71",
        "question": "Which is wide?",
        "answer": "right",
        "question_type": "multi_choice",
        "answer_type": "text",
        "choices": ["left", "right"],
        "metadata": {"source": "X"},
    },
    {
        "id": "72",
        "question": "How wide?",
        "answer": "1.2",
        "question_type": "free_form",
        "answer_type": "float",
        "unit": "m",
        "precision": 1,
        "metadata": {"source": "Y"},
    },
]


def told(prompts):
    """Return what prompts say, and the bytes of their images."""
    rows = [prompt.to_json() for prompt in prompts]
    return rows, [[image_bytes(image) for image in row.pop("images")] for row in rows]


@pytest.mark.parametrize("name", ["a.jsonl", "a.list.json", "a.object.json", "a.parquet", "a.arrow"])
def test_each_form_with_paths_gives_the_same_prompts(tmp_path, name):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(PICTURE)
    write_table(tmp_path / name, ROWS)
    prompts = DatasetPrompts(tmp_path / name, metadata=["source"], images=tmp_path / "pictures").load()
    assert told(prompts) == (EXPECTED, [[PICTURE]] * 2)


def test_each_form_with_images_inside_gives_the_same_prompts(tmp_path):
    cell = base64.b64encode(PICTURE).decode()
    lettered = [
        {
            "index": row["pid"],
            **{key: row[key] for key in ("question", "answer", "unit", "precision", "answer_type", "source")},
            **dict(zip("ABC", row["choices"] or [None, None], strict=False)),
            "C": "nan",
            "image": cell,
        }
        for row in ROWS
    ]
    write_table(tmp_path / "a.tsv", lettered)
    inside = [row | {"image": {"bytes": PICTURE, "path": None}} for row in ROWS]
    features = datasets.Dataset.from_list(ROWS).features | {"image": datasets.Image()}
    data = datasets.Dataset.from_list(inside, datasets.Features(features))
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    for name in ("a.tsv", "a.parquet", "saved"):
        assert told(DatasetPrompts(tmp_path / name, metadata=["source"]).load()) == (
            EXPECTED,
            [[PICTURE]] * 2,
        )


def test_columns_with_other_names_are_named(tmp_path):
    rows = [{"Q": "1+1?", "gold": "2", "key": 9}]
    source = write_table(tmp_path / "a.jsonl", rows)
    fields = {"question": "Q", "answer": "gold", "id": "key"}
    assert list(DatasetPrompts(source, fields).load()) == [Prompt(id="9", question="1+1?", answer="2")]
    with pytest.raises(
        InputError, match=r"a.jsonl:1: no column question or problem or prompt for 'question'"
    ):
        DatasetPrompts(source).load()
    with pytest.raises(InputError, match="no column g for 'answer', only Q, gold, key; name it"):
        DatasetPrompts(source, fields | {"answer": "g"}).load()


def test_answers_that_are_indices_and_prompts_without_an_answer(tmp_path):
    rows = [{"question": "?", "options": ["1", "0"], "answer": "0"}, {"question": "?", "answer": "nan"}]
    rows[1] |= {"options": ["1", "0"]}
    prompts = DatasetPrompts(write_table(tmp_path / "a.parquet", rows), answer_form="index").load()
    assert [prompt.answer for prompt in prompts] == ["1", None]


def test_rows_at_fault_are_refused_or_skipped_with_a_count(tmp_path, caplog):
    rows = [{"id": str(number), "question": "1+1?", "answer": "2", "image": None} for number in range(6)]
    rows[2]["image"] = "gone.png"
    rows[3]["image"] = "lost.png"
    rows[5]["id"] = "1"
    path = write_table(tmp_path / "a.jsonl", rows)
    strict = DatasetPrompts(path).load()
    assert strict[4].id == "4"
    with pytest.raises(InputError, match=r"a.jsonl:3: image 'gone.png' does not exist"):
        strict[2]
    assert [isinstance(one, InputError) for one in read_all(strict)] == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    with caplog.at_level("WARNING"):
        assert [prompt.id for prompt in DatasetPrompts(path, faulty="skip").load()] == ["0", "1", "4"]
    assert "skipped 3 of 6 rows at fault, the first: " in caplog.text
    assert "image 'gone.png' does not exist" in caplog.text
    with pytest.raises(InputError, match="every row is at fault"):
        DatasetPrompts(write_table(tmp_path / "b.jsonl", rows[2:4]), faulty="skip").load()
