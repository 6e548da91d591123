"""The data module of self-evolving training: prompts to sample from, and selected rollouts to train on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mstar_pl.data.batches import ResumableLoader
from mstar_pl.data.collate import is_plain
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.interval import interval_prompts
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.data.labelled import check_labelled
from mstar_pl.data.store import RolloutStore
from mstar_pl.types import InputError, Prompt

log = logging.getLogger(__name__)


class SelfEvolvingDataModule(PolicyDataModule):
    """Labelled prompts from JSONL files, and the training set of each iteration from the rollout store.

    Args:
        prompts: JSONL file of labelled prompts to sample from.
        val_prompts: JSONL file of labelled prompts that are answered greedily after each iteration; the
            best policy is chosen by them. None measures nothing.
        interval: Prompts of an iteration in percent of all; the iterations go round the set.
        store: Folder of the rollouts; default is `rollouts` under the trainer's `default_root_dir`.
        options: Options of `PolicyDataModule`: batch sizes, lengths, workers, seed.
    """

    def __init__(
        self,
        prompts: str,
        val_prompts: str | None = None,
        interval: float = 100.0,
        store: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(train=None, val=None, **options)
        self.paths |= {"prompts": prompts, "val_prompts": val_prompts}
        self.interval = interval
        self.store_folder = store
        self.prompts: list[Prompt] = []
        self.val_prompts: list[Prompt] = []

    @property
    def store(self) -> RolloutStore:
        """The rollout store of the run."""
        assert self.trainer is not None
        return RolloutStore(self.store_folder or Path(self.trainer.default_root_dir) / "rollouts")

    def interval_prompts(self, iteration: int) -> list[Prompt]:
        """Return the prompts of an iteration."""
        return interval_prompts(self.prompts, self.interval, iteration, self.seed)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader over the selected rollouts of the current iteration."""
        iteration = self.trainer.current_epoch if self.trainer else 0
        source = str(self.store.folder(iteration))
        selected = self.store.examples(iteration)
        examples = [example for example in selected if is_plain(self._encoder, example)]
        if dropped := len(selected) - len(examples):
            log.warning("%s: dropped %d responses that spell out special tokens", source, dropped)
        if not examples:
            raise InputError(f"{source}: every selected response spells special tokens; none can be used")
        self.example_sets["train"] = self._fit(examples, source)
        return super().train_dataloader()

    def _load_train(self) -> None:
        self.prompts = self._labelled("prompts")
        if self.paths["val_prompts"]:
            self.val_prompts = self._labelled("val_prompts")
        interval_prompts(self.prompts, self.interval, 0, self.seed)

    def _labelled(self, name: str) -> list[Prompt]:
        path = self._path(name)
        prompts = read_prompts(path)
        check_labelled(prompts, path)
        self._verify(prompts, path)
        return prompts
