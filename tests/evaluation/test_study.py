"""Studies: the order of the steps, what is skipped and resumed, tables against their definitions."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import fmean

import pytest
import yaml

from mstar_pl.cli import main
from mstar_pl.data.jsonl import write_json, write_jsonl
from mstar_pl.evaluation.study import Study
from mstar_pl.evaluation.study_tables import collect, compare, tables
from mstar_pl.types import InputError
from tests.evaluation.pairs import read_outcomes

CONFIG = Path(__file__).parents[2] / "configs/study/minivista.yaml"
SETTINGS = {
    "seeds": (1, 2),
    "once": {"data": "data minivista --out $dir --train 8"},
    "each_seed": {
        "warmup": "fit --seed $seed --root $dir --data $out/data",
        "mprm": "fit --path $run/warmup",
    },
    "recipe": "fit --row $name",
    "rows": {"a": "--mprm $run/mprm", "b": ""},
    "test": 'evaluate --policy $policy --out $dir --lmm \'{"question_style": "plain"}\'',
}
TASKS = ("math word problem", "other")


@pytest.fixture
def plan(tmp_path):
    return Study(out=tmp_path, **SETTINGS)


def answer(plan, name, seed, correct, undecided=()):
    """Write an evaluation whose prompts are answered so."""
    folder = plan.folder(name, seed) / "test"
    folder.mkdir(parents=True)
    rows = [
        {
            "id": f"p{n}",
            "task": TASKS[n % 2],
            "outcome": "undecided" if n in undecided else "correct" if right else "wrong",
        }
        for n, right in enumerate(correct)
    ]
    write_jsonl(folder / "responses.jsonl", rows)
    write_json(folder / "results.json", {})


def test_steps_come_seed_by_seed_and_know_their_folders(plan, tmp_path):
    steps = list(plan.steps())
    each = ["warmup", "warmup, test", "mprm", "a", "a, test", "b", "b, test"]
    assert [step.name for step in steps] == ["data", *(f"seed {s}, {name}" for s in (1, 2) for name in each)]
    assert steps[0].command == ("data", "minivista", "--out", f"{tmp_path}/data", "--train", "8")
    by_name = {step.name: step for step in steps}
    assert by_name["seed 2, warmup"].command[-3:] == (
        f"{tmp_path}/seed-2/warmup",
        "--data",
        f"{tmp_path}/data",
    )
    assert by_name["seed 1, a"].command[-1] == f"{tmp_path}/seed-1/mprm"
    test = by_name["seed 2, b, test"]
    assert test.folder == tmp_path / "seed-2/b/test"
    assert test.command[2] == f"{tmp_path}/seed-2/b/policy"
    read = {
        step.name: {other.name for other in steps if step is not other and step.needs(other)}
        for step in steps
    }
    assert read["seed 1, a"] == {"seed 1, mprm"}
    assert read["seed 2, b, test"] == {"seed 2, b"}
    assert read["seed 1, warmup"] == {"data"}
    assert json.loads(test.command[-1]) == {"question_style": "plain"}


def test_a_folder_may_have_a_space(tmp_path):
    plan = Study(out=tmp_path / "my study", **SETTINGS)
    *_, test = plan.steps()
    assert test.command[:4] == ("evaluate", "--policy", f"{tmp_path}/my study/seed-2/b/policy", "--out")
    assert json.loads(test.command[-1]) == {"question_style": "plain"}


def test_a_step_is_done_if_the_same_command_finished_it(plan):
    step = next(plan.steps())
    assert not step.is_done()
    step.folder.mkdir()
    write_json(step.folder / "done.json", {"command": list(step.command)})
    assert step.is_done()
    write_json(step.folder / "done.json", {"command": [*step.command, "--seed", "1"]})
    with pytest.raises(InputError, match=r"data: was made by another command \(see done\.json\)"):
        step.is_done()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {"warmup": ""}}, "'warmup' names two steps"),
        ({"baseline": "sft"}, r"baseline 'sft' is none of each_seed \(warmup, mprm\)"),
        ({"against": "warmup"}, r"against 'warmup' is none of the rows \(a, b\)"),
        ({"seeds": ()}, "at least one seed"),
        ({"test": "evaluate --benchmarks all"}, "the tables read one prompt file; give --data FILE"),
        ({"rows": {"a": "$folder"}}, r"seed 1, a: 'folder' in '.* \$folder'; known are \$out"),
        ({"once": {"data": "data $seed"}}, r"data: 'seed' in"),
        ({"rows": {"a": "'x"}}, "No closing quotation"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        list(Study(out=tmp_path, **SETTINGS | change).steps())


def test_tables_are_means_over_seeds_and_prompts_that_all_runs_decided(plan):
    rng = Random(0)
    runs = {
        (name, seed): [rng.random() < share for _ in range(60)]
        for name, share in [("warmup", 0.3), ("a", 0.6), ("b", 0.4)]
        for seed in (1, 2)
    }
    del runs["b", 2]  # still running
    for (name, seed), correct in runs.items():
        answer(plan, name, seed, correct, undecided={3} if (name, seed) == ("a", 2) else ())
    outcomes = collect(plan)
    rows = {row.name: row for row in compare(outcomes, "warmup", "b")}
    assert list(rows) == ["warmup", "a", "b"]
    kept = [n for n in range(60) if n != 3]
    for name, seeds, ids in [("warmup", (1, 2), range(60)), ("a", (1, 2), kept), ("b", (1,), range(60))]:
        expected = {seed: fmean(runs[name, seed][n] for n in ids) for seed in seeds}
        assert rows[name].seeds == pytest.approx(expected)
        assert rows[name].accuracy.mean == pytest.approx(fmean(expected.values()))
        assert rows[name].accuracy.low < rows[name].accuracy.mean < rows[name].accuracy.high
        if name != "warmup":
            gain = fmean(runs[name, s][n] - runs["warmup", s][n] for s in seeds for n in ids)
            assert rows[name].gain.mean == pytest.approx(gain)
    assert rows["warmup"].gain is None
    assert rows["b"].against is None
    assert rows["a"].against.mean == pytest.approx(
        fmean(runs["a", 1][n] - runs["b", 1][n] for n in range(60))
    ), "of the seed that both have"
    tasks = rows["a"].tasks
    assert tasks["MWP"].mean == pytest.approx(fmean(runs["a", s][n] for s in (1, 2) for n in range(0, 60, 2)))
    assert tasks.keys() == {"MWP", "other"}
    found = tables(outcomes, "warmup", "b")
    assert tables(read_outcomes(found["outcomes.json"]), "warmup", "b") == found
    read = list(csv.DictReader(found["rows.csv"].splitlines()))
    assert [row["setting"] for row in read] == ["warmup", "a", "b"]
    assert float(read[1]["mean"]) == rows["a"].accuracy.mean
    assert float(read[1]["against"]) == rows["a"].against.mean
    assert f"| a       | 2     | {100 * rows['a'].accuracy.mean:.1f} (" in found["rows.md"]
    numbers = json.loads(found["study.json"])
    assert numbers["a"]["gain"]["mean"] == rows["a"].gain.mean
    assert numbers["b"]["seeds"] == {"1": rows["b"].seeds[1]}
    assert "MWP" in found["tasks.md"]


SMALL = """
out: {out}
seeds: [4]
baseline: start
once:
  data: data minivista --out $dir --train 2 --val 0 --test 2
