"""The official MMStar rule (standard library only).

Source: MMStar-Benchmark/MMStar `eval/vlmeval/evaluate/mmstar.py`, commit 79e6d1c.
"""

from __future__ import annotations

_PREFIXES = ("(", "option ", "the answer is ")


def chosen_letter(text: str) -> str | None:
    """Return the letter that MMStar takes an answer to name, or None where there is none.

    It is the first character of the answer, or the one behind `(`, `option ` or `the answer is ` at its
    beginning; upper and lower case are the same. A chain of thought that begins with `A` names A, so the rule
    is for final answers only.

    >>> [chosen_letter(text) for text in ("b", "(C) green", "Option A", "The answer is D.", "A look at it")]
    ['B', 'C', 'A', 'D', 'A']
    >>> chosen_letter(" "), chosen_letter("The answer: B")
    (None, 'T')
    """
    text = text.lower().strip().replace("\n", " ")
    for prefix in _PREFIXES:
        if text.startswith(prefix):
            return text[len(prefix) : len(prefix) + 1].upper() or None
    return text[:1].upper() or None
