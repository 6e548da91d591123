"""Benchmarks on the command line: all with one engine, resumption, grading again, a process reward model."""

import csv
import json
from pathlib import Path

import pytest
import torch

from mstar_pl.cli import main
from mstar_pl.evaluation.benchmarks import BENCHMARKS
from mstar_pl.models import adapter_for
from mstar_pl.models.export import export_process_reward
from mstar_pl.models.process_reward import StepReadOut
from tests.evaluation.published import write_benchmark
from tests.evaluation.published_solutions import write_processbench, write_visualprocessbench
from tests.evaluation.test_comparison import evaluated as finished

FIVE = ("mathvista", "m3cot", "mmstar", "mmbench", "ai2d")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("benchmarks")
    for name in FIVE:
        write_benchmark(name, root / name)
    return root


def arguments(root, out, *further):
    run = ["evaluate", "--policy", "embedded", "--engine", "transformers", "--max_tokens", "4"]
    return [*run, "--data", str(root), "--out", str(out), *further]


@pytest.fixture(scope="module")
def evaluated(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "all"
    assert main(arguments(root, out, "--benchmarks", "all")) == 0
    return out


def read(path):
    return json.loads(path.read_text())


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_command_evaluates_the_embedded_model_on_all_five(evaluated):
    headlines = {}
    for name in FIVE:
        results = read(evaluated / name / "results.json")
        assert (results["benchmark"], results["rules"]) == (name, results["settings"]["rules"])
        assert len(rows_of(evaluated / name / "responses.jsonl")) == results["settings"]["num_prompts"]
        headlines[name] = (results["headline"], results["accuracy"][results["headline"]]["num"])
        assert not (evaluated / name / "responses.partial.jsonl").exists()
    assert headlines == {
        "mathvista": ("all", 7),
        "m3cot": ("all", 3),
        "mmstar": ("reasoning", 3),
        "mmbench": ("reasoning", 1),
        "ai2d": ("all", 3),
    }
    assert (evaluated / "mathvista/leaderboard.json").is_file()


def test_one_command_ends_with_the_tables_of_the_paper(evaluated):
    benchmarks, tasks = (evaluated / "table.md").read_text().split("MathVista by task:")
    head, _, measured, *paper = [line for line in benchmarks.splitlines() if line.startswith("|")]
    titles = ["policy", "MathVista", "M3CoT", "MMStar-R", "MMBench-R", "AI2D", "average"]
    assert [cell.strip() for cell in head.split("|")[1:-1]] == titles
    assert measured.startswith("| embedded ")
    assert measured.count(" to ") == 6, "each number has its interval"
    assert "MiniCPM-V-2.5 M-STAR (paper)" in paper[-1]
    assert "7 of 1000 prompts" in tasks
    assert (evaluated / "table.csv").is_file()


def test_tables_compare_two_runs_of_all_benchmarks(evaluated, capsys):
    """A policy compared with itself: every difference is paired, and nothing."""
    rows = ["--results.a", str(evaluated), "--results.b", str(evaluated)]
    assert main(["table", *rows, "--reference", "none"]) == 0
    text = capsys.readouterr().out
    assert "unpaired" not in text
    (less, by_task) = (line for line in text.splitlines() if line.startswith("| less a "))
    assert less.count("+0.0 (+0.0 to +0.0)") == 6
    assert by_task.count("+0.0 (+0.0 to +0.0)") >= 4


def test_an_interrupted_run_goes_on_inside_a_benchmark_and_keeps_finished_ones(evaluated, root, capsys):
    """After a kill in the middle of MMStar; a mark in the kept responses tells them from generated ones."""
    before = {name: rows_of(evaluated / name / "responses.jsonl") for name in FIVE}
    for name in FIVE[:2]:
        path = evaluated / name / "responses.jsonl"
        path.write_text("".join(json.dumps(row | {"kept": True}) + "\n" for row in before[name]))
    folder = evaluated / "mmstar"
    kept = [{"fingerprint": read(folder / "results.json")["fingerprint"]}]
    kept += [row | {"kept": True} for row in before["mmstar"][:2]]
    (folder / "responses.partial.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept) + '{"id"')
    (folder / "results.json").unlink()
    capsys.readouterr()
    assert main(arguments(root, evaluated, "--benchmarks", "all")) == 0
    printed = capsys.readouterr().out
    assert "ai2d_no_mask: skipped, there is no" in printed
    assert "rules mathvista-2023" in printed
    marks = {"mathvista": 7, "m3cot": 3, "mmstar": 2, "mmbench": 0, "ai2d": 0}
    for name in FIVE:
        after = rows_of(evaluated / name / "responses.jsonl")
        assert sum(row.pop("kept", False) for row in after) == marks[name]
        assert after == before[name]


@pytest.mark.parametrize(
    "other",
    [
        ("--limit", "2"),
        ("--lmm", '{"question_style": "plain"}'),
        ("--lmm", '{"dtype": "bfloat16"}'),
        ("--lmm", '{"attention": "eager"}'),
    ],
    ids=str,
)
def test_a_finished_evaluation_with_other_settings_is_refused_before_any_generation(
    root, finished_ai2d, other, capsys
):
    out, *kept = finished_ai2d
    run = arguments(root, out, "--benchmarks", "all", "--limit", "1")
    assert main([*run, *other]) == 2
    reason = (
        f"{out}/ai2d: holds a finished evaluation with other settings (see results.json); give another --out"
    )
    assert reason in capsys.readouterr().err
    assert [path.read_bytes() for path in sorted((out / "ai2d").iterdir())] == kept
    assert not (out / "mathvista").exists(), "which comes before"


def test_a_baseline_of_other_prompts_is_refused_before_any_generation(root, tmp_path, capsys):
    for name in ("m3cot", "ai2d"):
        finished(tmp_path / "before" / name, "10", benchmark=name, first=7 if name == "ai2d" else 0)
    write_benchmark("ai2d", tmp_path / "root/ai2d")
    run = arguments(tmp_path / "root", tmp_path / "out", "--benchmarks", "all")
    assert main([*run, "--baseline", str(tmp_path / "before")]) == 2
    said = f"{tmp_path}/out/ai2d: answers other prompts than {tmp_path}/before/ai2d (e.g. '0')"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_baseline_of_all_copies_is_one_for_the_first_prompts(root, evaluated, tmp_path, capsys):
    run = arguments(root / "mmbench", tmp_path, "--benchmark", "mmbench", "--limit", "2")
    assert main([*run, "--baseline", str(evaluated)]) == 0
    assert "gain +0.0 points" in capsys.readouterr().out


@pytest.fixture(scope="module")
def finished_ai2d(root, tmp_path_factory):
    """A folder with an evaluation on AI2D, and the contents of its files."""
    out = tmp_path_factory.mktemp("finished")
    assert main(arguments(root / "ai2d", out, "--benchmark", "ai2d", "--limit", "1")) == 0
    return out, *(path.read_bytes() for path in sorted((out / "ai2d").iterdir()))


def test_another_rule_needs_no_other_generation(root, tmp_path):
    run = arguments(root / "mmbench", tmp_path, "--benchmark", "mmbench")
    assert main(run) == 0
    path = tmp_path / "mmbench/responses.jsonl"
    said = "A, I think, from what can be seen"  # the rule of today takes no letter so far from the end
    path.write_text("".join(json.dumps(row | {"response": said}) + "\n" for row in rows_of(path)))
    for rules, predictions in (("2024", {"A"}), ("head", {None})):
        assert main([*run, "--options", json.dumps({"rules": rules})]) == 0
        assert {(row["response"], row["prediction"]) for row in rows_of(path)} == {
            (said, prediction) for prediction in predictions
        }
    assert read(tmp_path / "mmbench/results.json")["rules"] == "vlmevalkit-head"


def test_grading_again_writes_the_results_of_the_evaluation(evaluated, root, tmp_path):
    for name in ("mathvista", "mmbench"):
        kept = evaluated / name / "responses.jsonl"
        again = ["grade", "--benchmark", name, "--data", str(root / name), "--responses", str(kept)]
        assert main([*again, "--out", str(tmp_path / name)]) == 0
        assert read(tmp_path / name / "results.json") == read(evaluated / name / "results.json")


def test_a_benchmark_alone_with_the_official_prompt_and_a_baseline(root, tmp_path, capsys):
    alone = ["--benchmark", "m3cot", "--limit", "2"]
    assert main(arguments(root / "m3cot", tmp_path / "a", *alone)) == 0
    official = [*alone, "--prompts", "official", "--baseline", str(tmp_path / "a")]
    assert main(arguments(root / "m3cot", tmp_path / "b", *official)) == 0
    printed = capsys.readouterr().out
    assert "gain +0.0 points (95 % interval" in printed
    assert "prompts official, before: policy" in printed
    assert "unpaired" not in printed
    results = read(tmp_path / "b/m3cot/results.json")
    assert results["settings"]["prompts"] == "official"
    assert results["accuracy"]["all"]["num"] == results["settings"]["limit"] == 2
    assert results["fingerprint"] != read(tmp_path / "a/m3cot/results.json")["fingerprint"]


def test_policies_of_two_runs_have_results_of_their_own(internvl_folder, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/m3cot").symlink_to(root / "m3cot")
    run = ["evaluate", "--benchmarks", "all", "--data", "data"]
    run += ["--engine", "transformers", "--max_tokens", "1"]
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy").symlink_to(internvl_folder)
        assert main([*run, "--policy", f"{name}/policy"]) == 0
    assert sorted(path.name for path in Path("runs/evaluate").iterdir()) == ["first-data", "second-data"]
    assert "| second " in Path("runs/evaluate/second-data/table.md").read_text()


def test_gain_over_a_baseline_is_that_of_the_accuracies(root, evaluated, tmp_path, capsys):
    """Of MMBench between questions, not between their copies: four of five copies, one question of two."""
    letters = {"31": "A", "1000031": "B", "40": "A", "1000040": "C", "2000040": "A"}
    answers = [{"id": id, "response": letter} for id, letter in letters.items()]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    again = ["grade", "--benchmark", "mmbench", "--data", str(root / "mmbench")]
    again += ["--responses", str(tmp_path / "r.jsonl")]
    assert main([*again, "--out", str(tmp_path / "before/mmbench")]) == 0
    capsys.readouterr()
    run = arguments(root / "mmbench", evaluated, "--benchmark", "mmbench")
    assert main([*run, "--baseline", str(tmp_path / "before")]) == 0
    after = read(evaluated / "mmbench/results.json")["accuracy"]["all"]["mean"]
    assert f"gain {100 * (after - 0.5):+.1f} points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "rules", "graded_by"),
    [
        ("mathvista", "mathvista-2023", "mathvista-2023"),
        ("mmbench", "head", "vlmevalkit-head"),
        ("ai2d", "lmms-eval", "lmms-eval"),
    ],
)
def test_rules_of_a_benchmark_are_an_option_of_a_run(root, name, rules, graded_by, tmp_path):
    options = ["--benchmark", name, "--options", json.dumps({"rules": rules}), "--limit", "1"]
    assert main(arguments(root / name, tmp_path, *options)) == 0
    results = read(tmp_path / name / "results.json")
    assert results["rules"] == results["settings"]["rules"] == graded_by
    assert (results["settings"]["options"], results["settings"]["prompts"]) == ({"rules": rules}, "policy")


@pytest.fixture(scope="module")
def judge(internvl_folder, tmp_path_factory):
    torch.manual_seed(0)
    lmm = adapter_for(internvl_folder, question_style="plain")
    model = lmm.load_model()
    folder = tmp_path_factory.mktemp("judge") / "mprm"
    return str(export_process_reward(lmm, model, StepReadOut(lmm, model), folder))


@pytest.mark.parametrize(
    ("name", "write", "num", "score"),
    [
        ("visualprocessbench", write_visualprocessbench, 2, "macro_f1"),
        ("processbench", write_processbench, 8, "f1"),
    ],
)
def test_a_process_reward_model_is_evaluated_on_labelled_steps(
    judge, name, write, num, score, tmp_path, capsys
):
    data = write(tmp_path / "data")
    run = ["evaluate", "--process_reward", judge, "--benchmark", name, "--data", str(data)]
    assert main([*run, "--out", str(tmp_path / "out")]) == 0
    results = read(tmp_path / "out" / name / "results.json")
    rows = rows_of(tmp_path / "out" / name / "responses.jsonl")
    assert len(rows) == results["scores"]["all"]["num"] == num
    assert all(len(row["step_scores"]) == len(row["labels"]) for row in rows)
    assert 0 <= results["scores"]["all"][score] <= 1
    assert "| ALL " in capsys.readouterr().out
    # Whatever the scores: with threshold 0 every step is correct, and no error is found.
    kept = tmp_path / "out" / name / "responses.jsonl"
    kept.write_text("".join(json.dumps(row | {"kept": True}) + "\n" for row in rows))
    assert main([*run, "--out", str(tmp_path / "out"), "--threshold", "0"]) == 0
    assert all(row["kept"] for row in rows_of(kept)), "another threshold asks for no other scores"
    found = read(tmp_path / "out" / name / "results.json")["scores"]["all"]
    if name == "processbench":
        assert (found["error"], found["correct"]) == (0, 1)
    else:
        assert found["macro_f1"] == pytest.approx((2 * 2 / (2 * 2 + 1)) / 2)


def test_a_judge_of_samples_works_on_the_device_that_is_asked_for(judge, tmp_path):
    """Of a device that there is not, PyTorch says so before anything is generated."""
    (tmp_path / "p.jsonl").write_text('{"id": "1", "images": [], "question": "1+1?", "answer": "2"}\n')
    run = arguments(tmp_path / "p.jsonl", tmp_path / "out", "--samples", "2", "--process_reward", judge)
    with pytest.raises(RuntimeError, match="nowhere"):
        main([*run, "--device", "nowhere"])
    assert not (tmp_path / "out").exists()


def test_evaluation_needs_a_policy_or_a_judge_and_grading_a_benchmark_or_questions(root, tmp_path, capsys):
    assert main(["evaluate", "--data", str(root)]) == 2
    assert "give --policy; or --process_reward and --benchmark" in capsys.readouterr().err
    assert main(["grade", "--responses", str(tmp_path / "r.jsonl")]) == 2
    assert "give --questions, or --benchmark and --data" in capsys.readouterr().err
    both = ["grade", "--responses", str(tmp_path / "r.jsonl"), "--rules", "mathvista"]
    assert main([*both, "--benchmark", "m3cot", "--data", str(root / "m3cot")]) == 2
    assert "--rules is for --questions" in capsys.readouterr().err


def test_names_of_the_shared_results_are_kept():
    """Tables find their columns by them."""
    headlines = {name: benchmark.headline for name, benchmark in BENCHMARKS.items()}
    expected = dict.fromkeys(BENCHMARKS, "all") | {"mmstar": "reasoning", "mmbench": "reasoning"}
    assert headlines == expected
    assert [*headlines] == [*FIVE, "ai2d_no_mask"]


def test_the_table_is_of_what_was_run_not_of_what_lay_there(tmp_path):
    write_benchmark("m3cot", tmp_path / "root/m3cot")
    finished(tmp_path / "out/ai2d", "10", benchmark="ai2d")
    finished(tmp_path / "out", "10", benchmark="mmstar")
    assert main(arguments(tmp_path / "root", tmp_path / "out", "--benchmarks", "all")) == 0
    found = csv.DictReader((tmp_path / "out/table.csv").open())
    assert {row["benchmark"] for row in found if row["low"]} == {"m3cot", "average"}
