"""Runs of process-reward training: exact resumption, and the folder that is written at the end."""

import pytest

from mstar_pl.callbacks import ProcessRewardExport, ResumeCheckpoint
from mstar_pl.data.steps import StepDataModule
from mstar_pl.models import LoRA, adapter_for
from mstar_pl.models.process_reward import ProcessRewardModel
from mstar_pl.modules import PolicyModule
from mstar_pl.types import InputError
from tests.modules.judging import run, save, trainer_of
from tests.modules.training import Killed, StopAfter, assert_same, state, warm_up


@pytest.mark.parametrize(
    "module",
    [{"balance_classes": True}, {"lora": LoRA(rank=2, dropout=0.1), "read_out": "head"}],
    ids=["token, balanced", "lora with dropout, head"],
)
def test_resumed_run_equals_the_uninterrupted_one(internvl_folder, step_file, records, tmp_path, module):
    """8 steps in 2 epochs; stopped inside the first and at its end."""
    val = save(tmp_path / "val.jsonl", records[:2])
    options = {"module": module | {"lr_scheduler": warm_up}, "data": {"val": val}}
    judge, trainer = run(internvl_folder, tmp_path / "whole", step_file, max_epochs=2, **options)
    expected = state(judge, trainer)
    assert expected[-1] == 8
    stop = StopAfter(every_n_steps=2)
    with pytest.raises(Killed):
        run(internvl_folder, tmp_path / "inside", step_file, callback=stop, **options)
    run(internvl_folder, tmp_path / "end", step_file, callback=ResumeCheckpoint(), **options)
    for place in ("inside", "end"):
        again = {"ckpt_path": "last", "callback": ResumeCheckpoint(), "max_epochs": 2}
        resumed, trainer = run(internvl_folder, tmp_path / place, step_file, **again, **options)
        assert_same(state(resumed, trainer), expected)
        assert resumed.class_weights == judge.class_weights


@pytest.mark.parametrize(
    "module", [{}, {"lora": LoRA(rank=2), "read_out": "head"}], ids=["token", "lora, head"]
)
def test_export_at_the_end_of_training_scores_as_the_trained_model(
    internvl_folder, step_file, records, tmp_path, module
):
    options = {"module": module, "data": {"val": step_file}, "callback": ProcessRewardExport()}
    judge, trainer = run(internvl_folder, tmp_path, step_file, **options)
    exported = ProcessRewardModel.load(str(tmp_path / "mprm"))
    trained = ProcessRewardModel(judge.lmm, judge.model, judge.read_out)
    steps = [record.steps for record in records]
    for found, expected in zip(
        exported.score(records[1].prompt, steps), trained.score(records[1].prompt, steps), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-5)
    card = (tmp_path / "mprm/README.md").read_text()
    assert f"Base: `{internvl_folder}`. Optimizer steps: 4." in card
    assert f"val/auroc {trainer.callback_metrics['val/auroc']:.3f}" in card


def test_dry_run_exports_nothing(internvl_folder, step_file, tmp_path):
    _, trainer = run(internvl_folder, tmp_path, step_file, callback=ProcessRewardExport(), fast_dev_run=True)
    assert trainer.global_step == 1
    assert not list(tmp_path.iterdir())


def test_export_refuses_a_policy_and_its_own_start(internvl_folder, step_file, tmp_path):
    policy = PolicyModule(adapter_for(internvl_folder))
    with pytest.raises(InputError, match="needs a ProcessRewardModule, not a PolicyModule"):
        trainer_of(tmp_path, ProcessRewardExport()).fit(policy, StepDataModule(train=step_file, batch_size=2))
    with pytest.raises(InputError, match="would replace the model that training starts from"):
        run(internvl_folder, tmp_path, step_file, callback=ProcessRewardExport(internvl_folder))
