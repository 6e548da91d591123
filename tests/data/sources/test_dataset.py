"""The same prompts from each form of a table with the field's column names."""

import base64

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
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


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_paths_and_lettered_options_of_delimited_files(tmp_path, name):
    (tmp_path / "a.png").write_bytes(PICTURE)
    rows = [
        {key: row[key] for key in row if key != "choices"}
        | dict(zip("AB", row["choices"] or ["", ""], strict=True))
        for row in ROWS
    ]
    prompts = DatasetPrompts(write_table(tmp_path / name, rows), metadata=["source"]).load()
    assert told(prompts) == (EXPECTED, [[PICTURE]] * 2)


def test_cells_beside_nulls_in_columns_of_floats(tmp_path):
    rows = [
        {"id": 7, "question": "?", "choices": ["x", "y"], "answer": 1, "precision": 2},
        {"id": None, "question": "?", "choices": None, "answer": None, "precision": None},
    ]
    columns = pa.Table.from_pylist(rows)
    for column in ("id", "answer", "precision"):  # as pandas writes a column of integers with nulls
        cells = pa.array([float(rows[0][column]), float("nan")])
        columns = columns.set_column(columns.schema.get_field_index(column), column, cells)
    pq.write_table(columns, tmp_path / "a.parquet")
    one, other = DatasetPrompts(tmp_path / "a.parquet", answer_form="index").load()
    assert (one.id, one.answer, one.precision) == ("7", "y", 2)
    assert (other.id, other.answer, other.precision) == ("1", None, None)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"question": None}, "'question' must be a text, got None"),
        ({"question": ["a"]}, r"'question' must be a text, got \['a'\]"),
        ({"question": True}, "'question' must be a text, got True"),
        ({"answer": ["3", "4"]}, "'answer' must be a text"),
        ({"id": {"a": 1}}, "'id' must be a text"),
        ({"unit": ["m"]}, "'unit' must be a text"),
        ({"choices": ["x", None]}, "'choices' must be a text, got None"),
        ({"metadata": ["x"]}, "'metadata' must be an object"),
        ({"precision": 1.5}, "'precision' must be a whole number, got 1.5"),
        ({"precision": "1e999"}, "'precision' must be a whole number"),
        ({"answer": " B", "choices": ["C", "A", "B"]}, "answer 'B' is the letter of 'A'; say in answer_form"),
        ({"A": "x", "B": None, "C": "y"}, "options are in the columns A, C: one is empty"),
        ({"A": None, "B": "y"}, "options are in the columns B: one is empty"),
    ],
)
def test_cells_of_another_kind_are_refused_by_name(tmp_path, cells, reason):
    path = write_table(tmp_path / "a.jsonl", [{"question": "?", "answer": "3"} | cells])
    with pytest.raises(InputError, match=r"a\.jsonl:1: .*" + reason):
        DatasetPrompts(path).load()


def test_the_first_column_that_holds_something_counts(tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    row = {"question": "?", "answer": None, "ground_truth": "3", "images": [], "image": "a.png"}
    (prompt,) = DatasetPrompts(write_table(tmp_path / "a.jsonl", [row])).load()
    assert (prompt.answer, prompt.images) == ("3", (f"{tmp_path}/a.png",))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fields": {"anser": "gold"}}, "fields: 'anser' is unknown; known are id, question"),
        ({"answer_form": "leter"}, "answer_form: 'leter' is unknown; known are any"),
        ({"faulty": "skp"}, "faulty: 'skp' is unknown; known are refuse, skip"),
    ],
)
def test_unknown_options_are_refused(tmp_path, options, reason):
    with pytest.raises(InputError, match=reason):
        DatasetPrompts(tmp_path / "a.jsonl", **options)


def test_answers_that_are_indices_and_prompts_without_an_answer(tmp_path):
    rows = [{"question": "?", "options": ["1", "0"], "answer": "0"}, {"question": "?", "answer": "nan"}]
    rows[1] |= {"options": ["1", "0"]}
    prompts = DatasetPrompts(write_table(tmp_path / "a.parquet", rows), answer_form="index").load()
    assert [prompt.answer for prompt in prompts] == ["1", None]


@pytest.mark.parametrize(
    ("form", "choices", "answer"),
    [
        ("letter", "CAB", "A"),
        ("text", "CAB", "B"),
        ("any", "ABC", "B"),
        ("any", "BBC", "B"),
        ("any", "CAD", "A"),
    ],
)
def test_choices_that_are_letters_need_to_be_told_apart_only_where_two_are_meant(
    tmp_path, form, choices, answer
):
    row = {"question": "?", "choices": [*choices], "answer": "B"}
    (prompt,) = DatasetPrompts(write_table(tmp_path / "a.jsonl", [row]), answer_form=form).load()
    assert prompt.answer == answer


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
