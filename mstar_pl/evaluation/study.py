"""A study: recipes x seeds, what is complete of it, and its tables."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from string import Template
from typing import Any

from mstar_pl.data.jsonl import read_rows
from mstar_pl.evaluation.evaluate import RESPONSES, RESULTS
from mstar_pl.evaluation.table import ABBREVIATIONS, cell, markdown
from mstar_pl.metrics.intervals import Interval, bootstrap_interval, paired_difference
from mstar_pl.types import InputError

DONE, TEST = "done.json", "test"


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a study.

    Attributes:
        name: What it is called in messages.
        folder: Where its output goes; `done.json` there says that it is complete, and what made it.
        command: Arguments of `mstar-pl`.
    """

    name: str
    folder: Path
    command: tuple[str, ...]

    def is_done(self) -> bool:
        """Tell whether the step is complete.

        Raises:
            InputError: Another command completed it.
        """
        done = self.folder / DONE
        if not done.is_file():
            return False
        made_by = json.loads(done.read_text())["command"]
        if made_by != list(self.command):
            raise InputError(
                f"{self.folder}: was made by another command (see {DONE}); move it away, or take a new out"
            )
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is run.

    In each command `$out` is the study's folder, `$seed` the seed, `$run` the folder of the seed and `$dir`
    the folder of the step itself.

    Attributes:
        out: Folder of the study.
        seeds: One run of each row a seed.
        once: Commands by name that all seeds share, such as the data.
        each_seed: Commands by name that come before the rows of a seed, such as warm-up, labels and process
            reward model.
        recipe: Command of a row; `$name` is the row's name.
        rows: What is added to it, by name of the row; may be empty.
        test: Command that evaluates `$policy`, the policy of a row or of `baseline`, into `$dir`.
        baseline: The step of `each_seed` whose policy the rows start from.
    """

    out: Path
    seeds: tuple[int, ...]
    recipe: str
    rows: Mapping[str, str]
    test: str
    once: Mapping[str, str] = field(default_factory=dict)
    each_seed: Mapping[str, str] = field(default_factory=dict)
    baseline: str = "warmup"

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        names = [*self.once, *self.each_seed, *self.rows]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"study: {twice!r} names two steps; names must be unique")
        if self.baseline not in self.each_seed:
            raise InputError(
                f"study: baseline {self.baseline!r} is none of each_seed ({', '.join(self.each_seed)})"
            )
        if not self.seeds or not self.rows:
            raise InputError("study: give at least one seed and one row")

    def steps(self) -> Iterator[Step]:
        """Yield all steps in their order: what is shared, then seed by seed."""
        for name, command in self.once.items():
            yield self._step(name, self.out / name, command)
        for seed in self.seeds:
            rows = {name: f"{self.recipe} {options}" for name, options in self.rows.items()}
            for name, command in {**self.each_seed, **rows}.items():
                folder = self.folder(name, seed)
                yield self._step(f"seed {seed}, {name}", folder, command, seed)
                if name == self.baseline or name in self.rows:
                    yield self._step(f"seed {seed}, {name}, test", folder / TEST, self.test, seed)

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a step of a seed."""
        return self.out / f"seed-{seed}" / name

    def _step(self, name: str, folder: Path, command: str, seed: int | None = None) -> Step:
        names: dict[str, Any] = {"out": self.out, "dir": folder, "policy": folder.parent / "policy"}
        if seed is not None:
            names |= {"seed": seed, "run": self.out / f"seed-{seed}", "name": folder.name}
        try:
            return Step(name, folder, tuple(shlex.split(Template(command).substitute(names))))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"study: {name}: {error} in {command!r}; known are ${', $'.join(names)}"
            ) from None


