"""The interval of an iteration: which share of the prompts it samples."""

from __future__ import annotations

from random import Random

from mstar_pl.types import InputError


def interval(num: int, percent: float, iteration: int, seed: int) -> list[int]:
    """Return the prompts of one iteration: the next `percent` of a shuffled, cyclic list.

    Continuous self-evolving training samples an interval of 100, 50, 25, 12.5 or 6.25 % of the prompts at a
    time and goes round the set (arXiv 2412.17451, section 3.1). Over any whole round each prompt comes up
    equally often, give or take one.

    Args:
        num: Number of all prompts.
        percent: Length of the interval in percent of the prompts, in (0, 100].
        iteration: Counts from 0.
        seed: Seed of the order.

    Returns:
        Positions of the prompts.

    Raises:
        InputError: The percentage is out of range.

    >>> rounds = [interval(8, 25, iteration, seed=0) for iteration in range(5)]
    >>> sorted(place for part in rounds[:4] for place in part)
    [0, 1, 2, 3, 4, 5, 6, 7]
    >>> rounds[4] == rounds[0]
    True
    """
    if not 0 < percent <= 100:
        raise InputError(f"interval {percent} is not a percentage of the prompts in (0, 100]")
    order = list(range(num))
    Random(f"{seed}/interval").shuffle(order)
    cut = [round(num * percent * step / 100) for step in (iteration, iteration + 1)]
    # An interval shorter than one prompt would give empty iterations.
    end = max(cut[1], cut[0] + 1)
    return [order[index % num] for index in range(cut[0], end)]
