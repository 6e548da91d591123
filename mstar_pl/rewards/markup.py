r"""Markdown and LaTeX stripped from answers (standard library only)."""

from __future__ import annotations

import re

_REPLACEMENTS: tuple[tuple[str, str], ...] = (
    (r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname|mathit|textit)\s*\{([^{}]*)\}", r"\1"),
    (r"\\[dt]frac(?![a-zA-Z])", r"\\frac"),
    (r"\^\s*\{?\s*\\circ\s*\}?|\\degree\b|\s*\bdegrees?\b", "°"),
    (r"\\([%$#&_])", r"\1"),
    (r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\\[,;:!]|\\quad|~", " "),
    (r"\\[()\[\]]", " "),
    (r"\*\*|__|`+", ""),
    (r"\$([^$\n]+)\$(?!\d)", r"\1"),  # maths, unlike two prices
    (r"\$(?!\s?\d)|(?<=\d)\$", ""),
    (r"[\u2212\u2013](?=\s*\d)", "-"),
    (r"[\u00a0\u2009\u202f]", " "),
    (r"\s+", " "),
)

# fmt: off
_STOP_WORDS = frozenset({
    "a", "an", "the", "is", "are", "was", "were", "be", "been", "do", "doe", "did", "ha", "have", "it", "its",
    "this", "that", "these", "there", "of", "in", "on", "at", "to", "for", "from", "by", "with", "and", "or",
    "than", "as", "so", "would", "will", "can", "could", "may", "might", "you", "i", "we", "they", "he",
    "she", "based", "image", "therefore", "hence", "thus",
})
# fmt: on


def plain(text: str) -> str:
    r"""Return text without Markdown emphasis, maths delimiters and LaTeX text commands.

    >>> plain(r"**$\text{about } 45^\circ$**"), plain(r"\dfrac{1}{2}"), plain("90 degrees")
    ('about 45°', '\\frac{1}{2}', '90°')
    """
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    return text.strip(" \t\"'\u201c\u201d\u2018\u2019*_")


def fold(text: str) -> str:
    """Return `plain` text for comparison: case folded, without a leading article and outer punctuation.

    >>> fold("The  Adult spiders."), fold("(b)"), fold("5.5")
    ('adult spiders', 'b', '5.5')
    """
    folded = plain(text).casefold().strip(" .,;:!?()[]{}\"'")
    return re.sub(r"^(?:the|an?)\s+(?=\w)", "", folded)


def content_words(text: str) -> frozenset[str]:
    """Return the words of a text that carry meaning, lower case and without plural endings.

    >>> sorted(content_words("It would decrease the number of buses."))
    ['bus', 'decrease', 'number']
    """
    words = (
        re.sub(r"(?<=\w\w)(?:(?<=[sxz])es|(?<!s)s)$", "", word)
        for word in re.findall(r"[a-z0-9]+", plain(text).lower())
    )
    return frozenset(words) - _STOP_WORDS
