"""The paper's numbers, to be set beside one's own: accuracy in percent, greedy, without intervals.

Main results of arXiv 2412.17451, as they are also in README.md of github.com/hkust-nlp/mstar at 46eda49;
MathVista by task of the two smaller models is from the paper alone.
"""

from __future__ import annotations

from typing import Literal

Reference = Literal["minicpm", "phi", "internvl2", "all", "none"]

TITLES = {
    "mathvista": "MathVista",
    "m3cot": "M3CoT",
    "mmstar": "MMStar-R",
    "mmbench": "MMBench-R",
    "ai2d": "AI2D",
}
"""The paper's five benchmarks, by the name that `results.json` gives them, in the order of its columns."""

NUM_PROMPTS = {"mathvista": 1000, "m3cot": 2318, "mmstar": 1500, "mmbench": 4876, "ai2d": 3088}
"""Prompts of each: testmini, test, val, dev v1.1 with its copies, test."""

TASKS = ("ALL", "FQA", "GPS", "MWP", "TQA", "VQA")
"""Columns of MathVista by task."""

PaperScores = dict[str, dict[str, tuple[float, ...]]]

BENCHMARK_SCORES: PaperScores = {
    "minicpm": {
        "MiniCPM-V-2.5": (52.4, 41.2, 44.6, 72.6, 64.4),
        "MiniCPM-V-2.5 + warm-up": (52.6, 47.8, 45.1, 76.9, 65.9),
        "MiniCPM-V-2.5 M-STAR": (59.5, 48.7, 50.7, 79.9, 69.1),
    },
    "phi": {
        "Phi-3.5-vision": (46.5, 39.4, 42.5, 56.8, 47.5),
        "Phi-3.5-vision + warm-up": (49.3, 46.5, 44.2, 70.9, 65.5),
        "Phi-3.5-vision M-STAR": (54.5, 51.3, 48.8, 73.6, 67.9),
    },
    "internvl2": {
        "InternVL2-2B": (46.4, 16.7, 20.0, 14.2, 33.5),
        "InternVL2-2B + warm-up": (47.6, 45.6, 41.8, 68.8, 60.0),
        "InternVL2-2B M-STAR": (50.3, 47.1, 42.0, 67.3, 59.7),
    },
}
"""By model and setting, in the order of `TITLES`."""

TASK_SCORES: PaperScores = {
    "minicpm": {
        "MiniCPM-V-2.5": (52.4, 59.2, 44.7, 50.5, 53.8, 48.0),
        "MiniCPM-V-2.5 + warm-up": (52.6, 58.4, 47.1, 57.0, 53.8, 45.8),
        "MiniCPM-V-2.5 M-STAR": (59.5, 59.5, 59.1, 65.6, 58.9, 54.2),
    },
    "phi": {"Phi-3.5-vision M-STAR": (54.5, 56.9, 56.7, 57.5, 55.1, 44.7)},
    "internvl2": {"InternVL2-2B M-STAR": (50.3, 49.4, 57.2, 65.0, 42.4, 35.2)},
}
"""MathVista by model and setting, in the order of `TASKS`."""


def published(scores: PaperScores, reference: Reference) -> dict[str, tuple[float, ...]]:
    """Return the paper's rows of one model, of all or of none.

    >>> [round(sum(row) / 5, 1) for row in published(BENCHMARK_SCORES, "minicpm").values()]  # as they print
    [55.0, 57.7, 61.6]
    """
    chosen = scores.values() if reference == "all" else [scores.get(reference, {})]
    return {name: row for rows in chosen for name, row in rows.items()}
