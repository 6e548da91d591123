"""Accuracy by group, with intervals and the counts that it cannot be read without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mstar_pl.metrics.accuracy import decided_accuracy

Row = dict[str, Any]


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return accuracy with 95 % bootstrap interval over all rows and by group, and the counts beside it.

    Undecided rows are left out of the accuracy and counted.

    Args:
        rows: Graded responses. A row counts in each of its `groups`, which go from coarse to fine, as do the
            groups of the summary.

    >>> row = {"outcome": "correct", "finish_reason": "stop"}
    >>> list(summarise([row | {"groups": ["math", "algebra"]}, row | {"groups": ["art", "colour"]}]))
    ['all', 'art', 'math', 'algebra', 'colour']
    """
    members: dict[str, list[Row]] = {}
    depths: dict[str, int] = {}
    for row in rows:
        for depth, group in enumerate(dict.fromkeys(row["groups"])):
            members.setdefault(group, []).append(row)
            depths[group] = min(depth, depths.get(group, depth))
    groups = sorted(members, key=lambda group: (depths[group], group))
    return {"all": _summary(rows)} | {group: _summary(members[group]) for group in groups}


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    outcomes = [row["outcome"] for row in rows]
    mean, low, high = decided_accuracy(outcomes) or (None, None, None)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "num": len(rows),
        "undecided": outcomes.count("undecided"),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
    }
