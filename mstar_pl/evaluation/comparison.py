"""Finished evaluations of policies, and what sets one apart from another: gains, averages, notes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

from mstar_pl.data.jsonl import read_rows
from mstar_pl.evaluation.benchmarks.mmbench import MMBench, circular
from mstar_pl.evaluation.evaluate import RESPONSES, RESULTS, check_same_prompts
from mstar_pl.evaluation.paper import NUM_PROMPTS, TITLES
from mstar_pl.evaluation.table import paired_gain, task_title
from mstar_pl.metrics.accuracy import decided_accuracy
from mstar_pl.metrics.intervals import Interval, weighted_sum
from mstar_pl.types import InputError

AVERAGE = "average"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation of one policy on one benchmark, or on a labelled file.

    Attributes:
        policy: What the policy is called in the table.
        folder: Folder of `results.json`, and of `responses.jsonl` where it was kept.
        results: The contents of `results.json`.
    """

    policy: str
    folder: Path
    results: Mapping[str, Any]

    @property
    def benchmark(self) -> str:
        """Name of the benchmark, or of the file."""
        return self.results.get("benchmark") or Path(self.results["settings"]["data"]).stem

    @property
    def headline(self) -> str:
        """The group of prompts whose accuracy goes into the table of benchmarks."""
        return self.results.get("headline", "all")

    @property
    def settings(self) -> dict[str, Any]:
        """What must be the same for two accuracies to be compared."""
        settings = {key: one for key, one in self.results["settings"].items() if key not in _OWN}
        rules = self.results.get("rules", settings.get("rules"))
        return settings | settings.pop("sampling", {}) | {"rules": rules, "headline": self.headline}

    @cached_property
    def responses(self) -> list[dict[str, Any]]:
        """The graded responses, of MMBench one a question as it is scored; empty if they were not kept."""
        path = self.folder / RESPONSES
        rows = [row for _, row in read_rows(path)] if path.is_file() else []
        return circular(rows) if self.benchmark == MMBench.name else rows

    def entry(self, group: str) -> Mapping[str, Any]:
        """Return accuracy and counts of a group of prompts; empty if nothing of it was decided."""
        found = {task_title(key): one for key, one in self.results["accuracy"].items()}
        entry = found.get(task_title(group), {})
        return entry if entry.get("mean") is not None else {}

    def accuracy(self, group: str) -> Interval:
        """Return the accuracy of a group of which something was decided."""
        return Interval(*(self.entry(group)[bound] for bound in Interval._fields))

    def outcomes(self, group: str) -> dict[str, str]:
        """Return the outcome by prompt id of a group; empty if the responses do not give its accuracy."""
        title = task_title(group)
        groups = ((row, row.get("groups") or [row["task"]]) for row in self.responses)  # older have the task
        rows = [row for row, names in groups if title in ("ALL", *map(task_title, names))]
        outcomes = {row["id"]: row["outcome"] for row in rows}
        found = decided_accuracy([*outcomes.values()])
        num, mean = self.entry(group)["num"], self.accuracy(group).mean
        return outcomes if found and len(outcomes) == num and isclose(found.mean, mean) else {}


_OWN = ("policy", "lmm", "data", "responses", "process_reward", "device", "dtype")
"""Settings that tell one evaluation from another; all others must agree."""


def read_evaluations(policy: str, folder: Path, names: Sequence[str] | None = None) -> dict[str, Evaluation]:
    """Return by benchmark the evaluations in a folder or its sub-folders; those of step judges are left out.

    Args:
        policy: What the policy is called.
        folder: The folder.
        names: Its sub-folders to read; default is all that it holds.

    Raises:
        InputError: There is none, one cannot be read, or a benchmark is there twice.
    """
    found: dict[str, Evaluation] = {}
    for file, results in read_results(folder, names).items():
        one = Evaluation(policy, file.parent, results)
        if "accuracy" not in results:
            continue
        if one.benchmark in found:
            other = found[one.benchmark].folder
            raise InputError(f"{file}: {one.benchmark} is in {other}, too; give a folder with one of them")
        found[one.benchmark] = one
    if not found:
        raise InputError(f"{folder}: no accuracy of a policy here; give a finished evaluation of one")
    return found


