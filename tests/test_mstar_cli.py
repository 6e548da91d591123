"""M-STAR from the command line: labels, process reward model, scores, verifier table, the whole recipe."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mstar_pl.cli import main
from mstar_pl.data.jsonl import read_examples, read_prompts
from mstar_pl.data.step_formats import read_steps
from tests.test_cli import CONFIGS, error_of

TRANSFORMERS = "mstar_pl.rollouts.transformers_engine.TransformersEngine"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    counts = ["--train", "40", "--val", "8", "--test", "6"]
    assert main(["data", "minivista", "--out", str(out), *counts]) == 0
    return out


@pytest.fixture(scope="module")
def labels(data):
    """Labels of the embedded LMM's own responses."""
    out = data.parent / "labels"
    config = data / "label.yaml"
    settings = yaml.safe_load((CONFIGS / "label.yaml").read_text())
    settings |= {"policy": "embedded", "prompts": str(data / "train.jsonl"), "out": str(out)}
    settings |= {"num_continuations": 2, "max_tokens": 16, "val_percent": 20, "engine": "transformers"}
    config.write_text(yaml.safe_dump(settings))
    assert main(["label", "--config", str(config), "--lmm", '{"question_style": "plain"}']) == 0
    return out


@pytest.fixture(scope="module")
def mprm(data, labels):
    """A process reward model trained on them."""
    root = data.parent / "mprm"
    args = [
        "--config",
        str(CONFIGS / "experiments/mprm.yaml"),
        "--trainer",
        str(CONFIGS / "trainer/cpu.yaml"),
    ]
    args += ["--model.init_args.lmm.init_args.path=embedded", f"--trainer.default_root_dir={root}"]
    args += [f"--data.init_args.{split}={labels / split}.jsonl" for split in ("train", "val")]
    assert main(["fit", *args, "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]) == 0
    return root / "mprm"


def test_a_base_explains_and_the_policy_warms_up_on_it(data, tmp_path):
    settings = yaml.safe_load((CONFIGS / "bootstrap.yaml").read_text())
    settings |= {"prompts": str(data / "train.jsonl"), "out": str(tmp_path), "engine": "transformers"}
    settings["lmm"]["instruction"] = "Be brief."  # ours is the whole turn: nothing may follow it
    (tmp_path / "bootstrap.yaml").write_text(yaml.safe_dump(settings))
    assert main(["bootstrap", "--config", str(tmp_path / "bootstrap.yaml"), "--limit", "16"]) == 0
    examples = read_examples(tmp_path / "train.jsonl")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["reward/selected"] == len(examples) > 5
    assert report["settings"]["lmm"]["instruction"] is None
    asked = {prompt.id: prompt for prompt in read_prompts(data / "train.jsonl")[:16]}
    assert all(asked[example.prompt.id] == example.prompt for example in examples)
    args = ["--config", str(CONFIGS / "experiments/sft.yaml"), "--trainer", str(CONFIGS / "trainer/cpu.yaml")]
    args += [f"--data.init_args.train={tmp_path / 'train.jsonl'}", "--data.init_args.val=null"]
    args += ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *args]) == 0


def test_what_was_sampled_about_another_image_or_in_another_type_is_not_used(tmp_path):
    assert main(["data", "minivista", "--out", str(tmp_path), "--train=2", "--val=0", "--test=0"]) == 0
    prompts = read_prompts(tmp_path / "train.jsonl")
    args = ["--policy=embedded", f"--prompts={tmp_path}/train.jsonl", f"--out={tmp_path}/out"]
    args += ["--engine=transformers", "--max_tokens=4", "--num_samples=2"]
    fingerprints = []
    for color, dtype in (("red", "float32"), ("red", "float32"), ("red", "bfloat16"), ("blue", "bfloat16")):
        Image.new("RGB", (64, 64), color).save(prompts[0].images[0])
        main(["bootstrap", *args, "--lmm", json.dumps({"dtype": dtype})])
        manifest = json.loads((tmp_path / "out/responses/iteration-0000/manifest.json").read_text())
        fingerprints.append(manifest["fingerprint"])
    assert fingerprints[0] == fingerprints[1]
    assert len({*fingerprints}) == 3


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (["bootstrap", "--limit", "0"], "--limit 0: must be at least 1"),
        (["bootstrap", "--shard", "0"], "--shard 0: must be at least 1"),
        (["bootstrap", "--temperature", "0"], "greedy decoding"),
        (["label", "--limit", "-1"], "--limit -1: must be at least 1"),
        (["label", "--shard", "-1"], "--shard -1: must be at least 1"),
        (["label", "--num_continuations", "0"], "--num_continuations 0: must be at least 1"),
        (["label", "--num_responses", "-1"], "--num_responses must be at least 0"),
        (["label", "--val_percent", "-5"], "--val_percent from 0 to below 100"),
        (["label", "--temperature", "0"], "greedy decoding"),
    ],
)
def test_numbers_that_sample_nothing_are_refused_before_anything_is_read(option, reason, tmp_path, capsys):
    command, *given = option
    args = [f"--prompts={tmp_path}/none.jsonl", "--policy=embedded", "--num_samples=2"]
    assert main([command, *args[: 2 + (command == "bootstrap")], *given]) == 2
    assert reason in capsys.readouterr().err


