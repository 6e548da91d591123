"""Lightning's protected names, in this file only: a fit loop with a phase before and after each epoch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch.distributed.constants import default_pg_timeout

from mstar_pl.data.durable import left_of
from mstar_pl.models import Group


class StatefulLoop(_Loop):
    """A child of the fit loop whose `on_save_checkpoint` state Lightning saves and restores with it."""


class PhasedFitLoop(_FitLoop, ABC):
    """A fit loop whose training set comes into being right before each epoch.

    Subclasses fill in what follows; the hooks of the whole fit may do nothing.

    Args:
        trainer: The trainer whose own fit loop this one replaces; its limits and epoch loop are kept.
    """

    def __init__(self, trainer: Trainer) -> None:
        former = trainer.fit_loop
        super().__init__(trainer, former.min_epochs, former.max_epochs)
        self.epoch_loop = former.epoch_loop

    def before_fit(self) -> None:
        """Run once, before the hooks of the training's start."""

    def after_fit(self) -> None:
        """Run once, after the hooks of the training's end."""

    @abstractmethod
    def is_ready(self, epoch: int) -> bool:
        """Tell whether the training set of an epoch exists."""

    @abstractmethod
    def before_epoch(self, epoch: int, resumed: bool) -> None:
        """Make the training set; `resumed` says that the epoch goes on from a checkpoint inside it."""

    @abstractmethod
    def after_epoch(self, epoch: int) -> None:
        """Run after the last batch of an epoch, before the hooks of its end."""

    @property
    def epoch(self) -> int:
        """The epoch that runs or comes next, from 0."""
        return self.epoch_progress.current.processed  # type: ignore[attr-defined] # theirs is typed too wide

    def setup_data(self) -> None:
        """Wait with the loader for the training set: `run` asks for the loader before anything else."""
        if self.is_ready(self.epoch):
            super().setup_data()

    def on_run_start(self) -> None:
        """Start training."""
        self.before_fit()
        super().on_run_start()

    def on_run_end(self) -> None:
        """End training."""
        super().on_run_end()
        self.after_fit()

    def on_advance_start(self) -> None:
        """Make the training set, then start the epoch."""
        self.before_epoch(self.epoch, self.restarted_mid_epoch)
        super().on_advance_start()

    def on_advance_end(self) -> None:
        """Run the phase after training, then end the epoch."""
        self.after_epoch(self.epoch)
        super().on_advance_end()


class FolderCheckpoint(ModelCheckpoint):
    """A checkpoint callback with a fixed folder: `dirpath`, or `checkpoints` under `default_root_dir`.

    Lightning looks for the last checkpoint before it calls `setup`, in the folder of a logger's next version.
    """

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder."""
        return Path(self.dirpath or Path(trainer.default_root_dir) / "checkpoints")

    def last(self, trainer: Trainer) -> Path:
        """Return where the last checkpoint is, or will be."""
        return self.folder(trainer) / f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        found = left_of(self.last(trainer))
        return {str(found)} if found else set()  # a folder, where it is spread over processes


class FSDP2Strategy(ModelParallelStrategy):
    """Spread weights, gradients and optimizer state over all processes (PyTorch's `fully_shard`).

    It is Lightning's `ModelParallelStrategy` without tensor parallelism, for whatever number of processes.

    Args:
        save_distributed_checkpoint: Write a checkpoint as a folder to which each process writes its share;
            else as one file, for which the first process must have room.
        keep_whole: Parameter groups (`vision`, `language`) whose blocks stay whole from the forward to the
            backward pass: more memory, one gathering less.
        timeout: Time limit of the collective operations of training.
    """

    def __init__(
        self,
        save_distributed_checkpoint: bool = True,
        keep_whole: list[Group] | None = None,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        self.keep_whole = tuple(keep_whole or ())
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            timeout=timeout,
        )

    def setup_environment(self) -> None:
        """Form a mesh of all processes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


StrategyRegistry.register("fsdp2", FSDP2Strategy, description="mstar_pl.loops.FSDP2Strategy")


class _NoSignals(_SignalConnector):
    """Leaves signals alone."""

    def register_signal_handlers(self) -> None:
        """Do nothing."""


def leave_signals(trainer: Trainer) -> None:
    """Keep Lightning's handlers off.

    They would end the run after any micro-batch, with nothing saved. With several processes the handler
    itself starts a collective operation, in the middle of whatever the process does.
    """
    trainer._signal_connector = _NoSignals(trainer)


def unwatch_children(trainer: Trainer) -> None:
    """Keep Lightning's launcher from killing all processes, whatever they do, when one has left."""
    getattr(trainer.strategy.launcher, "procs", []).clear()


def collective_timeout(trainer: Trainer) -> timedelta:
    """Return the time limit of the collective operations of training."""
    return getattr(trainer.strategy, "_timeout", None) or default_pg_timeout


def log_metrics(trainer: Trainer, metrics: dict[str, Any]) -> None:
    """Send metrics to every logger, at the current optimizer step."""
    for logger in trainer.loggers:
        logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, step=trainer.global_step)
