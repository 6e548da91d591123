"""What the tests of training share: a run, optimizers, a kill, and the comparison of two runs."""

import torch
from lightning.pytorch import Trainer, seed_everything

from mstar_pl.callbacks import ResumeCheckpoint
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.models import adapter_for
from mstar_pl.modules import PolicyModule


def adamw(params):
    return torch.optim.AdamW(params, lr=1e-3)


def sgd(params):
    return torch.optim.SGD(params, lr=0.1)


def warm_up(optimizer):
    return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)


def run(
    folder,
    root,
    train_file,
    *,
    callback=None,
    ckpt_path=None,
    data=None,
    module=None,
    kind=PolicyModule,
    **trainer_options,
):
    """Train 6 steps of 4 examples an epoch, in micro-batches of 2."""
    seed_everything(0)
    module = {"optimizer": adamw, "lr_scheduler": warm_up} | (module or {})
    policy = kind(adapter_for(folder, question_style="plain"), **module)
    datamodule = PolicyDataModule(
        **{"train": train_file, "val": train_file, "batch_size": 4, "micro_batch_size": 2} | (data or {})
    )
    options = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "gradient_clip_val": 1.0,
        "logger": False,
        "limit_val_batches": 1,
    } | trainer_options
    trainer = Trainer(
        default_root_dir=root,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=callback or ResumeCheckpoint(),
        **options,
    )
    trainer.fit(policy, datamodule, ckpt_path=ckpt_path)
    return policy, trainer


class Killed(Exception):
    """Stands for a kill."""


class StopAfter(ResumeCheckpoint):
    """End the run right after a checkpoint inside an epoch."""

    def on_train_batch_end(self, trainer, *args):
        super().on_train_batch_end(trainer, *args)
        if trainer.global_step == self.every_n_steps and not trainer.is_last_batch:
            raise Killed


def state(module, trainer):
    """Return all that a resumed run must have in common with an uninterrupted one."""
    optimizer = trainer.optimizers[0].state_dict()
    moments = {(i, key): value for i, entry in optimizer["state"].items() for key, value in entry.items()}
    rates = [group["lr"] for group in optimizer["param_groups"]]
    metrics = {name: value for name, value in trainer.callback_metrics.items() if "val/" in name}
    return module.state_dict(), moments, metrics, rates, trainer.global_step


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        if isinstance(left, dict):
            assert left.keys() == right.keys()
            assert all(torch.equal(torch.as_tensor(left[key]), torch.as_tensor(right[key])) for key in left)
        else:
            assert left == right
