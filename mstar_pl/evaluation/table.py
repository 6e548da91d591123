"""Tables of accuracy by task, for people."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mstar_pl.data.durable import written_whole
from mstar_pl.metrics.intervals import Interval, paired_difference

ABBREVIATIONS = {
    "figure question answering": "FQA",
    "geometry problem solving": "GPS",
    "math word problem": "MWP",
    "textbook question answering": "TQA",
    "visual question answering": "VQA",
}
"""MathVista's short names of its tasks."""


def accuracy_table(columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return a Markdown table: rows are tasks, columns evaluations, cells percent with 95 % interval.

    Args:
        columns: By column title, what `mstar_pl.evaluation.summary.summarise` returns.

    >>> row = {"mean": 0.5, "low": 0.4, "high": 0.6, "num": 100, "undecided": 0, "truncated": 1}
    >>> print(accuracy_table({"base": {"all": row, "geometry problem solving": row}}))
    | task | prompts | base                |
    |------|---------|---------------------|
    | ALL  | 100     | 50.0 (40.0 to 60.0) |
    | GPS  | 100     | 50.0 (40.0 to 60.0) |
    """
    first = next(iter(columns.values()))
    rows = [["task", "prompts", *columns]]
    for task in first:
        cells = [_cell(column.get(task)) for column in columns.values()]
        rows.append([task_title(task), str(first[task]["num"]), *cells])
    return markdown(rows)


def score_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the scores of a process reward model: rows are groups, shares in percent.

    >>> print(score_table({"all": {"f1": 0.5, "num": 7}}))
    | group | f1   | num |
    |-------|------|-----|
    | ALL   | 50.0 | 7   |
    """
    names = list(scores["all"])
    rows = [["group", *names]]
    for group, found in scores.items():
        cells = [str(found[name]) if name.startswith("num") else f"{100 * found[name]:.1f}" for name in names]
        rows.append(["ALL" if group == "all" else group, *cells])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    r"""Return rows as a Markdown table, the first one as its head, columns aligned.

    >>> print(markdown([["a", "b"], ["1", "22"]]))
    | a | b  |
    |---|----|
    | 1 | 22 |
    >>> markdown([["a|b\nc"]]).splitlines()[0]  # a text ends neither its cell nor its row
    '| a\\|b c |'
    """
    rows = [[re.sub(r"(?<!\\)\|", r"\\|", text.replace("\n", " ")) for text in row] for row in rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def paired_gain(before: Mapping[str, str], after: Mapping[str, str]) -> Interval:
    """Return the gain in accuracy over the prompts that both evaluations decided, with its paired interval.

    Args:
        before: Outcome by prompt id of the evaluation compared with.
        after: Outcome by prompt id of the evaluation.

    Raises:
        ValueError: The two have no decided prompt in common.
    """
    both = [key for key in before if key in after and "undecided" not in (before[key], after[key])]
    if not both:
        raise ValueError("the two evaluations have no decided prompt in common")
    return paired_difference(
        [after[key] == "correct" for key in both], [before[key] == "correct" for key in both]
    )


def cell(interval: Interval) -> str:
    """Return an interval in percent.

    >>> cell(Interval(0.5, 0.4, 0.6))
    '50.0 (40.0 to 60.0)'
    """
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * bound for bound in interval))


def signed_cell(interval: Interval | None) -> str:
    """Return a difference in percentage points, with its sign.

    >>> signed_cell(Interval(0.05, -0.01, 0.11)), signed_cell(None)
    ('+5.0 (-1.0 to +11.0)', '-')
    """
    return "-" if interval is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in interval))


def comma_separated(rows: Sequence[Sequence[Any]]) -> str:
    """Return rows as CSV without the last line break.

    >>> print(comma_separated([["a", "b"], ["1, 2", None]]))
    a,b
    "1, 2",
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")


def task_title(group: str) -> str:
    """Return the short name of a task.

    >>> task_title("all"), task_title("geometry problem solving"), task_title("own")
    ('ALL', 'GPS', 'own')
    """
    return "ALL" if group == "all" else ABBREVIATIONS.get(group, group)


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["mean"] is None:
        return "-"
    return cell(Interval(entry["mean"], entry["low"], entry["high"]))


def write_tables(folder: Path, tables: Mapping[str, str]) -> None:
    """Write a file for each table, by its name.

    Raises:
        InputError: The folder cannot be made.
    """
    for name, text in tables.items():
        with written_whole(folder / name) as file:
            file.write_text(text + "\n", encoding="utf-8")
