"""A run that diverges stops at once, says on which prompts, and keeps its last checkpoint."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from mstar_pl.callbacks import ResumeCheckpoint
from mstar_pl.types import InputError
from tests.modules.training import run


class Poison(Callback):
    """Make one value not finite at the third optimizer step, and note the prompts of its batch."""

    def __init__(self, where):
        self.where = where
        self.prompts = []
        self.weights = None

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step != 2:
            return
        self.prompts += trainer.datamodule.prompt_ids(range(batch_idx, batch_idx + 1))
        if batch_idx % 2 == 0:
            self.weights = {name: value.clone() for name, value in module.state_dict().items()}
        head = module.model.lm_head.weight
        if self.where == "loss" and batch_idx % 2 == 1:
            head.data[:] = torch.inf
        if self.where == "gradient" and batch_idx % 2 == 0:
            head.register_hook(lambda gradient: gradient * torch.nan)

    def on_train_batch_end(self, trainer, module, *_):
        if self.where == "weight" and trainer.global_step == 3:
            module.model.lm_head.weight.data[0, 0] = torch.nan


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_the_weights(internvl_folder, train_file, tmp_path, where):
    poison = Poison(where)
    with pytest.raises(
        InputError, match=rf"step 2: the {where} is not finite; the prompts of its batch are in .*json"
    ):
        run(internvl_folder, tmp_path, train_file, callback=[ResumeCheckpoint(every_n_steps=1), poison])
    found = json.loads((tmp_path / "diverged-rank-0.json").read_text())
    expected = poison.prompts[-2:] if where == "loss" else poison.prompts
    assert found == {"what": where, "epoch": 0, "step": 2, "prompt_ids": expected}
    assert len(expected) == (2 if where == "loss" else 4)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=False)
    assert saved["global_step"] == 2
    assert all(torch.equal(value, poison.weights[name]) for name, value in saved["state_dict"].items())
    policy, trainer = run(internvl_folder, tmp_path, train_file, ckpt_path="last")
    assert trainer.global_step == 12
    assert all(weight.isfinite().all() for weight in policy.parameters())


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(internvl_folder, train_file, tmp_path):
    callbacks = [Poison("weight"), ResumeCheckpoint(every_n_steps=1)]
    with pytest.raises(InputError, match=r"step 3: the weight model.*embed_tokens.* is not finite"):
        run(internvl_folder, tmp_path, train_file, callback=callbacks)
    saved = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=False)
    assert saved["global_step"] == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
