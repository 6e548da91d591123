"""The data module of self-evolving training: prompts to sample from, and selected rollouts to train on."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mstar_pl.data.batches import ResumableLoader
from mstar_pl.data.collate import is_plain
from mstar_pl.data.datamodule import ExampleSet, PolicyDataModule
from mstar_pl.data.interval import interval
from mstar_pl.data.labelled import check_labelled
from mstar_pl.data.records import View
from mstar_pl.data.sources.given import Given
from mstar_pl.data.store import RolloutStore
from mstar_pl.types import InputError, Prompt

log = logging.getLogger(__name__)


class SelfEvolvingDataModule(PolicyDataModule):
    """Labelled prompts from files or sources, and the training set of each iteration from the rollout store.

    Args:
        prompts: File or source of prompts to sample from. Those without an answer are unlabelled and need
            `t_mixin`.
        val_prompts: File or source of labelled prompts that are answered greedily after each iteration; the
            best policy is chosen by them. None measures nothing.
        interval: Prompts of an iteration in percent of all; the iterations go round the set, labelled and
            unlabelled prompts each on their own.
        t_mixin: Percent of the iterations after which unlabelled prompts join; None has none.
        min_per_prompt: Responses of a prompt with fewer selected ones are repeated, in turn, up to so many:
            prompts that are hardly solved then weigh as much as easy ones (arXiv 2510.26474).
        store: Folder of the rollouts; default is `rollouts` under the trainer's `default_root_dir`.
        options: Options of `PolicyDataModule`: batch sizes, lengths, workers, seed.
    """

    def __init__(
        self,
        prompts: Given,
        val_prompts: Given | None = None,
        interval: float = 100.0,
        t_mixin: float | None = None,
        min_per_prompt: int = 1,
        store: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(train=None, val=None, **options)
        self.given |= {"prompts": prompts, "val_prompts": val_prompts}
        self.interval = interval
        self.t_mixin = t_mixin
        self.min_per_prompt = min_per_prompt
        if min_per_prompt < 1:
            raise InputError(f"data.min_per_prompt {min_per_prompt} must be at least 1")
        self.store_folder = store
        self.all_prompts: Sequence[Prompt] = ()
        self.val_prompts: Sequence[Prompt] = ()
        self._labelled: list[int] = []
        self._unlabelled: list[int] = []

    @property
    def store(self) -> RolloutStore:
        """The rollout store of the run."""
        assert self.trainer is not None
        given = None if getattr(self.trainer, "fast_dev_run", False) else self.store_folder
        return RolloutStore(given or Path(self.trainer.default_root_dir) / "rollouts")

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The labelled prompts."""
        return View(self.all_prompts, self._labelled)

    @property
    def unlabelled(self) -> Sequence[Prompt]:
        """The unlabelled prompts."""
        return View(self.all_prompts, self._unlabelled)

    def interval_prompts(self, iteration: int) -> Sequence[Prompt]:
        """Return the prompts of an iteration; unlabelled ones from the iteration on in which they join."""
        places = self._next(self._labelled, iteration)
        joined = iteration - self.first_unlabelled
        if self._unlabelled and joined >= 0:
            places += self._next(self._unlabelled, joined)
        return View(self.all_prompts, places)

    def _next(self, places: Sequence[int], iteration: int) -> list[int]:
        return [places[chosen] for chosen in interval(len(places), self.interval, iteration, self.seed)]

    @property
    def first_unlabelled(self) -> int:
        """The iteration in which unlabelled prompts join."""
        assert self.trainer is not None
        assert self.trainer.max_epochs is not None
        return math.ceil(self.trainer.max_epochs * (self.t_mixin or 0.0) / 100)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader over the selected rollouts of the current iteration."""
        iteration = self.trainer.current_epoch if self.trainer else 0
        source = str(self.store.folder(iteration))
        selected = self.store.examples(iteration)
        plain = [place for place, one in enumerate(selected) if is_plain(self._encoder, one)]
        if dropped := len(selected) - len(plain):
            log.warning("%s: dropped %d responses that spell out special tokens", source, dropped)
        if not plain:
            raise InputError(f"{source}: every selected response spells special tokens; none can be used")
        found = self._fit(View(selected, plain), source)
        self.example_sets["train"] = padded(found, self.min_per_prompt) if self.min_per_prompt > 1 else found
        return super().train_dataloader()

    def _load_train(self) -> None:
        path, prompts = self.source_name("prompts"), self._load_prompts("prompts", labelled=False)
        self.all_prompts, self._labelled, self._unlabelled = prompts, [], []
        for place, prompt in enumerate(prompts):
            (self._unlabelled if prompt.answer is None else self._labelled).append(place)
        if self.t_mixin is None:
            check_labelled(self.unlabelled, path)
        elif not 0 <= self.t_mixin < 100:
            raise InputError(f"data.t_mixin {self.t_mixin} is not a percentage in [0, 100)")
        if not self._labelled or (self.t_mixin is not None and not self._unlabelled):
            lacking = "unlabelled" if self._labelled else "labelled"
            raise InputError(f"{path}: no {lacking} prompt; hide the answers of some with mstar-pl data hide")
        if self.given["val_prompts"]:
            self.val_prompts = self._load_prompts("val_prompts", labelled=True)
        interval(len(self._labelled), self.interval, 0, self.seed)


def padded(found: ExampleSet, least: int) -> ExampleSet:
    """Return the examples with those of prompts that have fewer than `least` repeated in turn up to it.

    >>> from mstar_pl.types import Example, Prompt
    >>> prompts = {key: Prompt(id=key, question="?") for key in "ab"}
    >>> few = [Example(prompt=prompts[key], response=text) for key, text in ("ax", "ay", "bz")]
    >>> [one.response for one in padded(ExampleSet(few, [1, 2, 3], [1, 1, 1]), 3).examples]
    ['x', 'y', 'x', 'z', 'z', 'z']
    """
    by_prompt: dict[str, list[int]] = {}
    for index, example in enumerate(found.examples):
        by_prompt.setdefault(example.prompt.id, []).append(index)
    order = [own[number % len(own)] for own in by_prompt.values() for number in range(max(least, len(own)))]
    examples, lengths, num_losses = (
        View(values, order) for values in (found.examples, found.lengths, found.num_losses)
    )
    return ExampleSet(examples, lengths, num_losses, found.all_images)
