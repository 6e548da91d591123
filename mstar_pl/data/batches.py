"""Length-bucketed batches of one epoch as a pure function, and a loader that resumes inside an epoch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mstar_pl.types import InputError

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The examples of one forward pass on one process.

    Attributes:
        indices: Positions in the data set.
        step: The optimizer step of the epoch.
        num_step_losses: Response tokens, or labelled steps, of the whole optimizer step, over its
            micro-batches and all processes. A sum of losses divided by it does not depend on how the step is
            cut into micro-batches and processes.
    """

    indices: tuple[int, ...]
    num_step_losses: int
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """How an epoch is cut into optimizer steps and micro-batches.

    Attributes:
        batch_size: Examples of one optimizer step, over all processes.
        micro_batch_size: Examples of one forward pass on one process.
        num_processes: Processes that share a step.
        bucket_steps: Steps whose examples are sorted by length together; 1 keeps the steps a uniform random
            draw.
    """

    batch_size: int
    micro_batch_size: int
    num_processes: int = 1
    bucket_steps: int = 16

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if min(self.batch_size, self.micro_batch_size, self.num_processes, self.bucket_steps) < 1:
            raise ValueError(
                "batch_size, micro_batch_size, num_processes and bucket_steps must be at least 1"
            )
        if self.batch_size % (self.micro_batch_size * self.num_processes):
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} x {self.num_processes} process(es); change one of them"
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches of one process in one optimizer step."""
        return self.batch_size // (self.micro_batch_size * self.num_processes)


def plan_epoch(
    plan: BatchPlan,
    lengths: Sequence[int],
    num_losses: Sequence[int],
    seed: int,
    epoch: int,
    rank: int = 0,
) -> list[MicroBatch]:
    """Return the micro-batches of one process in one epoch; a function of its arguments only.

    The examples of `bucket_steps` steps are sorted by length before they are cut, so that little is padded;
    the order of the steps stays random. Every example occurs once. Only the last step may be short; in it,
    too, every process has the same number of micro-batches, for which fewer examples than processes repeat.

    Args:
        plan: Sizes.
        lengths: Tokens of each example, prompt and response.
        num_losses: How many losses each example has: response tokens, or labelled steps.
        seed: Seed of the run.
        epoch: Epoch, so that each epoch has its own order.
        rank: The process.

    >>> plan = BatchPlan(batch_size=4, micro_batch_size=2, bucket_steps=1)
    >>> [len(batch.indices) for batch in plan_epoch(plan, [3] * 6, [1] * 6, seed=0, epoch=0)]
    [2, 2, 2]
    >>> [batch.num_step_losses for batch in plan_epoch(plan, [3] * 6, [1] * 6, seed=0, epoch=0)]
    [4, 4, 2]
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    bucket = plan.batch_size * plan.bucket_steps
    whole: list[list[int]] = []
    for start in range(0, len(order), bucket):
        pool = sorted(order[start : start + bucket], key=lambda index: -lengths[index])
        whole += [pool[cut : cut + plan.batch_size] for cut in range(0, len(pool), plan.batch_size)]
    short = [whole.pop()] if len(whole[-1]) < plan.batch_size else []
    rng.shuffle(whole)
    batches: list[MicroBatch] = []
    for number, step in enumerate(whole + short):
        num_parts = -(-len(step) // (plan.micro_batch_size * plan.num_processes)) * plan.num_processes
        step += (step * num_parts)[: max(0, num_parts - len(step))]
        total = sum(num_losses[index] for index in step)
        ordered = sorted(step, key=lambda index: -lengths[index])
        cuts = [len(ordered) * part // num_parts for part in range(num_parts + 1)]
        own = [tuple(ordered[begin:end]) for begin, end in pairwise(cuts)]
        batches += [MicroBatch(part, total, number) for part in own[rank :: plan.num_processes]]
    return batches


def cut_evenly(num: int, size: int, num_processes: int) -> list[range]:
    """Cut `num` examples into batches of at most `size`, as many for each process as for any other.

    >>> cut_evenly(7, 3, 1), cut_evenly(7, 3, 2)
    ([range(0, 2), range(2, 4), range(4, 7)], [range(0, 1), range(1, 3), range(3, 5), range(5, 7)])
    """
    count = -(-num // (size * num_processes)) * num_processes
    cuts = [num * part // count for part in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(cuts)]


class ResumableLoader:
    """Iterate over the micro-batches of the current epoch; a resumed epoch goes on where it stopped.

    Args:
        dataset: A data set whose `__getitems__` takes a `MicroBatch`.
        plan: Function from the epoch to the micro-batches of this process.
        collate: Function from what `__getitems__` returns to the batch.
        epoch: Function that tells the current epoch.
        num_workers: Worker processes that decode and collate; 0 works in this process.
        pin_memory: Copy batches to page-locked memory, for a GPU.
    """

    def __init__(
        self,
        dataset: Dataset,
        plan: Callable[[int], list[MicroBatch]],
        collate: Callable[[Any], Batch],
        epoch: Callable[[], int],
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.collate = collate
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self._plan = plan
        self._epoch = epoch
        self._taken = 0
        self._skip = 0

    def __len__(self) -> int:
        """Return the micro-batches of the whole epoch, also when resumed inside it."""
        return len(self._plan(self._epoch()))

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches that are left of the current epoch."""
        self._taken, self._skip = self._skip, 0
        left = self._plan(self._epoch())[self._taken :]
        loader: DataLoader = DataLoader(
            self.dataset,
            batch_sampler=left,  # type: ignore[arg-type] # micro-batches stand for indices
            collate_fn=self.collate,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            # Its own generator: the seed that a loader draws would shift dropout after resuming.
            generator=torch.Generator(),
        )
        for batch in loader:
            self._taken += 1
            yield batch

    @property
    def _num_examples(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type] # ours have a length

    def examples(self, batches: range) -> list[int]:
        """Return the positions in the data set of the examples of micro-batches of the current epoch."""
        plan = self._plan(self._epoch())
        return [index for batch in batches for index in plan[batch].indices]

    def state_dict(self) -> dict[str, int]:
        """Return the number of optimizer steps whose batches were taken, and of examples in all.

        After the last step of the epoch it is 0. Unlike batches, steps are the same for any number of
        processes and size of micro-batches.
        """
        plan = self._plan(self._epoch())
        steps = plan[self._taken].step if self._taken < len(plan) else 0
        return {"steps": steps, "examples": self._num_examples}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration skip the batches of these steps.

        Raises:
            InputError: The data have become more or fewer inside the epoch: each batch would be another one.
        """
        before = state.get("examples", self._num_examples)  # checkpoints of old do not say
        if state["steps"] and before != self._num_examples:
            raise InputError(
                f"the checkpoint was written inside an epoch of {before} examples, now there are "
                f"{self._num_examples}; restore the data, or go on from a checkpoint between two epochs"
            )
        self._skip = sum(batch.step < state["steps"] for batch in self._plan(self._epoch()))
