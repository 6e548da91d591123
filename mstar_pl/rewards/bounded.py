"""Which expressions a computer-algebra system may be asked about."""

from __future__ import annotations

import math
import re
from itertools import accumulate

MAX_CHARACTERS = 200
MAX_DEPTH = 8
MAX_EXPONENT = 9_999
MAX_EXPANDED = 99
MAX_FACTORIAL = 200

_OPEN, _CLOSE = "([{", ")]}"
_POWER = re.compile(r"\^|\*\*|\\exp(?![a-zA-Z])|(?<![\\a-zA-Z])exp(?=\s*\()")
_TOKEN = re.compile(r"\s*[-+]?\s*(\d+(?:\.\d+)?|\\[a-zA-Z]+|\S)?")
_REFUSED = re.compile(
    r"""
    \d{100} | __
    | \\(?:int|iint|oint|lim|def|newcommand|input|include|Gamma)(?![a-zA-Z])
    | (?<![\\a-zA-Z])(?:factorial|gamma|binomial|range)\s*\(
    """,
    re.VERBOSE,
)


def is_bounded(expression: str) -> bool:
    r"""Tell whether an expression is small enough to be compared, judged by its looks alone.

    Refused are numbers that cannot be written down (power towers, large factorials), powers that would be
    expanded to thousands of terms, integrals and limits, and whatever is long or deeply nested. What
    passes is nearly always quick; a time limit is there for the rest.

    >>> all(map(is_bounded, (r"\frac{5}{2}", "e^{x^2}", "5e^{-200t}", "10^{-19}", "2^{2024}", "5!", "n!")))
    True
    >>> any(map(is_bounded, ("9^{9^9}", "9^9^9", r"\exp(9^9)", "9^{999*999999}", "(10^9)!", "(x+1)^{5000}")))
    False
    """
    if len(expression) > MAX_CHARACTERS or _REFUSED.search(expression) or _depth(expression) > MAX_DEPTH:
        return False
    for match in _POWER.finditer(expression):
        exponent, end = _group(expression, match.end())
        if not _is_small_power(_before(expression, match.start()), exponent):
            return False
        if exponent.isdigit() and re.match(r"\s*(\^|\*\*)", expression[end:]):
            return False
    factorials = [_before(expression, match.start()) for match in re.finditer(r"!(?!=)", expression)]
    binomials = re.findall(r"\\[dt]?binom\s*\{([^{}]*)\}\s*\{([^{}]*)\}", expression)
    if len(binomials) < expression.count("binom"):
        return False
    operands = " ".join((*factorials, *sum(binomials, ())))
    numbers = re.findall(r"\d+", operands)
    return "^" not in operands and all(float(number) <= MAX_FACTORIAL for number in numbers)


def _depth(text: str) -> int:
    return max(accumulate(((one in _OPEN) - (one in _CLOSE) for one in text), initial=0))


def _group(text: str, start: int) -> tuple[str, int]:
    """Return the operand that begins at a place, a bracket or one token, and where it ends."""
    begin = start + len(text[start:]) - len(text[start:].lstrip())
    if text[begin : begin + 1] in tuple(_OPEN):
        depth = 0
        for end in range(begin, len(text)):
            depth += (text[end] in _OPEN) - (text[end] in _CLOSE)
            if depth == 0:
                return text[begin + 1 : end], end + 1
        return text[begin + 1 :], len(text)
    token = _TOKEN.match(text, begin)
    return (token[1] or "", token.end()) if token else ("", begin)


def _before(text: str, end: int) -> str:
    """Return the operand that ends at a place: the inside of a bracket, a number, or a letter."""
    text = text[:end].rstrip()
    if text[-1:] not in tuple(_CLOSE):
        number = re.search(r"\d+(?:\.\d+)?$", text)
        return number[0] if number else text[-1:]
    depth = 0
    for begin in range(len(text) - 1, -1, -1):
        depth += (text[begin] in _CLOSE) - (text[begin] in _OPEN)
        if depth == 0:
            return text[begin + 1 : -1]
    return text


def _is_small_power(base: str, exponent: str) -> bool:
    variables = re.search(r"[a-df-zA-Z]", re.sub(r"\\[a-zA-Z]+", "", exponent))
    if ("^" in exponent or "**" in exponent) and not variables:
        return False
    if "!" in exponent or re.search(r"\d\s*[eE]\s*[-+]?\d", exponent):
        return False
    powers = re.findall(r"(?:\^|\*\*)[\s{(]*(\d+)", base)  # of a power: exponents multiply
    factors = [float(number) for number in (*powers, *re.findall(r"\d+(?:\.\d+)?", exponent))]
    expanded = len(base) > 1 and re.search(r"[a-zA-Z]", base) and re.search(r"[-+]", base)
    return math.prod(max(1.0, one) for one in factors) <= (MAX_EXPANDED if expanded else MAX_EXPONENT)
