"""What the tests of training share: optimizers, a kill, and the comparison of two runs."""

import torch

from mstar_pl.callbacks import ResumeCheckpoint


def adamw(params):
    return torch.optim.AdamW(params, lr=1e-3)


def sgd(params):
    return torch.optim.SGD(params, lr=0.1)


def warm_up(optimizer):
    return torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=15)


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
