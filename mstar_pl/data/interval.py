"""The interval of an iteration: which share of the prompts it samples."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from mstar_pl.types import InputError, Prompt


def interval_prompts(prompts: Sequence[Prompt], percent: float, iteration: int, seed: int) -> list[Prompt]:
    """Return the prompts of one iteration: the next `percent` of a shuffled, cyclic list.

    Continuous self-evolving training samples an interval of 100, 50, 25, 12.5 or 6.25 % of the prompts at a
    time and goes round the set (arXiv 2412.17451, section 3.1). Over any whole round each prompt comes up
    equally often, give or take one.

    Args:
        prompts: All prompts.
        percent: Length of the interval in percent of the prompts, in (0, 100].
        iteration: Counts from 0.
        seed: Seed of the order.

    Raises:
        InputError: The percentage is out of range.

    >>> prompts = [Prompt(id=str(n), question="?") for n in range(8)]
    >>> rounds = [interval_prompts(prompts, 25, iteration, seed=0) for iteration in range(5)]
    >>> sorted(prompt.id for part in rounds[:4] for prompt in part) == [str(n) for n in range(8)]
    True
    >>> rounds[4] == rounds[0]
    True
    """
    if not 0 < percent <= 100:
        raise InputError(f"interval {percent} is not a percentage of the prompts in (0, 100]")
    order = list(prompts)
    Random(f"{seed}/interval").shuffle(order)
    cut = [round(len(order) * percent * step / 100) for step in (iteration, iteration + 1)]
    # An interval shorter than one prompt would give empty iterations.
    end = max(cut[1], cut[0] + 1)
    return [order[index % len(order)] for index in range(cut[0], end)]
