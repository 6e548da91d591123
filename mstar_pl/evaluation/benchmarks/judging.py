"""Evaluating a process reward model: score labelled steps, keep every score, summarise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mstar_pl.data.step_labels import StepLabels
from mstar_pl.evaluation.benchmarks.process import StepBenchmark
from mstar_pl.evaluation.evaluate import in_chunks, write_scores
from mstar_pl.evaluation.summary import Row
from mstar_pl.models.process_reward import ProcessRewardModel

RULES = "step score of at least the threshold means correct"


def judge(
    model: ProcessRewardModel,
    benchmark: StepBenchmark,
    solutions: Sequence[StepLabels],
    threshold: float,
    out: Path,
    settings: dict[str, Any],
    fingerprint: str,
) -> dict[str, Any]:
    """Judge the steps of solutions, write scores and results, and return the results.

    Args:
        model: The process reward model.
        benchmark: The benchmark.
        solutions: Its solutions, or the first of them.
        threshold: Least score of a step that is judged correct, in [0, 1].
        out: Folder; an interrupted call goes on there.
        settings: Settings block of `results.json`.
        fingerprint: What the scores depend on.
    """

    def score(some: Sequence[StepLabels]) -> list[Row]:
        return [
            {
                "id": one.prompt.id,
                "group": one.prompt.metadata[benchmark.group_key],
                "step_scores": list(model.score(one.prompt, [one.steps])[0]),
                "labels": list(one.labels),
            }
            for one in some
        ]

    rows = in_chunks(solutions, lambda one: one.prompt.id, score, out, fingerprint, "judging")
    judged = [
        (one, [score >= threshold for score in row["step_scores"]])
        for one, row in zip(solutions, rows, strict=True)
    ]
    named = {"benchmark": benchmark.name, "rules": RULES, "headline": "all"}
    return write_scores(out, rows, named | {"scores": benchmark.summarise(judged)}, settings, fingerprint)
