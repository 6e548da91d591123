"""Export of the trained models."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mstar_pl.data.cards import coded
from mstar_pl.data.evolving import SelfEvolvingDataModule
from mstar_pl.loops import SelfEvolvingTrainer
from mstar_pl.models.export import export_policy, export_process_reward
from mstar_pl.modules import LMMModule, PolicyModule, ProcessRewardModule
from mstar_pl.types import InputError

log = logging.getLogger(__name__)


class PolicyExport(Callback):
    """Write the trained policy as a Hugging Face folder when training ends.

    Args:
        folder: Where it goes; default is `policy` under the trainer's `default_root_dir`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that is not a policy, and a folder that would be overwritten by its own child."""
        _check(trainer, pl_module, self.folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export on the first process, also when a resumed run had nothing left to train."""
        _export(trainer, pl_module, self.folder)


class BestPolicyExport(Callback):
    """Export the policy of the iteration with the highest greedy validation accuracy, the first of equals.

    Args:
        folder: Where it goes, replaced by each better one; default is `policy` under the trainer's
            `default_root_dir`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.best_correct = -1
        self.best_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that does not evolve, another module, and missing validation prompts."""
        _check(trainer, pl_module, self.folder)
        data = trainer.datamodule  # type: ignore[attr-defined] # set by fit
        if stage == "fit" and not (
            isinstance(trainer, SelfEvolvingTrainer)
            and isinstance(data, SelfEvolvingDataModule)
            and data.given["val_prompts"]
        ):
            raise InputError(
                "BestPolicyExport needs trainer.evolution and data.val_prompts; set them, or use PolicyExport"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export after an iteration that is better than all before it."""
        assert isinstance(trainer, SelfEvolvingTrainer)
        evaluation = trainer.evaluation
        if evaluation is None or evaluation.num_correct <= self.best_correct:
            return
        self.best_correct, self.best_step = evaluation.num_correct, evaluation.step
        measured = f"Greedy validation accuracy: {evaluation.accuracy.percent}."
        _export(trainer, pl_module, self.folder, measured)

    def state_dict(self) -> dict[str, Any]:
        """Return what the best policy was."""
        return {"best_correct": self.best_correct, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.best_correct, self.best_step = state_dict["best_correct"], state_dict["best_step"]


class ProcessRewardExport(Callback):
    """Write the trained process reward model as a folder when training ends.

    Args:
        folder: Where it goes; default is `mprm` under the trainer's `default_root_dir`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that is no process reward model, and to replace what training starts from."""
        if not isinstance(pl_module, ProcessRewardModule):
            raise InputError(
                f"ProcessRewardExport needs a ProcessRewardModule, not a {type(pl_module).__name__}"
            )
        _refuse_start(pl_module, _folder(trainer, self.folder, "mprm"))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export on the first process, with the last validation in the card."""
        assert isinstance(pl_module, ProcessRewardModule)
        if getattr(trainer, "fast_dev_run", False):
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if "val/" in name}
        measured = ", ".join(f"{name} {value:.3f}" for name, value in sorted(scores.items()))
        path, text = _folder(trainer, self.folder, "mprm"), _notes(trainer, pl_module, measured)
        writes = trainer.is_global_zero
        export_process_reward(pl_module.lmm, pl_module.model, pl_module.read_out, path, text, writes=writes)
        log.info("process reward model exported to %s", path)


def _notes(trainer: Trainer, pl_module: LMMModule, measured: str) -> str:
    """Return for the card what a model was made of."""
    return f"Base: {coded(pl_module.lmm.path)}. Optimizer steps: {trainer.global_step}. {measured}".strip()


def _folder(trainer: Trainer, folder: str | None, default: str = "policy") -> Path:
    return Path(folder or Path(trainer.default_root_dir) / default)


def _check(trainer: Trainer, pl_module: LightningModule, folder: str | None) -> None:
    if not isinstance(pl_module, PolicyModule):
        raise InputError(
            f"policy export needs a PolicyModule, not a {type(pl_module).__name__}; remove the callback"
        )
    _refuse_start(pl_module, _folder(trainer, folder))


def _refuse_start(pl_module: LMMModule, folder: Path) -> None:
    if folder.resolve() == Path(pl_module.lmm.path).resolve():
        raise InputError(
            f"{pl_module.lmm.path}: the export would replace the model that training starts from; "
            "set another trainer.default_root_dir"
        )


def _export(trainer: Trainer, pl_module: LightningModule, folder: str | None, notes: str = "") -> None:
    assert isinstance(pl_module, PolicyModule)
    if getattr(trainer, "fast_dev_run", False):
        return
    path = _folder(trainer, folder)
    text = _notes(trainer, pl_module, notes)
    export_policy(pl_module.lmm, pl_module.model, path, text, writes=trainer.is_global_zero)
    log.info("policy exported to %s", path)
