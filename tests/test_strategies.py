"""Precision, clipping, checkpointing, LoRA: two processes train what one does, in each strategy."""

import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.models import adapter_for
from mstar_pl.models.process_reward import ProcessRewardModel
from mstar_pl.types import Example, Prompt
from tests.processes import run
from tests.strategies import CASES, RESUMED, train

pytestmark = [pytest.mark.engine, pytest.mark.processes]


@pytest.fixture(scope="module")
def rows(tmp_path_factory, examples):
    """Every third example has no image, so a process often has none while the other one has."""
    mixed = [
        Example(prompt=Prompt(id=f"text-{index}", question="What is 2 + 2?"), response=one.response)
        if index % 3 == 0
        else one
        for index, one in enumerate([*examples, *examples[:4]])
    ]
    folder = tmp_path_factory.mktemp("rows")
    labelled = [
        StepLabels(
            prompt=one.prompt, steps=("Look.", "Count.", "# Answer\n\n4"), labels=(1.0, index % 2, 0.0)
        )
        for index, one in enumerate(mixed)
    ]
    write_jsonl(folder / "steps.jsonl", (one.to_json() for one in labelled))
    return str(write_jsonl(folder / "rows.jsonl", (one.to_json() for one in mixed)))


@pytest.fixture(scope="module")
def both(internvl_folder, rows, tmp_path_factory):
    """The folder of what two processes trained."""
    out = tmp_path_factory.mktemp("both")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["-m", "tests.strategies", internvl_folder, rows, str(out)]
    assert run(command, out / "log.txt", launcher) == 0, (out / "log.txt").read_text()[-5000:]
    return out


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(internvl_folder, rows, both, tmp_path, case):
    trainer, weights = train(internvl_folder, rows, tmp_path, case, 1)
    with safe_open(both / f"{case}.safetensors", "pt") as file:
        loss = float(file.metadata()["val/loss"])
    found = load_file(both / f"{case}.safetensors")
    initial = adapter_for(internvl_folder).load_model().state_dict()
    tolerance = 5e-4 if "bf16" in case else 1e-5
    assert loss == pytest.approx(float(trainer.callback_metrics["val/loss"]), rel=10 * tolerance)
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=tolerance, msg=name)
    assert max((found[name] - initial[name]).abs().max() for name in initial) > 20 * tolerance


def test_a_process_reward_model_of_two_processes_is_exported_whole(both):
    case = "fsdp2, process reward, head"
    exported = ProcessRewardModel.load(str(both / case / "mprm"))
    found = {**exported.model.state_dict(), **exported.read_out.state_dict()}
    trained = load_file(both / f"{case}.safetensors")
    assert "head.weight" in trained
    assert all(torch.equal(found[name], weight) for name, weight in trained.items())


@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_gives_the_weights_back(both, case):
    first, again = (load_file(both / f"{case}{end}.safetensors") for end in ("", ", resumed"))
    assert all(torch.equal(again[name], weight) for name, weight in first.items())
