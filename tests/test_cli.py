"""The command line as a user meets it: help, one-line errors, a whole run."""

import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mstar_pl.cli import COMMANDS, PLAN, TRAINING, main

CONFIGS = Path(__file__).parent.parent / "configs"
SFT = str(CONFIGS / "experiments/sft.yaml")


@pytest.fixture(scope="module")
def minivista(tmp_path_factory):
    out = tmp_path_factory.mktemp("minivista")
    assert main(["data", "minivista", "--out", str(out), "--train", "8", "--val", "4", "--test", "4"]) == 0
    return out


def fit_args(data, root, *further):
    paths = [f"--data.init_args.{split}={data / split}.jsonl" for split in ("train", "val", "test")]
    sizes = ["--data.init_args.batch_size=4", "--data.init_args.micro_batch_size=2", "--trainer.max_epochs=1"]
    return [
        "--config",
        SFT,
        "--trainer",
        str(CONFIGS / "trainer/cpu.yaml"),
        *paths,
        *sizes,
        f"--trainer.default_root_dir={root}",
        "--trainer.enable_progress_bar=false",
        *further,
    ]


def error_of(capsys, args, code=2):
    capsys.readouterr()
    assert main(args) == code
    err = capsys.readouterr().err.strip().splitlines()
    messages = [line for line in err if line.startswith("mstar-pl: error: ")]
    assert len(messages) == 1, err
    return messages[0]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in (*TRAINING, PLAN, *COMMANDS))
    for command in COMMANDS:
        with pytest.raises(SystemExit) as leave:
            main([command, "--help"])
        assert leave.value.code == 0


def test_unknown_command_suggests_the_nearest(capsys):
    assert "did you mean 'evaluate'?" in error_of(capsys, ["evalute"])


def test_fit_resume_test_predict_and_evaluate(minivista, tmp_path, capsys):
    """The whole way of a user, on a handful of items."""
    assert main(["fit", *fit_args(minivista, tmp_path)]) == 0
    assert main(["fit", *fit_args(minivista, tmp_path, "--trainer.max_epochs=2", "--ckpt_path", "last")]) == 0
    second = EventAccumulator(str(tmp_path / "lightning_logs/version_1"))
    second.Reload()
    assert [point.step for point in second.Scalars("val/loss")] == [3], "only the second epoch was left"
    assert main(["validate", *fit_args(minivista, tmp_path)]) == 0
    limit = ["--model.init_args.sampling.max_tokens=4"]
    assert main(["test", *fit_args(minivista, tmp_path, *limit)]) == 0
    evaluate = [
        "evaluate",
        "--policy",
        str(tmp_path / "policy"),
        "--data",
        str(minivista / "test.jsonl"),
        "--engine",
        "transformers",
        "--max_tokens",
        "8",
    ]
    assert main([*evaluate, "--out", str(tmp_path / "a")]) == 0
    capsys.readouterr()
    assert main([*evaluate, "--out", str(tmp_path / "b"), "--baseline", str(tmp_path / "a")]) == 0
    table = capsys.readouterr().out
    assert "| ALL  | 4 " in table
    assert "gain +0.0 points (95 % interval +0.0 to +0.0)" in table
    results = json.loads((tmp_path / "b/results.json").read_text())
    assert results["accuracy"]["all"]["num"] == 4
    assert results["settings"]["lmm"]["question_style"] == "plain", "as in training, from the export"
    rows = [json.loads(line) for line in (tmp_path / "b/responses.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"minivista-0-test-{index}" for index in range(4)]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--trainer.max_epoch=3", "max_epoch"),
        ("--data.init_args.batchsize=3", "batchsize"),
        ("--model.init_args.lmm.class_path=Nonsense", "Nonsense"),
        ("--model.init_args.optimizer.init_args.learning_rate=1", "learning_rate"),
        ("--trainer.max_epochs=many", "many"),
    ],
)
def test_wrong_keys_and_values_are_refused_on_one_line(minivista, tmp_path, capsys, option, reason):
    assert reason in error_of(capsys, ["fit", *fit_args(minivista, tmp_path, option)])


def test_wrong_key_in_a_yaml_file_is_refused(minivista, tmp_path, capsys):
    bad = tmp_path / "bad.yaml"
    bad.write_text("trainer:\n  max_epoch: 3\n")
    assert "max_epoch" in error_of(capsys, ["fit", *fit_args(minivista, tmp_path), "--config", str(bad)])
    assert "gone.yaml" in error_of(capsys, ["fit", "--config", str(tmp_path / "gone.yaml")])


