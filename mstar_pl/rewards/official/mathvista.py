"""The official MathVista grading rules, from an extraction to the grade (standard library only).

Source: lupantech/MathVista `evaluation/calculate_score.py`. The integer rule changed on 2024-11-28 (commit
e999481): `2023` is `int(x)`, which refuses `77.78`; `current` is `int(float(x))`, which truncates it. Most
published outputs were graded under `2023`, so an accuracy without the name of the rule is ambiguous by up to
one point.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mstar_pl.types import Prompt

MathVistaRule = Literal["current", "2023"]


def normalize_extraction(extraction: str, prompt: Prompt, rule: MathVistaRule = "current") -> str | None:
    """Return the prediction that MathVista compares with the gold answer, or None if there is none.

    An empty extraction of a multiple-choice question becomes the shortest choice, as in the official script.

    >>> prompt = Prompt(id="1", question="?", answer_type="integer", answer="77")
    >>> normalize_extraction("77.78", prompt), normalize_extraction("77.78", prompt, "2023")
    ('77', None)
    >>> choice = Prompt(id="2", question="?", question_type="multi_choice", choices=("red", "blue"))
    >>> tuple(normalize_extraction(extraction, choice) for extraction in ("(b) blue", "Blu", ""))
    ('blue', 'blue', 'red')
    """
    if prompt.question_type == "multi_choice":
        return _normalize_choice(extraction.strip(), prompt.choices or ())
    try:
        if prompt.answer_type == "integer":
            return str(int(extraction) if rule == "2023" else int(float(extraction)))
        if prompt.answer_type == "float":
            return str(round(float(extraction), prompt.precision or 0))
    except (ValueError, OverflowError):
        return None
    return extraction


def score(prediction: str | None, prompt: Prompt) -> bool:
    """Return the official grade: is the prediction literally the gold answer?

    >>> prompt = Prompt(id="1", question="?", answer="2")
    >>> score("2", prompt), score(None, prompt)
    (True, False)
    """
    return prediction is not None and prediction == prompt.answer


def edit_distance(a: str, b: str) -> int:
    """Return the Levenshtein distance of two strings.

    A column of the table at a time, in the bits of two integers (Myers 1999, "A fast bit-vector algorithm for
    approximate string matching", as Hyyrö 2003 states it).

    >>> edit_distance("kitten", "sitting"), edit_distance("", "abc")
    (3, 3)
    """
    text, pattern = (a, b) if len(a) >= len(b) else (b, a)
    if not pattern:
        return len(text)
    places: dict[str, int] = {}
    for i, character in enumerate(pattern):
        places[character] = places.get(character, 0) | 1 << i
    # A column of the table is two bit sets: where it rises by one (up), and where it falls by one (down).
    whole, last = (1 << len(pattern)) - 1, 1 << (len(pattern) - 1)
    up, down, distance = whole, 0, len(pattern)
    for character in text:
        equal = places.get(character, 0)
        straight = (((equal & up) + up) ^ up) | equal
        right_up, right_down = down | ~(straight | up), up & straight
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = right_up << 1 | 1, right_down << 1
        equal |= down
        up, down = (right_down | ~(equal | right_up)) & whole, right_up & equal & whole
    return distance


def _normalize_choice(extraction: str, choices: Sequence[str]) -> str:
    if parenthesised := re.findall(r"\(([a-zA-Z])\)", extraction):
        extraction = parenthesised[0].upper()
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    if extraction in letters:
        return choices[letters.index(extraction)]
    return min(choices, key=lambda choice: edit_distance(extraction, choice))
