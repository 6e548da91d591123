"""Selection operators H: which correct responses of a prompt are trained on (arXiv 2412.17451, section 3.2).

All of them choose among the *candidates*: correct, finished, and each distinct text once. What they return
keeps the order of the rollouts, and equal scores are decided by that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from mstar_pl.rewards.extraction import cut_next_turn
from mstar_pl.types import InputError, RolloutGroup, Score


class Selection(Protocol):
    """Choose rollouts of a group to train on."""

    def __call__(self, group: RolloutGroup, scores: Sequence[Score]) -> tuple[int, ...]:
        """Return the indices of the kept rollouts in rising order."""


def candidates(group: RolloutGroup, scores: Sequence[Score]) -> list[int]:
    """Return the indices of the rollouts that any operator may keep.

    A rollout is a candidate if its answer is correct, it ended by itself (one cut off at the token limit
    would teach an end that was never written) and there (not after a next question that it posed itself), and
    no earlier rollout of the group says the same.
    """
    seen: set[str] = set()
    indices = []
    for index, (rollout, score) in enumerate(zip(group.rollouts, scores, strict=True)):
        text = rollout.text.strip()
        ended = rollout.finish_reason == "stop" and text == cut_next_turn(text)
        if score.outcome == "correct" and ended and text not in seen:
            seen.add(text)
            indices.append(index)
    return indices


class AllCorrect:
    """Keep every candidate."""

    def __call__(self, group: RolloutGroup, scores: Sequence[Score]) -> tuple[int, ...]:
        """Return the candidates."""
        return tuple(candidates(group, scores))


class RandomK:
    """Keep up to k random candidates; the draw is a function of seed, policy step and prompt.

    Args:
        k: Most responses of a prompt.
        seed: Seed of the draws.
    """

    def __init__(self, k: int = 2, seed: int = 0) -> None:
        self.k = _at_least_one(k)
        self.seed = seed

    def __call__(self, group: RolloutGroup, scores: Sequence[Score]) -> tuple[int, ...]:
        """Return a random choice of the candidates."""
        found = candidates(group, scores)
        rng = Random(f"{self.seed}/{group.weight_version}/{group.prompt.id}")
        return tuple(sorted(rng.sample(found, min(self.k, len(found)))))


class Threshold:
    """Keep the candidates whose reward exceeds alpha.

    Args:
        alpha: Least reward, exclusive.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        self.alpha = alpha

    def __call__(self, group: RolloutGroup, scores: Sequence[Score]) -> tuple[int, ...]:
        """Return the candidates above the threshold."""
        return tuple(index for index in candidates(group, scores) if scores[index].reward > self.alpha)


class TopK:
    """Keep the k candidates with the highest reward; the paper's best is k = 2.

    Args:
        k: Most responses of a prompt.
    """

    def __init__(self, k: int = 2) -> None:
        self.k = _at_least_one(k)

    def __call__(self, group: RolloutGroup, scores: Sequence[Score]) -> tuple[int, ...]:
        """Return the best candidates."""
        best = sorted(candidates(group, scores), key=lambda index: -scores[index].reward)
        return tuple(sorted(best[: self.k]))


def _at_least_one(k: int) -> int:
    if k < 1:
        raise InputError(f"k {k} would keep no response; give 1 or more")
    return k
