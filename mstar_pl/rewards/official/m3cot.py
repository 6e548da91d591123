"""The official M3CoT rule (standard library only).

Source: LightChen233/M3CoT `utils/metric.py::judge_answer`, commit ee50d5a.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mstar_pl.data.format import letter

_PARENTHESISED = re.compile(r"\(([A-Za-z])\)")
_SEPARATOR = re.compile(r"[\n.,!?]")


def chosen_letter(text: str, choices: Sequence[str]) -> str | None:
    """Return the letter that M3CoT takes an answer to name, or None where it finds none.

    In this order: the last letter in parentheses, whether or not there is such a choice; the last choice, in
    the order of the choices, whose text occurs anywhere; the last one whose capital letter stands alone; the
    last one whose small letter does, the article `a` included.

    >>> choices = ("left lamp", "right lamp", "both")
    >>> [chosen_letter(text, choices) for text in ("(a), (c)", "Both, not the left lamp", "A. or B", "a")]
    ['C', 'C', 'B', 'A']
    >>> chosen_letter("[Answer] neither [Rationale] (B)", choices) is None
    True
    """
    if "[Answer]" in text:
        text = text.split("[Answer]")[-1].split("[Rationale]")[0].split("[Context]")[0]
    if parenthesised := _PARENTHESISED.findall(text):
        return str(parenthesised[-1].upper())
    letters = [letter(index) for index in range(len(choices))]
    tokens = set(_SEPARATOR.sub(" ", text).split(" "))
    for found in (
        [name for name, choice in zip(letters, choices, strict=True) if choice.lower() in text.lower()],
        [name for name in letters if name in tokens],
        [name for name in letters if name.lower() in tokens],
    ):
        if found:
            return found[-1]
    return None
