"""Answers to yes/no questions that are given as a statement instead of the word (standard library only)."""

from __future__ import annotations

import re

from mstar_pl.rewards.markup import content_words

_NEGATION = re.compile(
    r"\b(?:not|no|none|never|neither|cannot|incorrect|false)\b|n['\u2019]t\b", re.IGNORECASE
)
_OPPOSITES = (
    ({"more", "greater", "larger", "bigger", "higher"}, {"fewer", "less", "smaller", "lower"}),
    ({"same", "equal"}, {"different", "unequal"}),
)  # fmt: skip


def affirms(statement: str, question: str) -> bool | None:
    """Tell whether a sentence affirms or denies a yes/no question; None if it does not repeat the question.

    A negation denies. So does the opposite comparison; with the two sides exchanged it affirms again.

    >>> affirms("The bed is much larger than the kitten.", "Is the bed larger than the kitten?")
    True
    >>> affirms("There are more cars than buses.", "Are there fewer cars than buses?")
    False
    >>> affirms("There are more cars than buses.", "Is the number of buses greater than the number of cars?")
    False
    >>> affirms("The graph has two axes.", "Is Periwinkle the maximum?") is None
    True
    """
    asked, said = content_words(question), content_words(statement)
    if not asked or len(asked & said) * 2 < len(asked):
        return None
    verdict = (_NEGATION.search(statement) is None) == (_NEGATION.search(question) is None)
    opposed = any(
        (asked & group and said & opposite) or (asked & opposite and said & group)
        for group, opposite in _OPPOSITES
    )
    return verdict ^ opposed ^ _exchanged(statement, question)


def _exchanged(statement: str, question: str) -> bool:
    said, asked = statement.lower().partition(" than "), question.lower().partition(" than ")
    if not said[1] or not asked[1]:
        return False
    left, right = content_words(asked[0]), content_words(asked[2])
    left, right = left - right, right - left
    before, after = content_words(said[0]), content_words(said[2])
    straight = len(before & left) + len(after & right)
    return len(before & right) + len(after & left) > straight