def outcomes(study: Study, name: str) -> dict[int, dict[str, bool]]:
    """Return by seed and prompt whether the answers of a row are correct; only complete evaluations."""
    found = {}
    for seed in study.seeds:
        folder = study.folder(name, seed) / TEST
        if (folder / RESULTS).is_file():
            rows = (row for _, row in read_rows(folder / RESPONSES))
            found[seed] = {
                row["id"]: row["outcome"] == "correct" for row in rows if row["outcome"] != "undecided"
            }
    return found


def over_seeds(runs: Mapping[int, Mapping[str, bool]], ids: Sequence[str]) -> list[float]:
    """Return the share of the seeds that answer each prompt correctly."""
    return [fmean(run[key] for run in runs.values()) for key in ids]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the main table, accuracies in [0, 1].

    Attributes:
        name: Its name.
        seeds: Accuracy by seed.
        accuracy: Mean over the seeds; the interval resamples prompts, each with its mean over the seeds.
        gain: The same less the baseline's, over the same seeds and prompts; None for the baseline itself.
    """

    name: str
    seeds: dict[int, float]
    accuracy: Interval
    gain: Interval | None


def compare(study: Study) -> list[Row]:
    """Return the baseline and the rows that are complete for at least one seed, in their order.

    Prompts that are undecided in a run of a row are left out of the row.
    """
    base, found = outcomes(study, study.baseline), []
    for name in (study.baseline, *study.rows):
        runs = {seed: run for seed, run in outcomes(study, name).items() if seed in base}
        if not runs:
            continue
        both = {seed: base[seed] for seed in runs}
        ids = sorted(set.intersection(*(set(run) for run in (*runs.values(), *both.values()))))
        values = over_seeds(runs, ids)
        found.append(
            Row(
                name,
                {seed: fmean(run[key] for key in ids) for seed, run in runs.items()},
                bootstrap_interval(values),
                None if name == study.baseline else paired_difference(values, over_seeds(both, ids)),
            )
        )
    return found


def by_task(study: Study, name: str) -> dict[str, Interval]:
    """Return the accuracy of a row by task, over the seeds."""
    runs, tasks = outcomes(study, name), {}
    for seed in runs:
        for _, row in read_rows(study.folder(name, seed) / TEST / RESPONSES):
            tasks[row["id"]] = row["task"]
    ids = sorted(set.intersection(*(set(run) for run in runs.values())))
    return {
        ABBREVIATIONS.get(task, task): bootstrap_interval(
            over_seeds(runs, [key for key in ids if tasks[key] == task])
        )
        for task in sorted({tasks[key] for key in ids})
    }


def tables(study: Study) -> dict[str, str]:
    """Return the tables by file name: all rows, Markdown and CSV; accuracies by task; all numbers."""
    rows = compare(study)
    tasks = {row.name: by_task(study, row.name) for row in rows}
    main: list[list[Any]] = [["setting", "seeds", "accuracy", "gain over the baseline", "by seed"]]
    data: list[list[Any]] = [["setting", "seeds", "mean", "low", "high", "gain", "gain_low", "gain_high"]]
    for row in rows:
        seeds = " ".join(f"{100 * value:.1f}" for value in row.seeds.values())
        gain = (
            "-" if row.gain is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * x for x in row.gain))
        )
        main.append([row.name, str(len(row.seeds)), cell(row.accuracy), gain, seeds])
        data.append([row.name, len(row.seeds), *row.accuracy, *(row.gain or ("", "", ""))])
    names = sorted({task for found in tasks.values() for task in found})
    split = [["setting", *names]]
    split += [[name, *(cell(found[task]) for task in names)] for name, found in tasks.items()]
    numbers = {
        row.name: {
            "seeds": row.seeds,
            "accuracy": row.accuracy._asdict(),
            "gain": row.gain._asdict() if row.gain else None,
            "tasks": {task: interval._asdict() for task, interval in tasks[row.name].items()},
        }
        for row in rows
    }
    return {
        "rows.md": markdown(main),
        "rows.csv": _csv(data),
        "tasks.md": markdown(split),
        "study.json": json.dumps(numbers, indent=2),
    }


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().rstrip("\n")
