"""What the README says to type is taken, and its commands find what those before them made."""

import importlib
import re
import shlex
import subprocess

import pytest

from mstar_pl.types import Prompt, Rollout, RolloutGroup, Score
from tests.recipes import EXPERIMENTS, ROOT, check_chain, fit_settings

README = (ROOT / "README.md").read_text()


def blocks(language, title):
    """Return the blocks of the section with a title."""
    section = README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def commands(title):
    """Return the `mstar-pl` commands of a section, without the name."""
    lines = [line for text in blocks("bash", title) for line in text.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_commands_of_the_recipes_lead_from_one_to_the_next():
    data, explained, warmup = commands("Warm-up without written solutions")
    labels, judge, evolve = commands("Process reward model")
    assert data == ["data", "minivista", "--out", "runs/minivista"]
    check_chain([explained, warmup, labels, judge, evolve])
    [continuous] = commands("Self-evolving training")
    assert continuous == ["fit", "--config", "configs/experiments/continuous.yaml"]


def test_a_large_policy_evolves_on_data_of_ones_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    *_, evolve = commands("Your own data")
    found = fit_settings(*evolve[1:])
    assert found["val_prompts"] == "val.jsonl"
    expected = {"lr": 1e-6, "precision": "bf16-mixed", "freeze.0": "vision", "micro_batch_size": 1}
    assert found.items() >= expected.items()
    # 256 a tile, and one tile is the whole image
    assert 256 * (found["max_patches"] + 1) + found["max_tokens"] < found["max_model_len"]


def test_a_selection_of_ones_own_is_taken_and_chooses(tmp_path, monkeypatch):
    [code] = blocks("python", "Self-evolving training")
    (tmp_path / "my_package.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    given = ["--trainer.evolution.init_args.selection", "my_package.Shortest"]
    assert fit_settings("--config", str(EXPERIMENTS / "continuous.yaml"), *given)["selection"] == "Shortest"
    assert " ".join(given) in " ".join(README.split())
    answers = {"so it is 2": "correct", "3": "wrong", "it is 2": "correct"}
    rollouts = tuple(Rollout(text=text, token_ids=(1,), finish_reason="stop") for text in answers)
    prompt = Prompt(id="p", question="1+1?", answer="2")
    group = RolloutGroup(prompt=prompt, prompt_token_ids=(1,), rollouts=rollouts, weight_version=0)
    select = importlib.import_module("my_package").Shortest()
    assert select(group, [Score(outcome=outcome) for outcome in answers.values()]) == (2,)


@pytest.mark.parametrize("given", [["2"], []])
def test_the_quick_start_refuses_a_folder_of_another_seed(tmp_path, given):
    (tmp_path / "seed").write_text("1\n")
    run = subprocess.run(
        [ROOT / "bin/quickstart", tmp_path, *given], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 2
    assert "was made with seed 1; give another folder" in run.stderr
