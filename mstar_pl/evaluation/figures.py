"""The figures of a study, and the numbers in them (needs matplotlib)."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from mstar_pl.data.shards import MANIFEST
from mstar_pl.evaluation.study import TEST, Study

Curve = dict[float, float]
"""Mean over the seeds by the number on the horizontal axis."""

_AT = re.compile(r"T([\d.]+)/(.+)")


def sweeps(study: Study, row: str) -> dict[str, dict[int, Curve]]:
    """Return the dynamics of a row by metric, iterations behind the policy, and temperature."""
    values: defaultdict[tuple[str, int, float], list[float]] = defaultdict(list)
    for seed in study.seeds:
        for iteration, metrics in _manifests(study.folder(row, seed) / "sweep").items():
            for name, value in metrics.items():
                if found := _AT.fullmatch(name):
                    values[found[2], iteration, float(found[1])].append(value)
    curves: dict[str, dict[int, Curve]] = {}
    for (metric, iteration, temperature), found_values in sorted(values.items()):
        curves.setdefault(metric, {}).setdefault(iteration, {})[temperature] = fmean(found_values)
    return curves


def validation(study: Study, row: str) -> Curve:
    """Return the greedy accuracy of a row on the validation prompts by iterations behind the policy."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for seed in study.seeds:
        for iteration, metrics in _manifests(study.folder(row, seed) / "validation").items():
            if "reward/pass@1" in metrics:
                values[iteration].append(metrics["reward/pass@1"])
    return {iteration: fmean(found) for iteration, found in sorted(values.items())}


def verifier(study: Study, step: str) -> dict[str, Curve]:
    """Return the accuracy of each way to choose among K samples that a step, or the test of a row, drew."""
    values: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for seed in study.seeds:
        folder = study.folder(step, seed)
        for file in (folder / "verifier.json", folder / TEST / "verifier.json"):
            for name, by_k in json.loads(file.read_text()).items() if file.is_file() else ():
                for k, interval in by_k.items():
                    values[name, int(k)].append(interval[0])
    curves: dict[str, Curve] = {}
    for (name, k), found in sorted(values.items()):
        curves.setdefault(name, {})[k] = fmean(found)
    return curves


def figures(study: Study, folder: Path) -> list[Path]:
    """Draw what the study holds and return the files: SVG, and the same numbers as JSON.

    `temperatures-ROW`: Pass@K, Pass@K - greedy and Reward-Pass@k by temperature, a line each sweep.
    `validation`: greedy accuracy over the iterations, a line each row. `verifier-ROW`: accuracy over K.

    Args:
        study: The study.
        folder: Where they go.

    Raises:
        ImportError: matplotlib is not installed.
    """
    written: list[Path] = []
    for step in (*study.each_seed, *study.rows):
        if curves := sweeps(study, step):
            lines = {
                metric: {f"after {iteration}": curve for iteration, curve in by_iteration.items()}
                for metric, by_iteration in curves.items()
                if metric != "pass@1"
            }
            written += _draw(folder / f"temperatures-{step}", lines, "temperature")
        if chosen := verifier(study, step):
            stem = step if step in study.each_seed else f"verifier-{step}"
            written += _draw(folder / stem, {"accuracy": chosen}, "K")
    measured = {row: curve for row in study.rows if (curve := validation(study, row))}
    if measured:
        panels = {"greedy accuracy on validation": measured}
        written += _draw(folder / "validation", panels, "iterations")
    return written


def _manifests(store: Path) -> dict[int, Mapping[str, float]]:
    """Return the metrics of the complete iterations of a rollout store."""
    return {
        int(path.parent.name.removeprefix("iteration-")): json.loads(path.read_text())["metrics"]
        for path in sorted(store.glob(f"iteration-[0-9][0-9][0-9][0-9]/{MANIFEST}"))
    }


def _draw(stem: Path, panels: Mapping[str, Mapping[str, Curve]], axis: str) -> list[Path]:
    """Draw a panel each title, with a line each name."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    stem.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False)
    place: Any
    for place, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for name, curve in lines.items():
            place.plot(list(curve), [100 * value for value in curve.values()], marker=".", label=name)
        place.set(title=title, xlabel=axis, ylabel="%")
        place.grid(alpha=0.3)
        beside: Any = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(lines) > 6 else {}
        place.legend(fontsize="small", **beside)
    figure.tight_layout()
    picture, numbers = stem.with_suffix(".svg"), stem.with_suffix(".json")
    with plt.rc_context({"svg.hashsalt": stem.name}):  # the same numbers give the same file
        figure.savefig(picture, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    numbers.write_text(json.dumps(panels, indent=2) + "\n", encoding="utf-8")
    return [picture, numbers]
