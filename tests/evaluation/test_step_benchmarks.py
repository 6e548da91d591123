"""Benchmarks of step judges as they are published: solutions, labels, scores."""

import pytest

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.evaluation.benchmarks import STEP_BENCHMARKS
from mstar_pl.types import InputError
from tests.evaluation.published_solutions import (
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


def test_malformed_solutions_are_named(tmp_path):
    folder = write_visualprocessbench(tmp_path)
    path = folder / "test.jsonl"
    rows = visualprocessbench_rows()
    rows[1]["response"] = {"steps": ["x"]}
    write_jsonl(path, rows)
    with pytest.raises(InputError, match=r"test\.jsonl:2: column 'process_correctness' is missing"):
        STEP_BENCHMARKS["visualprocessbench"](folder).load()
    rows[1]["response"] = '{"steps": ["x"]}'
    write_jsonl(path, rows)
    with pytest.raises(InputError, match=r"test\.jsonl:2: field 'response' must be an object, got str"):
        STEP_BENCHMARKS["visualprocessbench"](folder).load()
    rows[1]["response"] = {"steps": ["x"], "process_correctness": [2]}
    write_jsonl(path, rows)
    with pytest.raises(InputError, match=r"test\.jsonl:2: label 2 is not 1"):
        STEP_BENCHMARKS["visualprocessbench"](folder).load()
