"""Which expressions a computer-algebra system may be asked about."""

from __future__ import annotations

import re

MAX_CHARACTERS = 200
MAX_DEPTH = 8

_EXPENSIVE = re.compile(
    r"""
    \d{25}                                   # a number that no question asks for
    | \\(?:d|t)?(?:int|iint|oint|sum|prod|lim|binom)(?![a-zA-Z]) | \b(?:factorial|gamma|binomial|range)\b
    | (?:\d{3}|[)\]}a-zA-Z])\s*!             # factorial of something large or unknown
    | (?:\^|\*\*)[\s{(]*[-+]?\s*[\d.]+\s*(?:[eE!^]|\*\*)        # a tower: the exponent is a power itself
    | (?:\^|\*\*)[\s{(]*[-+]?\s*\d{4}        # a power too large to write down,
    | [)\]}a-zA-Z]\s*(?:\^|\*\*)[\s{(]*[-+]?\s*\d{3}            # or to expand
    | \\(?:def|newcommand|input|include)(?![a-zA-Z]) | __
    """,
    re.VERBOSE,
)


def is_bounded(expression: str) -> bool:
    r"""Tell whether comparing an expression takes little time and memory, judged by its looks alone.

    Time limits depend on how busy the machine is; this does not, so that a grade is the same everywhere.

    >>> [is_bounded(text) for text in (r"\frac{5}{2}", "e^{x^2}", "10^{-19}", "5!", "2^{100}")]
    [True, True, True, True, True]
    >>> [is_bounded(text) for text in ("9^{9^9}", "(10^9)!", "(x+1)^{5000}", r"\sum_{i=1}^{9} i", 9 * "(")]
    [False, False, False, False, False]
    """
    if len(expression) > MAX_CHARACTERS or _EXPENSIVE.search(expression):
        return False
    depth = deepest = 0
    for character in expression:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest <= MAX_DEPTH
