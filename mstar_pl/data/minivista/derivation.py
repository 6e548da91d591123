"""The computations that lead from the numbers of a question to its answer."""

from __future__ import annotations

import re
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from itertools import permutations

from mstar_pl.data.minivista.grammar import NUMBER

_EQUATION = re.compile(rf"({NUMBER}) ([-+*/]) ({NUMBER}) = (-?{NUMBER})\.$", re.MULTILINE)
_SUMS, _PRODUCTS = "+-", "*/"

Pool = tuple[Decimal, ...]
"""Numbers that are still to be used, in ascending order."""


class Derivation:
    r"""Follows the computations of a response through those that the solution needs.

    The solution says which numbers are computed with, how many sums and differences, and how many products
    and quotients there are. A response may take them in any order that arrives where the solution does:
    `180 - 50 = 130`, `130 - 60 = 70` as well as `50 + 60 = 110`, `180 - 110 = 70`; not `50 + 50 = 100`, and
    not `50 + 60 = 110` after `180 - 50 = 130`, however right the sums are.

    Args:
        solution: The written solution.

    >>> way = Derivation("180 - 50 = 130.\n\nThe angle is 130 - 60 = 70.")
    >>> [way.follow(*map(Decimal, pair), sign) for *pair, sign in (("50", "60", "+"), ("180", "60", "-"))]
    [True, False]
    """

    def __init__(self, solution: str) -> None:
        self._sums = self._products = 0
        leaves: list[Decimal] = []
        ends: Counter[Decimal] = Counter()
        for left, sign, right, result in _EQUATION.findall(solution):
            for number in map(Decimal, (left, right)):
                if ends[number]:
                    ends[number] -= 1
                else:
                    leaves.append(number)
            ends[Decimal(result)] += 1
            self._sums += sign in _SUMS
            self._products += sign in _PRODUCTS
        self._pool: Pool = tuple(sorted(leaves))
        self._goal: Pool = tuple(sorted(ends.elements()))
        self._taken: set[tuple[Decimal, Decimal, str]] = set()

    def follow(self, left: Decimal, right: Decimal, sign: str) -> bool:
        """Take one computation, unless it leads astray; one that was already taken may be said again.

        Args:
            left: The first number.
            right: The second number.
            sign: `+`, `-`, `*` or `/`.
        """
        after = _apply(self._pool, left, right, sign)
        sums, products = self._sums - (sign in _SUMS), self._products - (sign in _PRODUCTS)
        if after is None or min(sums, products) < 0 or not _leads(after, sums, products, self._goal):
            return (left, right, sign) in self._taken
        self._pool, self._sums, self._products = after, sums, products
        self._taken.add((left, right, sign))
        return True


def _apply(pool: Pool, left: Decimal, right: Decimal, sign: str) -> Pool | None:
    """Return the pool with the exact result instead of both numbers.

    None if the pool lacks one of them, the result is negative, or zero divides.
    """
    used = Counter((left, right))
    rest = (Counter(pool) - used).elements()
    if not used <= Counter(pool):
        return None
    if sign == "/":
        return tuple(sorted([*rest, left / right])) if right else None
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return tuple(sorted([*rest, result])) if result >= 0 else None


@lru_cache(maxsize=100_000)
def _leads(pool: Pool, sums: int, products: int, goal: Pool) -> bool:
    """Return whether so many sums or differences, and products or quotients, lead to the goal."""
    if not sums and not products:
        return all(number.quantize(end, ROUND_HALF_UP) == end for number, end in zip(pool, goal, strict=True))
    for left, right in set(permutations(pool, 2)):
        for sign in (_SUMS if sums else "") + (_PRODUCTS if products else ""):
            after = _apply(pool, left, right, sign)
            spent = (sums - 1, products) if sign in _SUMS else (sums, products - 1)
            if after is not None and _leads(after, *spent, goal):
                return True
    return False