each_seed:
  start: data minivista --out $dir --train 0 --val 2 --test 0 --seed $seed
recipe: data minivista --out $dir
rows:
  row: {row}
  other: --train 0 --val 1 --test 0
test: data minivista --out $dir --train 0 --val 0 --test 1
"""


def test_an_interrupted_study_goes_on_where_it_stopped(tmp_path, capsys):
    """Real commands in processes of their own: the first row fails, is mended, and only the rest is run."""
    out, config = tmp_path / "out", tmp_path / "study.yaml"
    config.write_text(SMALL.format(out=out, row="--train many"))
    assert main(["study", "--config", str(config)]) == 2
    said = capsys.readouterr()
    assert "[4/7] seed 4, row" in said.out
    assert f"seed 4, row: failed with exit code 2; read {out}/seed-4/row/log.txt" in said.err
    assert "train" in (out / "seed-4/row/log.txt").read_text()
    made = (out / "data/done.json").stat().st_mtime_ns
    config.write_text(SMALL.format(out=out, row="--train 1 --val 0 --test 0"))
    assert main(["study", "--config", str(config), "--only", '["row"]']) == 0
    assert "[1/2] seed 4, row\n[2/2] seed 4, row, test" in capsys.readouterr().out
    assert (out / "data/done.json").stat().st_mtime_ns == made
    versions = json.loads((out / "versions.json").read_text())["runs"]
    assert [one.keys() >= {"torch", "vllm", "cores"} for one in versions] == [True]
    assert (out / "seed-4/row/train.jsonl").is_file()
    assert not (out / "seed-4/other").exists()
    (out / "seed-4/row/done.json").unlink()
    assert main(["study", "--config", str(config)]) == 2
    reason = f"{out}/seed-4/row/test: was made from {out}/seed-4/row, which is not complete; bring that back"
    assert reason in capsys.readouterr().err
    assert not (out / "seed-4/other").exists()
    assert main(["study", "--config", str(config), "--only", '["no"]']) == 2
    assert "study: no step or row 'no'; known are data, start, row, other" in capsys.readouterr().err


def test_what_is_wanted_comes_with_what_it_needs_and_nothing_else(plan):
    plan = replace(plan, once=plan.once | {"labels": "label --data $out/data"})
    names = [step.name for step in plan.steps(["b"])]
    each = ["warmup", "warmup, test", "b", "b, test"]
    assert names == ["data", *(f"seed {s}, {name}" for s in (1, 2) for name in each)], "b, and the baseline"
    assert [step.name for step in plan.steps(["labels"])] == ["data", "labels"]
    names = [step.name for step in plan.steps(["a"])]
    each = ["warmup", "warmup, test", "mprm", "a", "a, test"]
    assert names == ["data", *(f"seed {s}, {name}" for s in (1, 2) for name in each)]


def test_the_shipped_study_has_all_rows_and_its_commands_parse(capsys):
    settings = yaml.safe_load(CONFIG.read_text())
    experiments = CONFIG.parents[1] / "experiments"
    recipes = {path.stem for path in experiments.glob("*.yaml")} - {"sft", "mprm"}
    assert settings["rows"].keys() == recipes
    plan = Study(**settings | {"out": Path("runs/study"), "seeds": tuple(settings["seeds"])})
    steps = {step.name: step for step in plan.steps()}
    assert len(steps) == 11 + 3 * (2 + 1 + 2 * len(recipes))
    one_each = {step.command[0]: name for name, step in steps.items()}
    assert one_each.keys() == {"data", "bootstrap", "fit", "label", "evaluate"}
    rows = ("seed 3, mstar", "seed 1, unlabelled_75", "seed 2, unlabelled_oracle_prm")
    for name in ("half", "first", "mprm", "seed 1, verifier", "seed 1, warmup", *rows, *one_each.values()):
        with pytest.raises(SystemExit) as leave:
            main([*steps[name].command, "--print_config"])
        assert leave.value.code in (0, None), name
    assert "runs/study/mprm/mprm" in capsys.readouterr().out
