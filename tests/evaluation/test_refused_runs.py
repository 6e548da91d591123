"""What `evaluate` refuses on one line, before anything is loaded."""

import pytest

from mstar_pl.cli import main
from mstar_pl.commands.evaluate import evaluate
from tests.evaluation.test_benchmark_runs import arguments


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--benchmark", "mathvist"], "'mathvist' is not one of mathvista, m3cot"),
        (["--benchmark", "mmstar"], "no mmstar here; looked for MMStar.tsv"),
        (["--benchmarks", "all"], "no benchmark here; name its folders mathvista"),
        (["--benchmark", "m3cot", "--rules", "mathvista"], "--rules is for prompt files"),
        (["--benchmark", "m3cot", "--benchmarks", "all"], "give --benchmark or --benchmarks, not both"),
        (["--benchmark", "processbench"], "give --process_reward instead of --policy"),
        (["--benchmark", "m3cot", "--process_reward", "DIR"], "beside --policy needs --samples"),
        (["--benchmark", "m3cot", "--limit", "0"], "--limit 0: must be at least 1"),
        (["--benchmark", "m3cot", "--limit", "-1"], "--limit -1: must be at least 1"),
        (["--options", '{"rules": "head"}'], "--options is for --benchmark or --benchmarks"),
        (["--benchmark", "m3cot", "--options", '{"era": "head"}'], "m3cot has no option 'era'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_on_one_line(options, reason, tmp_path, capsys):
    assert main(arguments(tmp_path, tmp_path / "out", *options)) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"samples": -1}, "num_samples and max_tokens must be at least 1"),
        ({"samples": 4, "temperature": 0.0}, "greedy decoding"),
        ({"samples": 4, "temperature": 3.0}, "temperature must be in"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_loaded(options, reason, tmp_path):
    judge = {"process_reward": str(tmp_path / "none")} if "samples" in options else {}
    with pytest.raises(ValueError, match=reason):
        evaluate(tmp_path / "none.jsonl", "embedded", **judge, **options)


@pytest.mark.parametrize(
    "option",
    [
        ("benchmarks", "all"),
        ("prompts", "official"),
        ("options", '{"rules": "head"}'),
        ("lmm", '{"question_style": "plain"}'),
        ("rules", "mathvista"),
        ("baseline", "DIR"),
        ("samples", "2"),
    ],
    ids=lambda option: option[0],
)
def test_what_only_a_policy_has_is_refused_for_a_step_judge(option, tmp_path, capsys):
    run = ["evaluate", "--process_reward", "DIR", "--benchmark", "processbench", "--data", str(tmp_path)]
    assert main([*run, f"--{option[0]}", option[1]]) == 2
    assert f"--{option[0]} is for a policy" in capsys.readouterr().err
