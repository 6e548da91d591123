"""Export of the trained policy."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from mstar_pl.models.export import export_policy
from mstar_pl.modules import PolicyModule
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
        """Refuse a module that is not a policy."""
        if not isinstance(pl_module, PolicyModule):
            raise InputError(
                f"PolicyExport exports a PolicyModule, not a {type(pl_module).__name__}; remove the callback"
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export on the first process."""
        assert isinstance(pl_module, PolicyModule)
        if not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(self.folder or Path(trainer.default_root_dir) / "policy")
        notes = f"Base: `{pl_module.lmm.path}`. Optimizer steps: {trainer.global_step}."
        export_policy(pl_module.lmm, pl_module.model, folder, notes)
        log.info("policy exported to %s", folder)
