"""The processes of a run: what one of them does for all, and waiting for all of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

import torch.distributed as dist

from mstar_pl.types import InputError

T = TypeVar("T")
FOREVER = timedelta(days=30)


class Processes:
    """The processes of a run, as one of them sees them.

    All of them must call each method together. They meet in a group of their own on the CPU, without the time
    limit of the training's: while others still sample for hours, waiting is no fault. That one of them died
    is the business of `mstar_pl.loops.heartbeat`.

    Attributes:
        rank: Number of this process.
        num: How many there are.
    """

    def __init__(self, rank: int = 0, num: int = 1) -> None:
        self.rank = rank
        self.num = num
        self._teams: dict[int, Processes] = {}

    def team(self, size: int) -> Processes:
        """Return the `size` consecutive processes to which this one belongs; it must divide their number."""
        if size == 1:
            return Processes()
        if size not in self._teams:
            team = Processes(self.rank % size, size)
            team._group, _ = dist.new_subgroups(size, timeout=FOREVER, backend="gloo")
            self._teams[size] = team
        return self._teams[size]

    def first(self, make: Callable[[], T]) -> T:
        """Let the first process make something and give it to all.

        Raises:
            InputError: It could not be made, in every process.
        """
        if self.num == 1:
            return make()
        made: list[Any] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except InputError as error:
                made[1] = str(error)
        dist.broadcast_object_list(made, group_src=0, group=self._group)
        if made[1] is not None:
            raise InputError(made[1])
        return made[0]

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in their order."""
        if self.num == 1:
            return [value]
        values: list[Any] = [None] * self.num
        dist.all_gather_object(values, value, group=self._group)
        return values

    def wait(self) -> None:
        """Wait for all, however long it takes."""
        if self.num > 1:
            dist.barrier(group=self._group)

    @cached_property
    def _group(self) -> Any:
        return dist.new_group(backend="gloo", timeout=FOREVER)
