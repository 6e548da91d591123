"""The data module of policy fine-tuning: JSONL files in, padded micro-batches out."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mstar_pl.data.batches import Batch, BatchPlan, MicroBatch, ResumableLoader, cut_evenly, plan_epoch
from mstar_pl.data.collate import Encoder, collate_examples, example_lengths, with_blank_image
from mstar_pl.data.images import verify_images
from mstar_pl.data.labelled import check_labelled
from mstar_pl.data.records import View
from mstar_pl.data.sources.given import Given, load_examples, load_prompts, name_of
from mstar_pl.types import Example, InputError, Prompt

log = logging.getLogger(__name__)

Overlong = Literal["drop", "refuse"]


@dataclass(frozen=True, eq=False)
class ExampleSet(Dataset):
    """Examples that fit into the context, with their lengths in tokens.

    Attributes:
        examples: The examples.
        lengths: Tokens of each, prompt and response.
        num_losses: How many losses each has: response tokens, or labelled steps.
        all_images: Whether each has an image.
    """

    examples: Sequence[Any]
    lengths: Sequence[int]
    num_losses: Sequence[int]
    all_images: bool = True

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.examples)

    def __getitems__(self, batch: MicroBatch) -> tuple[list[Any], int]:
        """Return the examples of a micro-batch and the number of losses of its optimizer step."""
        return [self.examples[index] for index in batch.indices], batch.num_step_losses


def fit_context(
    examples: Sequence[Any],
    measure: Callable[[Any], Mapping[str, int]],
    max_length: int,
    overlong: Overlong,
    source: str,
) -> ExampleSet:
    """Measure examples in tokens and keep those that fit; none is ever cut.

    Args:
        examples: The examples, or labelled responses.
        measure: Function to an example's tokens (`total`) and number of losses (`losses`).
        max_length: Most tokens of an example, image tokens and response included.
        overlong: What becomes of a longer one: `drop` it with a logged count, or `refuse` the data set.
        source: Name of the data file, for messages.

    Raises:
        InputError: An example is too long and the policy is `refuse`, or none is left.
    """
    kept, lengths, num_losses = array("q"), array("q"), array("q")
    all_images = True
    for place, example in enumerate(tqdm(examples, "measuring lengths", leave=False, delay=2)):
        length = measure(example)
        if length["total"] <= max_length:
            kept.append(place)
            lengths.append(length["total"])
            num_losses.append(length["losses"])
            all_images = all_images and bool(example.prompt.images)
        elif overlong == "refuse":
            raise InputError(
                f"{source}: prompt {example.prompt.id!r} has {length['total']} tokens, "
                f"over max_length {max_length}; raise data.max_length, shorten it, or set data.overlong: drop"
            )
    if not kept:
        raise InputError(
            f"{source}: every example is over max_length {max_length} tokens; raise data.max_length"
        )
    if dropped := len(examples) - len(kept):
        log.warning(
            "%s: dropped %d of %d examples over %d tokens", source, dropped, len(examples), max_length
        )
    return ExampleSet(View(examples, kept), lengths, num_losses, all_images)


class PolicyDataModule(LightningDataModule):
    """Training examples and evaluation prompts from files, or from sources chosen by `class_path`.

    Everything that can be wrong with the data is found in `setup`, before the first training step. A file is
    a JSONL file in the prompt format, or a table with the field's column names (`DatasetPrompts`).

    Args:
        train: File or source of examples (prompts with `response`) to train on.
        val: File or source of examples whose loss is reported after each epoch.
        test: File or source of labelled prompts that `test` answers greedily and grades.
        predict: File or source of prompts that `predict` answers.
        batch_size: Examples of one optimizer step over all processes, whatever the hardware. The number of
            micro-batches that are accumulated follows from it.
        micro_batch_size: Examples of one forward pass on one process; as many as fit into memory.
        eval_batch_size: Examples of one forward pass in validation, test and prediction.
        max_length: Most tokens of an example, image tokens and response included.
        overlong: What becomes of a longer example: `drop` (counted and logged) or `refuse`. None is ever cut.
        bucket_steps: Optimizer steps whose examples are sorted by length together; 1 turns bucketing off.
        num_workers: Processes that decode images and collate; 0 does it in the training process.
        verify_images: Decode every training image once before training.
        images_within: Folder in which all images must lie; None allows any path.
        seed: Seed of the order of the examples.
    """

    collate: Callable[[Encoder, Sequence[Any]], Batch] = staticmethod(collate_examples)
    measure: Callable[[Encoder, Any], Mapping[str, int]] = staticmethod(example_lengths)

    def __init__(
        self,
        train: Given | None = None,
        val: Given | None = None,
        test: Given | None = None,
        predict: Given | None = None,
        batch_size: int = 128,
        micro_batch_size: int = 1,
        eval_batch_size: int = 16,
        max_length: int = 4096,
        overlong: Overlong = "drop",
        bucket_steps: int = 16,
        num_workers: int = 0,
        verify_images: bool = True,
        images_within: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.given = {"train": train, "val": val, "test": test, "predict": predict}
        self.batch_size = batch_size
        self.micro_batch_size = micro_batch_size
        self.eval_batch_size = eval_batch_size
        self.max_length = max_length
        self.overlong: Overlong = overlong
        self.bucket_steps = bucket_steps
        self.num_workers = num_workers
        self.verify_images = verify_images
        self.images_within = images_within
        self.seed = seed
        self.example_sets: dict[str, ExampleSet] = {}
        self.prompt_sets: dict[str, Sequence[Prompt]] = {}

    @staticmethod
    def compose(prompt: Prompt, response: str) -> Any:
        """Return a training example of the kind that `collate` takes; a plan of memory makes one up."""
        return Example(prompt=prompt, response=response)

    def setup(self, stage: str) -> None:
        """Read and check the files of a stage.

        Raises:
            InputError: A file of the stage is missing from the configuration, or something in it is wrong.
        """
        if stage == "fit":
            plan = self._plan()
            if self.trainer is not None:
                if self.trainer.accumulate_grad_batches not in (1, plan.accumulation):
                    raise InputError(
                        "trainer.accumulate_grad_batches follows from data.batch_size; remove it"
                    )
                self.trainer.accumulate_grad_batches = plan.accumulation
                _check_limits(self.trainer, plan.accumulation)
                self._encoder.check_context(self.max_length, "data.max_length")
            self._load_train()
        if stage in ("fit", "validate") and (stage == "validate" or self.given["val"]):
            self._load_examples("val")
        if stage in ("test", "predict"):
            self.prompt_sets[stage] = self._load_prompts(stage, labelled=stage == "test")

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader of this process; its order is a function of seed and epoch."""
        rank, _ = self._process
        data = self.example_sets["train"]

        @lru_cache(maxsize=1)
        def plan(epoch: int) -> list[MicroBatch]:
            return plan_epoch(self._plan(), data.lengths, data.num_losses, self.seed, epoch, rank)

        self._train_loader = ResumableLoader(
            data,
            plan,
            self._collation(data),
            epoch=lambda: self.trainer.current_epoch if self.trainer else 0,
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
        )
        return self._train_loader

    def source_name(self, split: str) -> str:
        """Return the name of the data of a split, for messages."""
        return name_of(self._given(split))

    def prompt_ids(self, batches: range) -> list[str]:
        """Return the prompts of micro-batches of the current epoch, on this process."""
        examples = self.example_sets["train"].examples
        return [examples[index].prompt.id for index in self._train_loader.examples(batches)]

    def val_dataloader(self) -> DataLoader | list:
        """Return the validation loader, or nothing where no file is configured."""
        data = self.example_sets.get("val")
        if data is None:
            return []
        rank, num = self._process
        if len(data) < num:
            raise InputError(f"data.val: {len(data)} examples for {num} processes; give more examples")
        ranges = cut_evenly(len(data), self.eval_batch_size, num)
        batches = [MicroBatch(tuple(batch), 0) for batch in ranges[rank::num]]
        return DataLoader(
            data,
            batch_sampler=batches,  # type: ignore[arg-type] # indices are micro-batches here
            collate_fn=self._collation(data),
            num_workers=self.num_workers,
            pin_memory=self._pin_memory,
        )

    def test_dataloader(self) -> DataLoader:
        """Return a loader whose batches are lists of prompts; generation decodes and encodes them itself."""
        return self._prompt_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Return a loader whose batches are lists of prompts."""
        return self._prompt_loader("predict")

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move tensors; lists of prompts stay as they are."""
        if isinstance(batch, list):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _prompt_loader(self, stage: str) -> DataLoader:
        rank, num = self._process
        prompts = self.prompt_sets[stage][rank::num]
        return DataLoader(prompts, batch_size=self.eval_batch_size, collate_fn=list)  # type: ignore[arg-type]

    def _load_train(self) -> None:
        self._load_examples("train")

    def _load_prompts(self, split: str, *, labelled: bool) -> Sequence[Prompt]:
        given = self._given(split)
        prompts = load_prompts(given)
        if labelled:
            check_labelled(prompts, name_of(given))
        self._verify(prompts, name_of(given))
        return prompts

    def _load_examples(self, split: str) -> None:
        given = self._given(split)
        examples = load_examples(given)
        self._verify((example.prompt for example in examples), name_of(given))
        self.example_sets[split] = self._fit(examples, name_of(given))

    def _fit(self, examples: Sequence[Any], source: str) -> ExampleSet:
        measure = partial(self.measure, self._encoder)
        return fit_context(examples, measure, self.max_length, self.overlong, source)

    def _collation(self, data: ExampleSet) -> Callable[[Any], Batch]:
        # In one process, too: no gradient is not a gradient of zero to an optimizer.
        return partial(_collate, self.collate, self._encoder, not data.all_images)

    def _verify(self, prompts: Iterable[Prompt], path: str) -> None:
        if self.trainer is None or self.trainer.is_global_zero:
            verify_images(prompts, path, self.images_within, decode=self.verify_images)

    def _given(self, split: str) -> Given:
        given = self.given[split]
        if given is None:
            raise InputError(f"data.{split} is not set; give a JSONL file, e.g. --data.{split} FILE")
        if isinstance(given, str | Path) and not Path(given).exists():
            raise InputError(f"data.{split}: {given}: no such file; check the path")
        return given

    def _plan(self) -> BatchPlan:
        try:
            return BatchPlan(
                batch_size=self.batch_size,
                micro_batch_size=self.micro_batch_size,
                num_processes=self._process[1],
                bucket_steps=self.bucket_steps,
            )
        except ValueError as error:
            raise InputError(f"data: {error}") from None

    @property
    def _process(self) -> tuple[int, int]:
        """Number of this process, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @property
    def _encoder(self) -> Encoder:
        if self.trainer is None:
            raise RuntimeError(
                "PolicyDataModule needs the trainer's module, whose LMM adapter encodes the examples"
            )
        return self.trainer.lightning_module.lmm  # type: ignore[return-value] # a module with an adapter

    @property
    def _pin_memory(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


def _collate(
    collate: Callable[[Encoder, Sequence[Any]], Batch],
    encoder: Encoder,
    blank: bool,
    fetched: tuple[list[Any], int],
) -> Batch:
    examples, num_step_losses = fetched
    batch = collate(encoder, examples)
    if blank and not any(example.prompt.images for example in examples):
        batch = with_blank_image(encoder, batch)
    return batch | {"num_step_losses": torch.tensor(num_step_losses)}


def _check_limits(trainer: Trainer, accumulation: int) -> None:
    """Refuse options of the trainer by which optimizer steps would have other micro-batches than planned.

    A limit of one batch is let through: a dry run has it.

    Raises:
        InputError: There is one.
    """
    limit = trainer.limit_train_batches
    if limit != 1.0 and (isinstance(limit, float) or (limit or 0) % accumulation) and accumulation > 1:
        raise InputError(
            f"trainer.limit_train_batches {limit} cuts an optimizer step; give a multiple of {accumulation}"
        )
    scheduled = any(isinstance(one, GradientAccumulationScheduler) for one in trainer.callbacks)  # type: ignore[attr-defined] # set by its connector
    if getattr(trainer, "overfit_batches", 0) or scheduled:
        raise InputError(
            "trainer.overfit_batches and GradientAccumulationScheduler do not go with planned batches; "
            "give a small training file, and data.batch_size"
        )
