"""How VisualProcessBench and ProcessBench score judgements of steps (standard library only).

Sources: VisualPRM (arXiv 2503.10291, section 4.1) and ProcessBench (arXiv 2412.06559, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence

NO_ERROR = -1
"""ProcessBench's label of a solution without a wrong step."""


def macro_f1(judged: Sequence[bool], labels: Sequence[int]) -> float:
    """Return VisualProcessBench's macro-F1 in [0, 1]: the mean of the F1 of correct and of incorrect steps.

    Args:
        judged: Whether each step was judged correct.
        labels: Label of each step: 1 correct, -1 incorrect, 0 neutral; neutral steps are left out.

    >>> macro_f1([True, True, False, True], [1, -1, -1, 0])
    0.6666666666666666
    """
    known = [(one, label > 0) for one, label in zip(judged, labels, strict=True) if label != 0]
    return (_f1(known, True) + _f1(known, False)) / 2


def first_wrong(judged: Sequence[bool]) -> int:
    """Return the index of the first step that was judged wrong, or -1.

    >>> first_wrong([True, False, False]), first_wrong([True, True])
    (1, -1)
    """
    return next((index for index, correct in enumerate(judged) if not correct), NO_ERROR)


def process_bench_f1(predicted: Sequence[int], labels: Sequence[int]) -> dict[str, float]:
    """Return ProcessBench's accuracies on solutions with and without a wrong step, and their harmonic mean.

    Args:
        predicted: Index of the first step taken to be wrong in each solution, -1 for none.
        labels: Index of the first wrong step of each solution, -1 for none.

    Returns:
        `error`, `correct` and `f1`, in [0, 1]; one of which there is no solution is 0.

    >>> process_bench_f1([1, 0, -1, -1], [1, 2, -1, -1])
    {'error': 0.5, 'correct': 1.0, 'f1': 0.6666666666666666}
    """
    pairs = list(zip(predicted, labels, strict=True))
    error = _share([found == label for found, label in pairs if label != NO_ERROR])
    correct = _share([found == label for found, label in pairs if label == NO_ERROR])
    return {"error": error, "correct": correct, "f1": 2 * error * correct / ((error + correct) or 1)}


def _f1(known: Sequence[tuple[bool, bool]], positive: bool) -> float:
    """Return 2 TP / (2 TP + FP + FN) with this judgement as the positive one."""
    hits = sum(judged == label == positive for judged, label in known)
    total = sum((judged == positive) + (label == positive) for judged, label in known)
    return 2 * hits / total if total else 0.0


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
