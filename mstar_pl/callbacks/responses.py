"""Writing what `predict` generates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from mstar_pl.data.jsonl import write_jsonl


class ResponseWriter(BasePredictionWriter):
    """Write the responses of `predict` as JSONL, one row a response.

    Args:
        path: The file; default is `responses.jsonl` under the trainer's `default_root_dir`. With several
            processes each writes its own, the rank before the suffix.
    """

    def __init__(self, path: str | None = None) -> None:
        super().__init__(write_interval="epoch")
        self.path = path

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Any,
        batch_indices: Any,
    ) -> None:
        """Write all responses of this process."""
        path = Path(self.path or Path(trainer.default_root_dir) / "responses.jsonl")
        if trainer.world_size > 1:
            path = path.with_name(f"{path.stem}.{trainer.global_rank}{path.suffix}")
        write_jsonl(path, (row for batch in predictions for row in batch))
