"""A small self-evolving run, shared by the tests of the loop."""

import shutil
from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from mstar_pl.callbacks import ResumeCheckpoint
from mstar_pl.data.evolving import SelfEvolvingDataModule
from mstar_pl.data.minivista import write_split
from mstar_pl.data.store import RolloutStore
from mstar_pl.loops import Evolution, SelfEvolvingTrainer, Validation
from mstar_pl.models import InternVL
from mstar_pl.modules import PolicyModule
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import SamplingConfig

ITERATIONS = 4
SAMPLING = SamplingConfig(num_samples=4, temperature=1.0, max_tokens=24, seed=5)
SETTINGS = {"sampling": SAMPLING, "shard_prompts": 10, "validation": Validation(num_samples=0)}


class KeepAll(ResumeCheckpoint):
    """Also keep a copy of each checkpoint."""

    def _save(self, trainer):
        super()._save(trainer)
        last = Path(self.dirpath) / "last.ckpt"
        shutil.copy(last, last.with_name(f"{trainer.current_epoch}-{trainer.global_step}.ckpt"))


def momentum(params):
    return torch.optim.AdamW(params, lr=1e-4)


def falling(optimizer):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=40)


def evolve(root, files, engine, *, callbacks=(), resume=None, data=None, module=None, trainer=None, **evo):
    """Run iterations of 24 prompts of the embedded LMM, in steps of 4 cut into micro-batches of 2."""
    seed_everything(0)
    options = {
        "lmm": InternVL(question_style="plain"),
        "optimizer": momentum,
        "lr_scheduler": falling,
    }
    policy = PolicyModule(**(options | (module or {})))
    datamodule = SelfEvolvingDataModule(
        files["train"],
        files["val"],
        **({"interval": 25, "batch_size": 4, "micro_batch_size": 2, "max_length": 256} | (data or {})),
    )
    trainer = SelfEvolvingTrainer(
        evolution=Evolution(engine, **(SETTINGS | evo)),
        default_root_dir=root,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **({"max_epochs": ITERATIONS} | (trainer or {})),
    )
    trainer.fit(policy, datamodule, ckpt_path=resume)
    return policy, trainer


def write_files(root, train, val):
    """Write prompts to sample from and to measure on, and return the files by split."""
    return {
        split: str(write_split(root, split, num, solutions=True))
        for split, num in (("train", train), ("val", val))
    }


def rollouts(root, iteration):
    return list(RolloutStore(root / "rollouts").groups(iteration))


def transformers(lmm):
    return TransformersEngine(lmm)
