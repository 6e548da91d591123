"""The tables of a study, from the outcomes of its evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from mstar_pl.data.jsonl import read_rows
from mstar_pl.evaluation.evaluate import RESPONSES, RESULTS
from mstar_pl.evaluation.study import TEST, Study
from mstar_pl.evaluation.table import ABBREVIATIONS, cell, comma_separated, markdown, signed_cell
from mstar_pl.metrics.intervals import Interval, bootstrap_interval, paired_difference

Run = Mapping[str, bool]
"""Whether the answer to a prompt is correct, by its id; undecided ones are left out."""

_SIGNS = {True: "1", False: "0", None: "-"}


@dataclass(frozen=True, slots=True)
class Outcomes:
    """All that the tables are made of.

    Attributes:
        tasks: Task of each prompt, by its id.
        runs: By row, then by seed; the baseline is the first row.
    """

    tasks: Mapping[str, str]
    runs: Mapping[str, Mapping[int, Run]]

    def to_json(self) -> str:
        """Return one character a prompt and run, 1 for correct, 0 for wrong, - for undecided."""
        runs = {
            row: {seed: "".join(_SIGNS[run.get(key)] for key in self.tasks) for seed, run in by_seed.items()}
            for row, by_seed in self.runs.items()
        }
        return json.dumps({"tasks": dict(self.tasks), "runs": runs}, indent=1)


def collect(study: Study) -> Outcomes:
    """Return the outcomes of the complete evaluations of a study."""
    tasks: dict[str, str] = {}
    runs: dict[str, dict[int, Run]] = {}
    for name in (study.baseline, *study.rows):
        for seed in study.seeds:
            folder = study.folder(name, seed) / TEST
            if not (folder / RESULTS).is_file():
                continue
            rows = [row for _, row in read_rows(folder / RESPONSES)]
            tasks |= {row["id"]: row["task"] for row in rows}
            run = {row["id"]: row["outcome"] == "correct" for row in rows if row["outcome"] != "undecided"}
            runs.setdefault(name, {})[seed] = run
    return Outcomes(dict(sorted(tasks.items())), runs)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the main table, accuracies in [0, 1].

    The intervals resample prompts, each with its mean over the seeds. A prompt that is undecided in a run is
    left out.

    Attributes:
        name: Its name.
        seeds: Accuracy by seed.
        accuracy: Mean over the seeds.
        gain: The same less the baseline's, over the same seeds and prompts; None for the baseline itself.
        against: The same less that of the row that all are compared with; None for that row itself, and where
            they have no seed in common.
        tasks: Mean over the seeds by task.
    """

    name: str
    seeds: dict[int, float]
    accuracy: Interval
    gain: Interval | None
    against: Interval | None
    tasks: dict[str, Interval]


def compare(outcomes: Outcomes, baseline: str, against: str | None = None) -> list[Row]:
    """Return the baseline and the rows that are complete for at least one of its seeds, in their order."""
    base = outcomes.runs.get(baseline, {})
    found = []
    for name, by_seed in outcomes.runs.items():
        runs = {seed: run for seed, run in by_seed.items() if seed in base}
        if not runs:
            continue
        ids = _shared([*runs.values()])
        tasks: dict[str, list[str]] = {}
        for key in ids:
            task = outcomes.tasks[key]
            tasks.setdefault(ABBREVIATIONS.get(task, task), []).append(key)
        other = outcomes.runs.get(against or "", {})
        found.append(
            Row(
                name,
                {seed: fmean(run[key] for key in ids) for seed, run in runs.items()},
                bootstrap_interval(over_seeds(runs, ids)),
                None if name == baseline else difference(runs, base),
                None if name == against else difference(runs, other),
                {task: bootstrap_interval(over_seeds(runs, own)) for task, own in sorted(tasks.items())},
            )
        )
    return found


def over_seeds(runs: Mapping[int, Run], ids: Sequence[str]) -> list[float]:
    """Return the share of the seeds that answer each prompt correctly."""
    return [fmean(run[key] for run in runs.values()) for key in ids]


def difference(runs: Mapping[int, Run], others: Mapping[int, Run]) -> Interval | None:
    """Return the paired difference of two rows over the seeds and prompts that both have, or None."""
    seeds = [seed for seed in runs if seed in others]
    if not seeds:
        return None
    a, b = ({seed: row[seed] for seed in seeds} for row in (runs, others))
    ids = _shared([*a.values(), *b.values()])
    return paired_difference(over_seeds(a, ids), over_seeds(b, ids))


def tables(outcomes: Outcomes, baseline: str, against: str | None = None) -> dict[str, str]:
    """Return by file name the main table, accuracies by task, all numbers, and the outcomes themselves."""
    rows = compare(outcomes, baseline, against)
    reference = [f"less {against}"] if against else []
    main: list[list[Any]] = [["setting", "seeds", "accuracy", f"less {baseline}", *reference, "by seed"]]
    data: list[list[Any]] = [["setting", "seeds", "mean", "low", "high", "gain", "gain_low", "gain_high"]]
    data[0] += ["against", "against_low", "against_high"] if against else []
    for row in rows:
        seeds = " ".join(f"{100 * value:.1f}" for value in row.seeds.values())
        differences = [row.gain, *([row.against] if against else [])]
        main.append(
            [row.name, str(len(row.seeds)), cell(row.accuracy), *map(signed_cell, differences), seeds]
        )
        numbers = [value for one in differences for value in one or ("", "", "")]
        data.append([row.name, len(row.seeds), *row.accuracy, *numbers])
    names = sorted({task for row in rows for task in row.tasks})
    split = [["setting", *names]]
    split += [[row.name, *(cell(row.tasks[task]) for task in names)] for row in rows]
    return {
        "rows.md": markdown(main),
        "rows.csv": comma_separated(data),
        "tasks.md": markdown(split),
        "study.json": json.dumps({row.name: _numbers(row) for row in rows}, indent=2),
        "outcomes.json": outcomes.to_json(),
    }


def _shared(runs: Sequence[Run]) -> list[str]:
    return sorted(set.intersection(*(set(run) for run in runs)))


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "seeds": row.seeds,
        "accuracy": row.accuracy._asdict(),
        "gain": row.gain._asdict() if row.gain else None,
        "against": row.against._asdict() if row.against else None,
        "tasks": {task: interval._asdict() for task, interval in row.tasks.items()},
    }
