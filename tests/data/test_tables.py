"""The same rows from every form in which data sets are published."""

import gzip
import json
import pickle
import random
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar_pl.data import records
from mstar_pl.data.tables import open_table
from mstar_pl.types import InputError
from tests.tables import write_columns, write_table

ROWS = [
    {"pid": "71", "question": 'Which "block"?\nA \\ or {B}, [C]?', "answer": "3"},
    {"pid": "72", "question": "Wie viele Bäume? 树", "answer": "}, {"},
    {"pid": "73", "question": "\\", "answer": 'tab\tand "\\"'},
]


DAMAGED = bytearray(gzip.compress(random.Random(0).randbytes(999)))
DAMAGED[11] ^= 0xFF
DAMAGED = bytes(DAMAGED)

FORMS = ["a.jsonl", "a.jsonl.gz", "a.list.json", "a.object.json", "a.object.json.gz", "a.tsv", "a.csv.gz"]


@pytest.mark.parametrize("name", [*FORMS, "a.parquet", "a.arrow"])
def test_every_form_gives_the_same_rows(tmp_path, name):
    table = open_table(write_table(tmp_path / name, ROWS))
    assert [row for _, row in table] == ROWS
    assert [table[place][1] for place in (2, 0, -2)] == [ROWS[2], ROWS[0], ROWS[1]]
    assert len(table) == 3
    assert [row for _, row in pickle.loads(pickle.dumps(table))] == ROWS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", "a.jsonl:3"),
        ("a.list.json", "a.list.json: row 2"),
        ("a.object.json", "a.object.json: pid 73"),
        ("a.tsv", "a.tsv: row 2"),
        ("a.parquet", "a.parquet: row 2"),
    ],
)
def test_rows_are_named_for_messages(tmp_path, name, expected):
    assert open_table(write_table(tmp_path / name, ROWS))[2][0] == f"{tmp_path}/{expected}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4),
    st.sampled_from([None, 2]),
    st.booleans(),
    st.integers(1, 9),
)
def test_any_json_list_is_cut_between_its_rows(tmp_path_factory, rows, indent, ascii, chunk):
    path = tmp_path_factory.mktemp("json") / "rows.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii), "utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", chunk)
        assert [row for _, row in open_table(path)] == rows


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.json", "[1, 2]", "not a JSON list or object of rows"),
        ("a.json", '[{"a": 1}, {"a"', "cut off"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "name it .jsonl"),
        ("a.json", '[{"a": 1} {"a": 2}]', "row 1: not valid JSON"),
        ("a.json", '[{"a": 1}, 7, {"a": 2}]', "row 1: not valid JSON"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', ":2: not valid JSON"),
        ("a.tsv", "", "is empty"),
        ("a.tsv", "a\tb\n1\t2\n3\n", "row 1: 1 fields, but the header has 2"),
        ("a.parquet", "PAR1 not", "cannot be read as Parquet"),
        ("a.arrow", "none", "cannot be read as Arrow"),
        ("a.jsonl.gz", "not packed", "cannot be unpacked"),
        ("a.xlsx", "", "is no table by its name"),
        ("a.json", '[{"a": 1}}', "not a JSON list or object of rows"),
        ("a.json", '{"data": [{"a": 1}, {"a": 2}]}', "row 0: 'data' holds no row; give a file of the rows"),
        ("a.json", '{"version": 1, "7": {"a": 1}}', "row 0: 'version' holds no row"),
        ("a.json", '[{"a": 1}, {"a": 0x1}]', "row 1: not valid JSON .*; mend the row"),
        ("a.tsv", "a\ta\n1\t2\n", ": two columns have the name 'a'"),
        ("a.csv", "a,Gr\xf6ße\n1,2\n".encode("latin-1"), "header: not UTF-8 .* convert the file to UTF-8"),
        ("a.tsv", "a\tb\n1\tä\n".encode("utf-16"), "header: not UTF-8"),
        ("a.tsv", "a\tb\n1\tä\n".encode("latin-1"), "row 0: not UTF-8 .* convert the file to UTF-8"),
        ("a.tsv", "a\tb\r1\t2\r", "header: .* lines do not end in a line feed"),
        ("a.tsv", 'a\tb\n0\t1\n1\t5" wide\n2\t3\n', "row 1: .* a quote is not closed or not doubled"),
        ("a.jsonl.gz", DAMAGED, "cannot be unpacked"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"{re.escape(name)}.*{reason}"):
        list(open_table(tmp_path / name))


@pytest.mark.parametrize(("name", "size"), [("a.parquet", 4 + 2000), ("a.arrow", 3000)])
def test_damaged_columns_are_named(tmp_path, name, size):
    path = write_columns(tmp_path / name, {"id": [f"{number:050d}" for number in range(100)]})
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * size + data[4 + size :] if name == "a.parquet" else data[:size])
    with pytest.raises(InputError, match=f"{name}: cannot be read as"):
        list(open_table(path))


