"""Accuracy over answers of which some could not be decided."""

from __future__ import annotations

from collections.abc import Sequence

from mstar_pl.metrics.intervals import Interval, bootstrap_interval


def decided_accuracy(outcomes: Sequence[str]) -> Interval | None:
    """Return the share of correct answers among the decided ones with its 95 % bootstrap interval.

    Args:
        outcomes: `correct`, `wrong` or `undecided`; undecided answers count as neither.

    Returns:
        The interval in [0, 1], or None if nothing was decided.

    >>> decided_accuracy(["correct", "wrong", "undecided", "wrong", "correct"]).mean
    0.5
    >>> decided_accuracy(["undecided"]) is None
    True
    """
    decided = [float(outcome == "correct") for outcome in outcomes if outcome != "undecided"]
    return bootstrap_interval(decided) if decided else None
