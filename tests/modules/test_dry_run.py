"""The dry run of training steps, against what the allocator hands out in real ones."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.data import DataLoader

from mstar_pl.data.collate import IGNORE, collate_examples
from mstar_pl.data.collate_steps import collate_steps
from mstar_pl.models import LoRA, adapter_for
from mstar_pl.modules import PolicyModule, ProcessRewardModule
from mstar_pl.modules.dry_run import dry_run
from tests.modules.recorder import Recorder
from tests.modules.training import adamw, sgd

CHECKPOINTED = {"optimizer": adamw, "gradient_checkpointing": True, "freeze": ["vision"]}


def measured(module, batch, root, **options):
    recorder = Recorder(batch)
    trainer = Trainer(
        default_root_dir=root,
        max_epochs=1,
        accelerator="cpu",
        callbacks=[recorder],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, DataLoader([batch] * 4, batch_size=None))
    return recorder.peak


def batch_of(folder, examples):
    batch = collate_examples(adapter_for(folder, question_style="plain"), examples)
    return batch | {"num_step_losses": (batch["labels"] != IGNORE).sum()}


@pytest.mark.parametrize(
    ("family", "precision", "accumulates", "options"),
    [
        ("internvl_folder", "32-true", False, {"optimizer": adamw}),
        ("internvl_folder", "bf16-mixed", False, CHECKPOINTED),
        ("qwen_folder", "bf16-mixed", False, CHECKPOINTED),
        ("internvl_folder", "32-true", True, {"optimizer": sgd, "lora": LoRA(rank=4)}),
    ],
)
def test_a_dry_run_takes_what_a_training_takes(
    request, examples, tmp_path, family, precision, accumulates, options
):
    """Within 5 %; the settings differ by far more, so that a part that is forgotten shows."""
    folder = request.getfixturevalue(family)
    batch = batch_of(folder, examples)
    modules = [PolicyModule(adapter_for(folder, question_style="plain"), **options) for _ in range(2)]
    real = measured(modules[0], batch, tmp_path, precision=precision, accumulate_grad_batches=1 + accumulates)
    footprint = dry_run(modules[1], batch, precision=precision, accumulates=accumulates)
    assert footprint.peak().total() == pytest.approx(real, rel=0.05)


def test_parts_are_told_apart(internvl_folder, examples):
    batch = batch_of(internvl_folder, examples)
    runs = [
        dry_run(
            PolicyModule(adapter_for(internvl_folder), optimizer=optimizer, freeze=["vision"]),
            batch,
            precision="32-true",
            foreach=foreach,
        )
        for optimizer, foreach in ((adamw, False), (sgd, False), (adamw, True))
    ]
    model = adapter_for(internvl_folder).load_model()
    trained = sum(p.nbytes for n, p in model.named_parameters() if not n.startswith("model.vision_tower."))
    adam, plain, together = (run.left() for run in runs)
    assert adam["weights"] >= sum(p.nbytes for p in model.parameters())
    assert adam["gradients"] == plain["gradients"] == trained
    assert adam["optimizer"] == pytest.approx(2 * trained, rel=0.001)
    assert plain["optimizer"] == 0
    assert together == adam
    assert runs[0].peak()["vocabulary"] > 0
    assert runs[0].peak(num_shards=4)["weights"] == adam["weights"] // 4


def test_steps_are_judged_without_weights_too(internvl_folder, records):
    batch = collate_steps(adapter_for(internvl_folder), records)
    batch["num_step_losses"] = (~batch["step_labels"].isnan()).sum()
    module = ProcessRewardModule(adapter_for(internvl_folder), read_out="head")
    found = dry_run(module, batch, precision="32-true").peak()
    assert found["activations"] > 0
    assert all(isinstance(parameter, FakeTensor) for parameter in module.parameters())


def test_lower_precision_of_all_weights_is_refused_as_in_training(internvl_folder, examples):
    with pytest.raises(ValueError, match="rotary frequencies"):
        dry_run(
            PolicyModule(adapter_for(internvl_folder)),
            batch_of(internvl_folder, examples),
            precision="bf16-true",
        )
    assert torch.get_default_dtype() == torch.float32
