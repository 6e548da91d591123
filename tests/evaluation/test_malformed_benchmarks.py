"""Malformed benchmarks, unknown names: one line with file, row and fix."""

import csv
import io
import json

import pytest

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.evaluation.benchmarks import BENCHMARKS, choose, find_all
from mstar_pl.evaluation.benchmarks.benchmark import load_checked
from mstar_pl.types import InputError
from tests.evaluation.files import write_tsv
from tests.evaluation.published import FORMS, write_benchmark


def load(name, folder, **options):
    return list(load_checked(BENCHMARKS[name](folder, **options)))


@pytest.mark.parametrize("name", FORMS)
def test_data_of_another_kind_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=f"no {name} here; looked for"):
        BENCHMARKS[name](tmp_path)
    path = tmp_path / "other.jsonl"
    path.write_text('{"what": 1}\n')
    with pytest.raises(InputError, match=r"other\.jsonl:1: column '\w+' is missing \(there are what\)"):
        BENCHMARKS[name](path).load()


def test_missing_images_and_wrong_pointers_are_named(tmp_path):
    folder = write_benchmark("mathvista", tmp_path / "a")
    (folder / "data/images/7003.jpg").unlink()
    with pytest.raises(InputError, match=r"testmini\.json: pid 7003: image .*does not exist"):
        load("mathvista", folder)
    folder = write_benchmark("mmbench", tmp_path / "b", "jsonl")
    path = folder / "dev.jsonl"
    path.write_text(path.read_text().replace('"image": "31"', '"image": "32"'))
    with pytest.raises(InputError, match=r"dev\.jsonl:2: image is that of row 32, which has none"):
        load("mmbench", folder)
    path.write_text(path.read_text().replace('"image": "32"', '"image": "1000031"'))
    with pytest.raises(InputError, match="row 1000031"):
        load("mmbench", folder)
    folder = write_benchmark("m3cot", tmp_path / "c")
    path = folder / "data/test.jsonl"
    rows = [json.loads(line) | {"image": None} for line in path.read_text().splitlines()]
    write_jsonl(path, rows)
    with pytest.raises(InputError, match=r"test\.jsonl:1: has no image"):
        load("m3cot", folder)


def test_lists_in_a_tsv_are_spelt_as_python_does(tmp_path):
    path = write_benchmark("mathvista", tmp_path, "tsv") / "MathVista_MINI.tsv"
    path.write_text(path.read_text().replace("['North', 'South']", "North; South"))
    with pytest.raises(InputError, match=r"row 2: 'North; South' does not spell a list"):
        load("mathvista", tmp_path)


def test_mmbench_without_the_coarse_categories_is_refused(tmp_path):
    folder = write_benchmark("mmbench", tmp_path, "jsonl")
    path = folder / "dev.jsonl"
    path.write_text(path.read_text().replace("l2-category", "l2"))
    with pytest.raises(InputError, match=r"dev\.jsonl:1: column 'l2-category' is missing"):
        load("mmbench", folder)


