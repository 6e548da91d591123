"""Trainings that two processes do as one does; run by torchrun, or in one process."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import seed_everything
from safetensors.torch import save_file

from mstar_pl.callbacks import ProcessRewardExport, ResumeCheckpoint
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.steps import StepDataModule
from mstar_pl.loops import FSDP2Strategy, SelfEvolvingTrainer
from mstar_pl.models import GroupLoRA, LoRA, adapter_for
from mstar_pl.models.gathered import Gathered
from mstar_pl.models.lora import merged_weights
from mstar_pl.modules import PolicyModule, ProcessRewardModule

LORA = {"lora": LoRA(rank=2)}
GROUPS = {
    "lora": LoRA(rank=2, groups={"language": GroupLoRA(), "vision": GroupLoRA(rank=3), "projector": "full"}),
    "learning_rates": {"vision": 0.02, "projector": 0.1},
}
CHECKPOINTING = {"gradient_checkpointing": True}
FROZEN = {"freeze": ["vision"]}
CASES = {
    "ddp": ({"strategy": "ddp"}, {}),
    "ddp, bf16-mixed": ({"strategy": "ddp", "precision": "bf16-mixed"}, {}),
    "ddp, LoRA, checkpointing": ({"strategy": "ddp"}, LORA | CHECKPOINTING),
    "ddp, groups": ({"strategy": "ddp"}, GROUPS),
    "fsdp2": ({"strategy": "fsdp2"}, {}),
    "fsdp2, bf16-mixed": ({"strategy": "fsdp2", "precision": "bf16-mixed"}, {}),
    "fsdp2, frozen tower, checkpointing": ({"strategy": "fsdp2"}, FROZEN | CHECKPOINTING),
    "fsdp2, LoRA": ({"strategy": "fsdp2"}, LORA),
    "fsdp2, groups": ({"strategy": "fsdp2"}, GROUPS),
    "fsdp2, checkpoint in a file": ({"save_distributed_checkpoint": False}, {}),
    "fsdp2, tower kept whole": ({"keep_whole": ["vision"]}, {}),
    "ddp, process reward": ({"strategy": "ddp"}, {"read_out": "token"}),
    "fsdp2, process reward": ({"strategy": "fsdp2"}, {"read_out": "token"}),
    "fsdp2, process reward, head": ({"strategy": "fsdp2"}, {"read_out": "head"}),
    "fsdp2, process reward, LoRA": ({"strategy": "fsdp2"}, LORA | {"read_out": "token"}),
}
RESUMED = ("fsdp2", "fsdp2, checkpoint in a file", "fsdp2, groups")


def optimizer(params):
    """No state that magnifies rounding, as the square root of Adam's does."""
    return torch.optim.SGD(params, lr=0.05, momentum=0.9)


def train(folder, rows, out, case, processes, **fit):
    """Train two epochs of 3 steps of 4 examples, clipped, in micro-batches of one; return the weights."""
    options, module = CASES[case]
    if processes == 1:
        options = {"precision": options.get("precision")}
    elif "strategy" not in options:
        options = {"strategy": FSDP2Strategy(**options)}
    seed_everything(0)
    judges = "read_out" in module
    kind, data = (ProcessRewardModule, StepDataModule) if judges else (PolicyModule, PolicyDataModule)
    trained = kind(adapter_for(folder, question_style="plain"), optimizer=optimizer, **module)
    rows = str(Path(rows).with_name("steps.jsonl")) if judges else rows
    trainer = SelfEvolvingTrainer(
        **options,
        accelerator="cpu",
        devices=processes,
        default_root_dir=out / case,
        max_epochs=2,
        gradient_clip_val=0.5,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[ResumeCheckpoint(), *([ProcessRewardExport()] if judges else [])],
    )
    trainer.fit(trained, data(train=rows, val=rows, batch_size=4, seed=1), **fit)
    with merged_weights(trained.model) as weights:
        own = trained.read_out.state_dict() if judges else {}
        return trainer, {name: value.clone() for name, value in Gathered({**weights, **own}).items()}


def main():
    """Train all cases in the processes that torchrun started."""
    folder, rows, out = sys.argv[1:]
    for case in CASES:
        trainer, weights = train(folder, rows, Path(out), case, 2)
        loss = float(trainer.callback_metrics["val/loss"])
        if trainer.is_global_zero:
            save_file(weights, Path(out) / f"{case}.safetensors", {"val/loss": str(loss)})
    # From the checkpoints of the last epoch there is nothing left to train.
    for case in RESUMED:
        _, again = train(folder, rows, Path(out), case, 2, ckpt_path="last")
        if trainer.is_global_zero:
            save_file(again, Path(out) / f"{case}, resumed.safetensors")


if __name__ == "__main__":
    main()