def test_labels_have_a_report_and_no_prompt_in_both_files(labels):
    train, val = (list(read_steps(labels / name)) for name in ("train.jsonl", "val.jsonl"))
    ids = [{record.prompt.id for record in records} for records in (train, val)]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]
    report = json.loads((labels / "report.json").read_text())
    assert report["responses"] == len(train) + len(val)
    assert report["steps"] == sum(len(record.steps) for record in train + val)
    assert report["settings"]["labels"]["num_continuations"] == 2


def test_labels_are_converted_to_the_formats_of_the_field(labels, tmp_path):
    source = ["--source", str(labels / "train.jsonl"), "--out", str(tmp_path / "steps.jsonl")]
    assert main(["data", "steps", *source, "--to", "stepwise"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert len(rows) == len(read_steps(labels / "train.jsonl"))
    assert rows[0].keys() >= {"prompt", "completions", "labels"}


def test_answers_are_hidden(data, tmp_path):
    out = tmp_path / "half.jsonl"
    source = ["--source", str(data / "train.jsonl"), "--out", str(out)]
    assert main(["data", "hide", *source, "--percent", "25"]) == 0
    prompts = read_prompts(out)
    assert [prompt.answer for prompt in prompts].count(None) == 10
    labelled = {prompt.id: prompt.answer for prompt in read_prompts(data / "train.jsonl")}
    assert all(
        labelled[prompt.id] == (prompt.answer or prompt.metadata["hidden_answer"]) for prompt in prompts
    )


def test_a_file_of_responses_is_scored(data, mprm, tmp_path):
    responses = tmp_path / "responses.jsonl"
    rows = [
        {"id": f"minivista-0-test-{number}", "response": text}
        for number in (0, 1)
        for text in ("I count: red 1.\n\n# Answer\n\n1", "# Answer\n\n2")
    ]
    responses.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "scores.jsonl"
    command = ["score", "--process-reward", str(mprm), "--questions", str(data / "test.jsonl")]
    assert main([*command, "--responses", str(responses), "--out", str(out)]) == 0
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["response"]) for row in scored] == [(row["id"], row["response"]) for row in rows]
    assert [len(row["step_scores"]) for row in scored] == [2, 1, 2, 1]
    assert all(row["process"] == min(row["step_scores"]) for row in scored)


def test_evaluate_prints_the_verifier_table(data, mprm, tmp_path, capsys):
    command = ["evaluate", "--policy", "embedded", "--data", str(data / "test.jsonl"), "--out", str(tmp_path)]
    command += ["--engine", "transformers", "--max-tokens", "16", "--samples", "4"]
    assert "--process_reward" in error_of(capsys, command)
    assert main([*command, "--process-reward", str(mprm)]) == 0
    table = capsys.readouterr().out
    assert "| K " in table
    for name in ("best-of-N", "weighted vote", "majority vote", "Pass@K", "Reward-Pass@2"):
        assert f"| {name}" in table
    assert set(json.loads((tmp_path / "verifier.json").read_text())["best-of-N"]) == {"1", "2", "4"}


def test_m_star_runs_from_yaml_alone(data, mprm, tmp_path):
    args = [
        "--config",
        str(CONFIGS / "experiments/mstar.yaml"),
        "--trainer",
        str(CONFIGS / "trainer/cpu.yaml"),
    ]
    args += ["--model.init_args.lmm.init_args.path=embedded", f"--trainer.default_root_dir={tmp_path}"]
    args += [f"--data.init_args.prompts={data}/train.jsonl", f"--data.init_args.val_prompts={data}/val.jsonl"]
    args += ["--data.init_args.interval=25", "--data.init_args.batch_size=4"]
    args += ["--data.init_args.micro_batch_size=4", "--trainer.max_epochs=3"]
    args += ["--trainer.enable_progress_bar=false", f"--trainer.evolution.init_args.engine={TRANSFORMERS}"]
    args += ["--trainer.evolution.init_args.sampling.max_tokens=16"]
    args += [f"--trainer.evolution.init_args.reward.init_args.path={mprm}"]
    validation = {"num_samples": 4, "num_prompts": 2}
    args += [f"--trainer.evolution.init_args.validation.{k}={v}" for k, v in validation.items()]
    assert main(["fit", *args]) == 0
    events = EventAccumulator(str(next(tmp_path.rglob("events.out*")).parent))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    measured = ("pass@1", "pass@4", "pass@4-greedy", "reward_pass@2")
    assert tags >= {f"dynamics/{name}" for name in measured}
    assert tags >= {f"dynamics/{name}/T{tenths / 10:g}" for name in measured for tenths in range(3, 17)}
    assert tags >= {"reward/process/correct", "reward/process/selected", "dynamics/temperature"}
    assert len(events.Scalars("dynamics/pass@4")) == 4, "before the first iteration and after each"
    assert len(events.Scalars("dynamics/pass@4/T0.3")) == 2, "at the start and after two iterations"
    for store in ("rollouts", "validation", "dynamics", "sweep"):
        assert list((tmp_path / store).glob("iteration-*/manifest.json")), Path(store)