@pytest.mark.parametrize("name", ["mmstar", "ai2d"])
def test_an_empty_option_before_others_is_named(name, tmp_path):
    """Left out, it would give all that follow the letter before theirs."""
    folder = write_benchmark(name, tmp_path, "tsv")
    (path,) = folder.glob("*.tsv")
    rows = [*csv.DictReader(io.StringIO(path.read_text()), delimiter="\t")]
    rows[1]["B"] = "nan"
    write_tsv(path, rows)
    with pytest.raises(InputError, match=r"row 1: option C comes after an empty one"):
        BENCHMARKS[name](folder).load()


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("mathvista", {"question": None}, "field 'question' must be a string, got NoneType"),
        ("mathvista", {"question": ["?"]}, "field 'question' must be a string, got list"),
        ("mathvista", {"answer": 3}, "field 'answer' must be a string or null, got int"),
        ("mathvista", {"choices": "ab"}, "'choices' must be a list of texts, got 'ab'"),
        ("mathvista", {"precision": "inf"}, "'precision' must be a whole number, got 'inf'"),
        ("mathvista", {"image": None}, "has no image"),
        ("mathvista", {"image": {}}, "an image must be a path, got {}"),
        ("mathvista", {"metadata": [1]}, r"'metadata' must be an object, or JSON as text, got \[1\]"),
        ("mathvista", {"metadata": {"task": None}}, r"groups \[None\] must be texts"),
        ("mathvista", {"metadata": {"skills": [["x"]]}}, r"groups \[\['x'\]\] must be texts"),
        ("m3cot", {"id": 5}, "field 'id' must be a string"),
        ("m3cot", {"choices": "ab"}, "'choices' must be a list of texts, got 'ab'"),
        ("m3cot", {"choices": ["x", None]}, "'choices' must be a text, got None"),
        ("m3cot", {"topic": 5}, r"groups \['\w+', 5\] must be texts"),
        ("mmbench", {"index": None}, "'index' must be a text, got None"),
        ("mmbench", {"index": "x"}, "invalid literal for int"),
        ("mmbench", {"l2-category": 5}, "a cell is empty or of another type"),
        ("ai2d", {"options": None}, "'options' must be a list of texts, got None"),
        ("ai2d", {"answer": None}, "'answer' must be a text, got None"),
        ("ai2d", {"answer": 1.5}, "invalid literal for int"),
        ("ai2d", {"index": None}, "'index' must be a text, got None"),
    ],
)
def test_cells_that_are_empty_or_of_another_kind_are_named(name, cells, reason, tmp_path):
    folder = write_benchmark(name, tmp_path, "json" if name == "mathvista" else "jsonl")
    (path,) = (file for file in folder.rglob("*.json*"))
    if name == "mathvista":
        rows = json.loads(path.read_text())
        rows["7002"] |= cells
        path.write_text(json.dumps(rows))
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_jsonl(path, [rows[0], rows[1] | cells, *rows[2:]])
    row = "testmini.json: pid 7002" if name == "mathvista" else f"{path.name}:2"
    with pytest.raises(InputError, match=rf"{row}: .*{reason}"):
        load(name, folder)


@pytest.mark.parametrize("gold", ["(B)", "B.", " B", "B:"])
def test_a_gold_letter_counts_however_it_is_written(gold, tmp_path):
    path = write_benchmark("m3cot", tmp_path) / "data/test.jsonl"
    path.write_text(path.read_text().replace('"answer": "B"', f'"answer": "{gold}"'))
    benchmark = BENCHMARKS["m3cot"](tmp_path)
    prompt = benchmark.load()[0]
    assert [benchmark.grade(answer, prompt).outcome.value for answer in ("(B)", "(A)")] == [
        "correct",
        "wrong",
    ]


def test_repeated_ids_are_refused(tmp_path):
    folder = write_benchmark("m3cot", tmp_path)
    path = folder / "data/test.jsonl"
    path.write_text(path.read_text() * 2)
    with pytest.raises(InputError, match="id 'physical-commonsense-9001' is used twice"):
        load("m3cot", folder)


def test_all_benchmarks_lie_in_folders_of_their_names(tmp_path):
    with pytest.raises(InputError, match="no benchmark here; name its folders mathvista, m3cot"):
        find_all(tmp_path, "policy", {})
    for name in ("m3cot", "ai2d"):
        write_benchmark(name, tmp_path / name)
    found = find_all(tmp_path, "official", {"ai2d": {"rules": "lmms-eval"}})
    assert (found["ai2d"].prompts, found["ai2d"].rules) == ("official", "lmms-eval")
    assert [name for name, benchmark in found.items() if benchmark is not None] == ["m3cot", "ai2d"]
    assert [*found] == [*BENCHMARKS]
    with pytest.raises(InputError, match="'rules' are not those of a benchmark; give them by its name"):
        find_all(tmp_path, "policy", {"rules": "head"})


def test_unknown_names_and_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="'mathvist' is not one of mathvista"):
        choose(BENCHMARKS, "mathvist", tmp_path, {})
    with pytest.raises(InputError, match="mmstar has no option 'era'; it has prompts"):
        choose(BENCHMARKS, "mmstar", tmp_path, {"era": "head"})
    with pytest.raises(InputError, match="rules '2030' of mmbench is not one of 2024, head"):
        choose(BENCHMARKS, "mmbench", tmp_path, {"rules": "2030"})
    with pytest.raises(InputError, match="rules 'mine' of mathvista is not one of default, mathvista"):
        choose(BENCHMARKS, "mathvista", tmp_path, {"rules": "mine"})