@pytest.mark.parametrize("harm", ["cut", "missing", "empty"])
def test_bad_data_is_refused_before_training(minivista, tmp_path, capsys, harm):
    data = tmp_path / "data"
    shutil.copytree(minivista, data)
    if harm == "cut":
        picture = data / "images/train/5.png"
        picture.write_bytes(picture.read_bytes()[:500])
        expected = "train.jsonl: prompt 'minivista-0-train-5'"
    elif harm == "missing":
        (data / "images/train/5.png").unlink()
        expected = "train.jsonl:6: image 'images/train/5.png' does not exist"
    else:
        (data / "train.jsonl").write_text("")
        expected = "train.jsonl: no rows; the data set is empty"
    assert expected in error_of(capsys, ["fit", *fit_args(data, tmp_path)])
    assert not (tmp_path / "checkpoints").exists()


def test_evaluate_refuses_what_it_cannot_grade_or_load(minivista, tmp_path, capsys):
    rows = [
        json.loads(line) | {"answer": None} for line in (minivista / "test.jsonl").read_text().splitlines()
    ]
    unlabelled = minivista / "unlabelled.jsonl"
    unlabelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "has no answer" in error_of(
        capsys, ["evaluate", "--policy", "embedded", "--data", str(unlabelled)]
    )
    data = ["--data", str(minivista / "test.jsonl")]
    assert "not a model folder" in error_of(capsys, ["evaluate", "--policy", str(tmp_path), *data])
    short = ["--max_model_len", "64", "--max_tokens", "60"]
    assert "exceed the context of 64" in error_of(capsys, ["evaluate", "--policy", "embedded", *data, *short])
    baseline = ["--baseline", str(tmp_path)]
    assert "no results.json" in error_of(capsys, ["evaluate", "--policy", "embedded", *data, *baseline])


def test_every_shipped_config_is_valid(minivista, tmp_path, internvl_folder, capsys):
    """Each overlay goes through the parser, with its folder replaced by one that exists."""
    lmm = f"--model.init_args.lmm.init_args.path={internvl_folder}"
    for group in ("model", "data", "trainer"):
        for overlay in sorted((CONFIGS / group).glob("*.yaml")):
            with pytest.raises(SystemExit) as leave:
                main(["fit", "--config", SFT, f"--{group}", str(overlay), lmm, "--print_config"])
            assert leave.value.code in (0, None), overlay
            assert "class_path: mstar_pl" in capsys.readouterr().out


def test_fit_evolves_from_yaml_alone(minivista, tmp_path):
    """The embedded LMM answers directly, and now and then rightly: a policy to evolve without a warm-up."""
    data = tmp_path / "data"
    main(["data", "minivista", "--out", str(data), "--train", "24", "--val", "4", "--test", "0"])
    code = main(
        [
            "fit",
            "--config",
            str(CONFIGS / "experiments/continuous.yaml"),
            "--trainer",
            str(CONFIGS / "trainer/cpu.yaml"),
            "--model.init_args.lmm.init_args.path=embedded",
            f"--data.init_args.prompts={data / 'train.jsonl'}",
            f"--data.init_args.val_prompts={data / 'val.jsonl'}",
            "--data.init_args.interval=50",
            "--data.init_args.batch_size=4",
            "--data.init_args.micro_batch_size=4",
            f"--trainer.default_root_dir={tmp_path / 'run'}",
            "--trainer.max_epochs=2",
            "--trainer.enable_progress_bar=false",
            "--trainer.evolution.init_args.engine=mstar_pl.rollouts.transformers_engine.TransformersEngine",
            "--trainer.evolution.init_args.sampling.max_tokens=16",
        ]
    )
    assert code == 0
    assert (tmp_path / "run/policy/config.json").is_file()
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
    events = EventAccumulator(str(next((tmp_path / "run").rglob("events.out*")).parent))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {tag.split("/")[0] for tag in tags} == {"rollout", "reward", "dynamics", "train", "eval", "epoch"}
    assert tags >= {
        "rollout/response_length",
        "rollout/truncated",
        "rollout/duplicate",
        "rollout/weight_version",
        "rollout/tokens_per_second",
        "rollout/seconds",
        "rollout/sync_seconds",
        "reward/undecided",
        "reward/pass@1",
        "reward/pass@8",
        "reward/acceptance/math_word_problem",
        "reward/seconds",
        "dynamics/temperature",
        "train/loss",
        "train/seconds",
        "train/peak_memory_gib",
        "eval/accuracy",
        "eval/accuracy_low",
        "eval/accuracy_high",
        "eval/seconds",
    }
    # The initial policy and the one of each iteration.
    steps = [point.step for point in events.Scalars("eval/accuracy")]
    assert len(steps) == 3
    assert steps[0] == 0 < steps[1] < steps[2]
