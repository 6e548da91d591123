"""A checkpoint from which training goes on exactly."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from mstar_pl.data.durable import written_together
from mstar_pl.loops import SelfEvolvingTrainer
from mstar_pl.loops._lightning import FolderCheckpoint
from mstar_pl.types import InputError

ACCUMULATION = "accumulate_grad_batches"


class ResumeCheckpoint(FolderCheckpoint):
    """Keep one checkpoint, `last.ckpt`, from which `fit --ckpt_path last` goes on exactly.

    It is written at the end of each epoch and every few optimizer steps, but then only between two
    optimizer steps inside an epoch: a checkpoint between accumulated micro-batches, or on the last batch
    of an epoch, would lose batches or hooks on resumption. Random-number states are kept with it (those of
    the first process: dropout in several is not exact). The number of processes and the size of
    micro-batches may be others then.

    After SIGTERM or SIGUSR1 it saves at the next such moment and ends the run with exit code 75.

    Args:
        every_n_steps: Optimizer steps between checkpoints inside an epoch; 0 saves at epoch ends only.
        dirpath: Folder; default is `checkpoints` under the trainer's `default_root_dir`.
    """

    def __init__(self, every_n_steps: int = 100, dirpath: str | None = None) -> None:
        super().__init__(dirpath=dirpath, save_last=True, save_top_k=0)
        if every_n_steps < 0:
            raise InputError("every_n_steps must be 0 (epoch ends only) or more")
        self.every_n_steps = every_n_steps
        self._rng_states: dict[str, torch.Tensor] = {}

    @property
    def state_key(self) -> str:
        """Return one key for all intervals and subclasses, which may change on resumption."""
        return ResumeCheckpoint.__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder, and refuse `max_steps`, which makes epoch-end checkpoints lose steps."""
        dry_run = getattr(trainer, "fast_dev_run", False)  # sets max_steps, and saves nothing
        if stage == "fit" and trainer.max_steps != -1 and not dry_run:
            raise InputError(
                "trainer.max_steps cannot be resumed exactly; remove it and set trainer.max_epochs"
            )
        self.dirpath = str(self.folder(trainer))
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back the random-number states of a resumed run, after all that draws numbers on the way."""
        super().on_train_start(trainer, pl_module)
        if self._rng_states:
            torch.set_rng_state(self._rng_states["cpu"])
            if "cuda" in self._rng_states and torch.cuda.is_available():
                torch.cuda.set_rng_state(self._rng_states["cuda"])

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save every `every_n_steps` optimizer steps, between two of them."""
        between_steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch
        # What stops a run inside an epoch, such as max_time, does so behind this batch.
        due = trainer.should_stop or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0)
        if between_steps and (_asked_to_end(trainer) or due):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after each whole epoch, validation included."""
        if trainer.is_last_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save nothing here; the epoch's end follows."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save nothing here; the last epoch's end came before."""

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note how many micro-batches a process has in an optimizer step."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint[ACCUMULATION] = trainer.accumulate_grad_batches

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Recount the micro-batches of the epoch so far, where their number in a step has changed since."""
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        former = checkpoint.get(ACCUMULATION, trainer.accumulate_grad_batches)
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if not progress["is_last_batch"]:
            count = progress["current"]
            more = count["ready"] // former * trainer.accumulate_grad_batches - count["ready"]
            count |= {name: number + more for name, number in count.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the random-number states."""
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        return states

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the random-number states until training starts."""
        self._rng_states = dict(state_dict)

    def _save(self, trainer: Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        # Lightning writes in the system's temporary folder and moves the file, which is a copy between disks.
        with written_together(
            self.last(trainer), trainer.strategy.barrier, leads=trainer.is_global_zero
        ) as temporary:
            trainer.save_checkpoint(temporary)
        if _asked_to_end(trainer):
            assert isinstance(trainer, SelfEvolvingTrainer)
            trainer.interruption.end()


def _asked_to_end(trainer: Trainer) -> bool:
    """Tell whether a scheduler has asked any process to end; all processes must call it together."""
    asked = isinstance(trainer, SelfEvolvingTrainer) and trainer.interruption.received is not None
    return trainer.strategy.reduce_boolean_decision(asked, all=False)
