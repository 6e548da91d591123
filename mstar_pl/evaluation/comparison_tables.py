"""The paper's tables from finished evaluations: five benchmarks, MathVista by task, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mstar_pl.evaluation.comparison import AVERAGE, Score, average, read_evaluations, score
from mstar_pl.evaluation.paper import (
    BENCHMARK_SCORES,
    TASK_SCORES,
    TASKS,
    TITLES,
    PaperScores,
    Reference,
    published,
)
from mstar_pl.evaluation.table import cell, comma_separated, markdown, signed_cell
from mstar_pl.types import InputError

MATHVISTA = "mathvista"
_COLUMNS = ["policy", "benchmark", "group", "accuracy", "low", "high", "gain", "gain_low", "gain_high"]
_COLUMNS += ["num", "rules", "notes"]


def compare(
    folders: Mapping[str, Path],
    reference: Reference = "minicpm",
    names: Sequence[str] | None = None,
    shown: Callable[[str], str] = str,
) -> dict[str, str]:
    """Return by file name the tables of some policies, the first one compared with, in Markdown and CSV.

    Args:
        folders: Folder of the evaluations by name of the policy.
        reference: The paper's rows to put beside them.
        names: Sub-folders to read of each; default is all.
        shown: How the Markdown shows a name or a note, e.g. `mstar_pl.data.cards.escaped`.

    Raises:
        InputError: Nothing is given, a folder holds no evaluation, or two are of different prompts.
    """
    if not folders:
        raise InputError("no results given; give e.g. --results.mstar FOLDER")
    found = [read_evaluations(policy, folder, names) for policy, folder in folders.items()]
    first, asked = found[0], list(dict.fromkeys(name for row in found for name in row))
    five = [*TITLES, AVERAGE] if TITLES.keys() & asked else []
    rows = [_row(score(one, one.headline, first.get(name)) for name, one in row.items()) for row in found]
    by_task = [
        [*filter(None, (score(row[MATHVISTA], task, first.get(MATHVISTA)) for task in TASKS))]
        for row in found
        if MATHVISTA in row
    ]
    if five:
        rows += [_row(row) for row in _paper(BENCHMARK_SCORES, reference, [(name, "ALL") for name in TITLES])]
    if by_task:
        by_task += _paper(TASK_SCORES, reference, [(MATHVISTA, task) for task in TASKS])
    numbers: dict[str, int] = {}
    own = [name for name in asked if name not in TITLES]
    rules: dict[str, dict[str, None]] = {}  # a set in order
    for one in chain(*rows):
        if one.rules:
            rules.setdefault(TITLES.get(one.benchmark, one.benchmark), {})[one.rules] = None
    graded = shown(", ".join(f"{name} {' or '.join(found)}" for name, found in rules.items()))
    head = f"Greedy accuracy in percent with 95 % interval. Rules: {graded}."
    parts = [head, _table(rows, "benchmark", own + five, numbers, shown)]
    if by_task:
        parts += ["MathVista by task:", _table(by_task, "group", TASKS, numbers, shown)]
    if numbers:
        parts.append("  \n".join(f"[{number}] {shown(note)}" for note, number in numbers.items()))
    return {"table.md": "\n\n".join(parts), "table.csv": _csv(chain(*rows, *by_task))}


def _row(scores: Iterable[Score | None]) -> list[Score]:
    """Return what there is, and the average of what belongs to the five benchmarks."""
    there = [one for one in scores if one is not None]
    known = [one for one in there if one.benchmark in TITLES]
    return there + ([average(known)] if known else [])


def _paper(
    scores: PaperScores, reference: Reference, columns: Sequence[tuple[str, str]]
) -> list[list[Score]]:
    return [
        [
            Score(policy=f"{name} (paper)", benchmark=benchmark, group=group, mean=percent / 100)
            for (benchmark, group), percent in zip(columns, row, strict=True)
        ]
        for name, row in published(scores, reference).items()
    ]


def _table(
    rows: Sequence[Sequence[Score]],
    by: str,
    columns: Sequence[str],
    numbers: dict[str, int],
    shown: Callable[[str], str],
) -> str:
    """Return a table with a line of differences below each row that has some; notes are numbered."""
    lines = [["policy", *(TITLES.get(column) or shown(column) for column in columns)]]
    for row in filter(None, rows):
        scores = {getattr(one, by): one for one in row}
        lines.append([shown(row[0].policy), *(_cell(scores.get(column), numbers) for column in columns)])
        if any(one.gain for one in row):
            gains = (scores[column].gain if column in scores else None for column in columns)
            lines.append([shown(f"less {rows[0][0].policy}"), *map(signed_cell, gains)])
    return markdown(lines)


def _cell(one: Score | None, numbers: dict[str, int]) -> str:
    if one is None:
        return "-"
    marks = "".join(f" [{numbers.setdefault(note, len(numbers) + 1)}]" for note in one.notes)
    return (cell(one.interval) if one.interval else f"{100 * one.mean:.1f}") + marks


def _csv(scores: Iterable[Score]) -> str:
    """Return one line a number, in [0, 1]."""
    lines: list[Sequence[Any]] = [_COLUMNS]
    for one in dict.fromkeys(scores):
        numbers = [one.mean, *(one.interval or [None] * 3)[1:], *(one.gain or [None] * 3)]
        rounded = (None if number is None else round(number, 6) for number in numbers)
        notes = "; ".join(one.notes)
        lines.append([one.policy, one.benchmark, one.group, *rounded, one.num, one.rules, notes])
    return comma_separated(lines)
