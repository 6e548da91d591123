"""The closed language of solution steps: one place for the words that are written and checked.

A step is one sentence of one of five sorts:

* perception: `The bars read: red 4, blue 7.` or `We need: red 4.`
* extreme: `The largest is blue 7.`
* comparison: `blue 7 > red 4.`
* computation, one operation: `The sum is 4 + 7 = 11.`
* choice: `The answer is option B: blue.`
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from random import Random

from mstar_pl.data.minivista.record import Facts, Value

SEEN: Mapping[str, tuple[str, ...]] = {
    "bars": ("The bars read", "The chart shows"),
    "line": ("The points read", "The chart shows"),
    "pie": ("The slices read", "The chart shows"),
    "rectangle": ("The sides read", "The figure shows"),
    "triangle": ("The sides read", "The figure shows"),
    "angles": ("The angles read", "The figure shows"),
    "objects": ("The picture shows", "I count"),
    "prices": ("The prices read", "The picture shows"),
    "table": ("The table reads", "The table shows"),
    "cycle": ("The stages read", "The cycle shows"),
    "chain": ("The arrows go", "The chain shows"),
    "shapes": ("I count", "The picture shows"),
    "dice": ("The dice show", "I count"),
    "sizes": ("The sizes are", "The picture shows"),
    "places": ("The picture shows", "I see"),
}
"""By scene: how a step may begin that states what is seen."""

NEED = ("We need", "The question is about")
"""How a step may begin that picks what the question is about."""

LARGEST = ("The largest is", "The highest is")
SMALLEST = ("The smallest is", "The lowest is")

COMPUTE: Mapping[str, tuple[str, ...]] = {
    "+": ("", "Add:", "The sum is", "Together:", "The perimeter is", "The area is"),
    "-": ("", "Subtract:", "The difference is", "Left:", "The angle is", "The side is"),
    "*": ("", "Multiply:", "The product is", "The area is", "The perimeter is", "The cost is"),
    "/": ("", "Divide:", "The average is", "The share is", "The area is"),
}
"""By operation: how a step may begin that computes. The first three (two for division) suit any number."""

CHOOSE = ("The answer is option", "So we choose option")
LETTERS = "ABCD"
ANSWER = "# Answer"
NUMBER = r"[0-9]{1,6}(?:\.[0-9]{1,6})?"
"""Pattern of a number in a step."""


def divide(dividend: int | Decimal, divisor: int | Decimal, decimals: int) -> str:
    """Divide and round half up.

    >>> divide(17, 3, 1), divide(1, 4, 1)
    ('5.7', '0.3')
    """
    return str((Decimal(dividend) / Decimal(divisor)).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def pairs(names: Iterable[str], seen: Mapping[str, Value]) -> str:
    """Return `red 4, blue 7`."""
    return ", ".join(f"{name} {seen[name]}" for name in names)


def caption(facts: Facts) -> str:
    """Return one sentence that states all that is seen."""
    return f"{SEEN[facts.scene][0]}: {pairs(facts.seen, facts.seen)}."


class Writer:
    """Writes the steps of a solution about some facts.

    Args:
        rng: Chooses between phrasings.
        facts: The truth of the picture.
    """

    def __init__(self, rng: Random, facts: Facts) -> None:
        self._rng = rng
        self._facts = facts
        self.steps: list[str] = []

    def see(self, *names: str) -> None:
        """State what is seen under these names; without names, everything."""
        lead = self._rng.choice(SEEN[self._facts.scene])
        self.steps.append(f"{lead}: {pairs(names or self._facts.seen, self._facts.seen)}.")

    def need(self, *names: str) -> None:
        """State what the question is about."""
        self.steps.append(f"{self._rng.choice(NEED)}: {pairs(names, self._facts.seen)}.")

    def extreme(self, name: str, *, largest: bool) -> None:
        """State that this name has the largest or smallest number."""
        lead = self._rng.choice(LARGEST if largest else SMALLEST)
        self.steps.append(f"{lead} {pairs([name], self._facts.seen)}.")

    def compare(self, larger: str, smaller: str) -> None:
        """State that one named number is larger than another."""
        known = {**self._facts.seen, **self._facts.derived}
        self.steps.append(f"{larger} {known[larger]} > {smaller} {known[smaller]}.")

    def compute(self, left: int, operation: str, right: int, lead: str | None = None) -> int:
        """Write one operation with a whole result and return the result."""
        result = {"+": left + right, "-": left - right, "*": left * right, "/": left // max(right, 1)}[
            operation
        ]
        assert operation != "/" or result * right == left
        self._equation(left, operation, right, str(result), lead)
        return result

    def average(self, left: int, right: int, lead: str | None = None) -> str:
        """Write a division with one decimal and return the result."""
        result = divide(left, right, 1)
        self._equation(left, "/", right, result, lead)
        return result

    def total(self, numbers: Iterable[int]) -> int:
        """Add up numbers, one operation per step, and return the sum."""
        first, *others = numbers
        for number in others:
            first = self.compute(first, "+", number)
        return first

    def _equation(self, left: int, operation: str, right: int, result: str, lead: str | None) -> None:
        if lead is None:
            lead = self._rng.choice(COMPUTE[operation][: 2 if operation == "/" else 3])
        assert lead in COMPUTE[operation]
        self.steps.append(f"{lead} {left} {operation} {right} = {result}.".strip())