def read_results(folder: Path, names: Sequence[str] | None = None) -> dict[Path, dict[str, Any]]:
    """Return each `results.json` in a folder or its sub-folders, or in some of these.

    Raises:
        InputError: There is none, there is one in the folder and in a sub-folder, or one cannot be read.
    """
    here, below = folder / RESULTS, sorted(folder.glob(f"*/{RESULTS}"))
    if names is not None:
        files = [folder / name / RESULTS for name in names]
    elif here.is_file() and below:
        raise InputError(f"{here}: {below[0]} is there, too; give a folder with one of them")
    else:
        files = [here] if here.is_file() else below
    if not files:
        raise InputError(f"{folder}: no {RESULTS} here or in a sub-folder; give a finished evaluation")
    found = {}
    for file in files:
        try:
            found[file] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read ({error}); evaluate again") from None
        settings = found[file].get("settings") if isinstance(found[file], dict) else None
        if settings is None or not ("benchmark" in found[file] or "data" in settings):
            raise InputError(f"{file}: not the results of an evaluation; give its folder")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number of a table, in [0, 1].

    Attributes:
        policy: Row.
        benchmark: Name of the benchmark, or `average`.
        group: Group of its prompts.
        mean: Accuracy.
        interval: Its 95 % interval; None for a number of the paper.
        gain: The same less that of the first row; None in the first row, and where that has no number.
        num: Prompts behind it, or None.
        rules: Rules by which answers were graded, or None.
        notes: What to know of it.
    """

    policy: str
    benchmark: str
    group: str
    mean: float
    interval: Interval | None = None
    gain: Interval | None = None
    num: int | None = None
    rules: str | None = None
    notes: tuple[str, ...] = ()


def score(one: Evaluation, group: str, first: Evaluation | None = None) -> Score | None:
    """Return the accuracy of a group, and its gain over the first row's; None if nothing was decided.

    The gain is paired over the prompts that both evaluations decided, where the responses of both are there
    and give their accuracies; else the two count as independent.

    Raises:
        InputError: The two are of different prompts.
    """
    if not (entry := one.entry(group)):
        return None
    gain, notes, num = None, [], entry["num"]
    asked = one.settings.get("num_prompts", num)
    if group == one.headline and asked != (expected := NUM_PROMPTS.get(one.benchmark, asked)):
        notes.append(f"{asked} of {expected} prompts")
    if group == one.headline and (vanilla := one.entry(f"vanilla {group}")):
        notes.append(f"without the copies, which all have to be right, {100 * vanilla['mean']:.1f}")
    if one.settings.get("limit"):
        notes.append(f"the first {one.settings['limit']} prompts only")
    if entry.get("undecided"):
        notes.append(f"{entry['undecided']} of {num} answers undecided and left out")
    if first is not None and first is not one and first.entry(group):
        gain, remarks = _gain(one, group, first)
        notes += remarks
    return Score(
        policy=one.policy,
        benchmark=one.benchmark,
        group=task_title(group),
        mean=entry["mean"],
        interval=one.accuracy(group),
        gain=gain,
        num=num,
        rules=one.settings["rules"],
        notes=tuple(notes),
    )


def _gain(one: Evaluation, group: str, first: Evaluation) -> tuple[Interval | None, list[str]]:
    """Return a gain, None if both decided no prompt, and what speaks against it."""
    mine, theirs = ({row["id"] for row in each.responses} for each in (one, first))
    check_same_prompts(one.folder, mine, first.folder, theirs)
    settings = one.settings.items()
    other = {key: value for key, value in settings if first.settings.get(key, value) != value}
    notes = [f"{key} {value}, {first.policy}: {first.settings[key]}" for key, value in other.items()]
    before, after = first.outcomes(group), one.outcomes(group)
    if before and after:
        try:
            return paired_gain(before, after), notes
        except ValueError:
            return None, [*notes, f"no prompt decided by both, {one.policy} and {first.policy}"]
    unpaired = "the interval of the difference is unpaired: the responses of both are needed"
    return weighted_sum([one.accuracy(group), first.accuracy(group)], [1, -1]), [*notes, unpaired]


def average(scores: Sequence[Score]) -> Score:
    """Return the average over those of the five benchmarks that a row has; they are independent."""
    weights = [1 / len(scores)] * len(scores)
    intervals, gains = ([getattr(one, name) for one in scores] for name in ("interval", "gain"))
    names = ", ".join(TITLES[one.benchmark] for one in scores)
    what = "average and its difference" if all(gains) else "average"
    notes = [f"{what} over {names} only"] if len(scores) < len(TITLES) else []
    if any(gains) and not all(gains):
        lacking = ", ".join(TITLES[one.benchmark] for one in scores if one.gain is None)
        notes.append(f"no difference of averages: there is none on {lacking}")
    return Score(
        policy=scores[0].policy,
        benchmark=AVERAGE,
        group="ALL",
        mean=fmean(one.mean for one in scores),
        interval=weighted_sum(intervals, weights) if all(intervals) else None,
        gain=weighted_sum(gains, weights) if all(gains) else None,
        notes=tuple(notes),
    )
