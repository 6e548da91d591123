"""Benchmarks of step judges as they are published: solutions, labels, scores."""

import json

import pytest

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.evaluation.benchmarks import STEP_BENCHMARKS
from mstar_pl.types import InputError
from tests.evaluation.published_solutions import (
    processbench_rows,
    visualprocessbench_rows,
    write_processbench,
    write_visualprocessbench,
)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_visualprocessbench_pools_steps_and_leaves_neutral_ones_out(form, tmp_path):
    benchmark = STEP_BENCHMARKS["visualprocessbench"](write_visualprocessbench(tmp_path, form))
    first, second = benchmark.load()
    assert (first.prompt.question, first.labels, len(first.prompt.images)) == ("Find x.", (1.0, 0.0), 1)
    assert second.steps == ("Look.\n\nThere are 4.", "x=4"), "a step may hold blank lines"
    assert second.labels == (None, 1.0)
    scores = benchmark.summarise([(first, [True, False]), (second, [False, False])])
    # Correct steps: 1 of 2 found, none wrongly; incorrect ones: 1 of 1 found, one wrongly.
    assert scores["all"] == {"macro_f1": pytest.approx(2 / 3), "num": 2, "num_steps": 3}
    assert scores["MathVerse"]["macro_f1"] == 1
    assert scores["WeMath"]["macro_f1"] == 0


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_processbench_is_the_mean_over_its_splits(form, tmp_path):
    benchmark = STEP_BENCHMARKS["processbench"](write_processbench(tmp_path, form))
    solutions = benchmark.load()
    assert [one.labels for one in solutions[:2]] == [(1.0,), (1.0, 0.0, None)]
    judged = [(one, [True] if len(one.steps) == 1 else [True, False, False]) for one in solutions]
    assert benchmark.summarise(judged)["all"] == {"error": 1, "correct": 1, "f1": 1, "num": 8}
    judged[0] = (solutions[0], [False])  # gsm8k: no error is found in no solution without error
    scores = benchmark.summarise(judged)
    assert scores["gsm8k"] == {"error": 1, "correct": 0, "f1": 0, "num": 2}
    assert scores["all"]["f1"] == 0.75


def test_a_missing_split_of_processbench_is_named(tmp_path):
    folder = write_processbench(tmp_path)
    (folder / "math.json").unlink()
    with pytest.raises(InputError, match=r"no math of processbench here; looked for math\.json, math\.jsonl"):
        STEP_BENCHMARKS["processbench"](folder).load()
    with pytest.raises(InputError, match=r"gsm8k\.json: no such folder; give the one with gsm8k\.json"):
        STEP_BENCHMARKS["processbench"](folder / "gsm8k.json").load()


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("visualprocessbench", {"response": {"steps": ["x"]}}, "column 'process_correctness' is missing"),
        ("visualprocessbench", {"response": ["x"]}, "'response' must be an object"),
        (
            "visualprocessbench",
            {"response": {"steps": ["x"], "process_correctness": [2]}},
            "label 2 is not 1",
        ),
        (
            "visualprocessbench",
            {"response": {"steps": "x", "process_correctness": [1]}},
            "'steps' must be a list",
        ),
        (
            "visualprocessbench",
            {"response": {"steps": ["x"], "process_correctness": None}},
            "a cell is empty",
        ),
        ("visualprocessbench", {"question": None}, "a cell is empty or of another type"),
        ("visualprocessbench", {"data_source": None}, "'data_source' must be a text, got None"),
        ("processbench", {"id": None}, "'id' must be a text, got None"),
        ("processbench", {"problem": None}, "'problem' must be a text, got None"),
        ("processbench", {"steps": "ab"}, "'steps' must be a list of texts, got 'ab'"),
        ("processbench", {"steps": ["a", None]}, "'steps' must be a text, got None"),
        ("processbench", {"label": None}, "'label' must be a text, got None"),
        ("processbench", {"label": 3}, "3 steps and 4 labels"),
    ],
)
def test_malformed_solutions_are_named(name, cells, reason, tmp_path):
    if name == "processbench":
        path, rows = write_processbench(tmp_path) / "math.json", processbench_rows("math")
        path.write_text(json.dumps([rows[0], rows[1] | cells]))
    else:
        path, rows = write_visualprocessbench(tmp_path) / "test.jsonl", visualprocessbench_rows()
        write_jsonl(path, [rows[0], rows[1] | cells])
    row = "math.json: row 1" if name == "processbench" else "test.jsonl:2"
    with pytest.raises(InputError, match=f"{row}: {reason}"):
        STEP_BENCHMARKS[name](tmp_path).load()


def test_repeated_ids_are_refused(tmp_path):
    """Scores are kept by id: those of one solution would count for the other."""
    path = write_processbench(tmp_path) / "math.json"
    path.write_text(path.read_text().replace("math-1", "gsm8k-1"))
    with pytest.raises(InputError, match="id 'gsm8k-1' is used twice"):
        STEP_BENCHMARKS["processbench"](tmp_path).load()