@pytest.mark.parametrize("name", ["a.JSON", "a.jsonl", "a.CSV", "a.json.GZ"])
def test_a_byte_order_mark_and_capitals_in_names_are_no_matter(tmp_path, name):
    text = {"a.jsonl": '{"a": "1"}\n', "a.CSV": "a\n1\n"}.get(name, '[{"a": "1"}]').encode("utf-8-sig")
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("GZ") else text)
    assert [row for _, row in open_table(tmp_path / name)] == [{"a": "1"}]


def test_a_folder_is_read_by_split(tmp_path):
    (tmp_path / "data").mkdir()
    parts = {"test-00000-of-00002": ROWS[:2], "test-00001-of-00002": ROWS[2:], "testmini-0-of-1": ROWS[:1]}
    for name, rows in parts.items():
        write_table(tmp_path / f"data/{name}.parquet", rows)
    assert [row for _, row in open_table(tmp_path, "test")] == ROWS
    assert open_table(tmp_path, "test")[2][1] == ROWS[2]
    assert len(open_table(tmp_path, "testmini")) == 1
    with pytest.raises(InputError, match="holds test, testmini; choose one by the option split"):
        open_table(tmp_path)
    with pytest.raises(InputError, match="check the path and split 'val'"):
        open_table(tmp_path, "val")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["train-00000-of-00003", "train-00002-of-00003"], "holds the parts 0, 2 of 3; fetch all"),
        (["train-0-of-1", "train-0-of-1-5f3a"], "holds the parts 0, 0 of 1; fetch all, each once"),
        (["math/train-0-of-1", "vqa/train-0-of-1"], "holds math, vqa; give the path of one"),
    ],
)
def test_a_folder_is_read_as_a_whole(tmp_path, names, reason):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_table(tmp_path / f"{name}.parquet", ROWS)
    with pytest.raises(InputError, match=reason):
        open_table(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_data_files": [{"filename": "../a.arrow"}]}'])
def test_a_saved_dataset_lists_its_own_files(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(InputError, match=r"state\.json: does not list the files of a saved data set"):
        open_table(tmp_path)


def test_a_saved_dataset_is_read_by_split_and_without_its_caches(tmp_path):
    halves = {"train": datasets.Dataset.from_list(ROWS[:1]), "test": datasets.Dataset.from_list(ROWS[1:])}
    datasets.DatasetDict(halves).save_to_disk(tmp_path)
    (tmp_path / "test/cache-1.arrow").write_bytes((tmp_path / "test/data-00000-of-00001.arrow").read_bytes())
    assert [row for _, row in open_table(tmp_path, "test")] == ROWS[1:]


def test_a_large_row_group_is_read_at_any_place(tmp_path):
    rows = [{"id": number, "text": "x" * (number % 7)} for number in range(40_000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = open_table(tmp_path / "a.parquet")
    for place in random.Random(0).sample(range(len(rows)), 50):
        assert table[place][1] == rows[place]
