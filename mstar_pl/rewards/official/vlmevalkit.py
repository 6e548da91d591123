"""VLMEvalKit's rule for multiple choice, with which MMBench is scored (standard library only).

Source: open-compass/VLMEvalKit `vlmeval/utils/matching_util.py::can_infer`. The rule of December 2024 (commit
dbda46a) is `2024`; `head` (commit e8e78f0) also wants the letter among the last four words (since 2025-08),
reads `answer is B` anywhere (since 2026-06), and refuses to look for options in long texts. Where the rule
finds nothing, VLMEvalKit asks a language model, or with `exact_matching` counts the answer as wrong, as is
done here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

Era = Literal["2024", "head"]

NO_OPTION = "Z"
"""What is taken for the choice of a response that refuses."""

_NO_RESPONSE = "Failed to obtain answer via API"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_STATED = re.compile(r"(?i)(?:correct\s+)?answer\s+is\s+\**([ABCD])\**")
_TAIL = 4


def chosen_letter(text: str, options: Mapping[str, str], era: Era = "2024") -> str | None:
    """Return the letter of the option that a text is taken to name, `Z` for a refusal, None for neither.

    In this order: the only option letter that stands alone; the only option whose text occurs.

    Args:
        text: The answer.
        options: Texts of the options by their capital letters.
        era: Version of the rule.

    >>> options = {"A": "a cup", "B": "a plate"}
    >>> [chosen_letter(text, options) for text in ("(B).", "It is A Plate", "a Plate", "A or B")]
    ['B', 'A', 'B', None]
    >>> [chosen_letter("B is what I would say here", options, era) for era in ("2024", "head")]
    ['B', None]
    """
    return _by_letter(text, options, era) or _by_text(text, options, era)


def _by_letter(text: str, options: Mapping[str, str], era: Era) -> str | None:
    if _NO_RESPONSE in text:
        return None
    if any(refusal in text for refusal in _REFUSALS):
        return NO_OPTION
    words = text.translate(_PUNCTUATION).split()
    named = [name for name in options if name in words]
    if len(named) == 1 and (era == "2024" or words.index(named[0]) >= len(words) - _TAIL):
        return named[0]
    if not named and NO_OPTION in words:
        return NO_OPTION
    if era == "head" and (match := _STATED.search(text)) and match[1].upper() in options:
        return match[1].upper()
    return None


def _by_text(text: str, options: Mapping[str, str], era: Era) -> str | None:
    if era == "head" and len(text) > 2 * sum(map(len, options.values())):
        return None
    named = [name for name, option in options.items() if option.lower() in text.lower()]
    return named[0] if len(named) == 1 else None
