"""Check every step of a response against the truth of the picture."""

from __future__ import annotations

import re
from decimal import Decimal

from mstar_pl.data.minivista.derivation import Derivation
from mstar_pl.data.minivista.grammar import (
    ANSWER,
    CHOOSE,
    COMPUTE,
    LARGEST,
    LETTERS,
    NEED,
    NUMBER,
    SEEN,
    SMALLEST,
    divide,
)
from mstar_pl.data.minivista.record import Item, Value
from mstar_pl.types import Prompt

_EQUATION = re.compile(rf"(.*?) ?({NUMBER}) ([-+*/x]) ({NUMBER}) = (-?{NUMBER})")
_COMPARISON = re.compile(r"(.+) ([<>]) (.+)")
_CHOICE = re.compile(rf"({'|'.join(CHOOSE)}) ([A-D]): (.+)")
_EXTREME = re.compile(rf"({'|'.join(LARGEST + SMALLEST)}) (.+)")


def check_steps(item: Item, response: str) -> list[bool]:
    """Return the truth of each step of a response.

    The response is split at blank lines; `# Answer` and what follows is one last element, which is true iff
    the answer is right (a response without it has no such element). A step is true iff it is a sentence of
    the solution language (`mstar_pl.data.minivista.grammar`), all it says about the picture agrees with the
    facts, what it says is needed is needed, its comparison holds, and its equation holds and leads, after the
    earlier true steps, to the answer (`mstar_pl.data.minivista.derivation`). A quotient may be rounded (half
    up) to the decimals it states, at least one.

    Args:
        item: The item that the response is about.
        response: Any text.
    """
    body, marker, answer = response.partition(ANSWER)
    checker = _Checker(item)
    truths = [checker.step(step.strip()) for step in body.split("\n\n") if step.strip()]
    if marker:
        truths.append(_is_right(item.prompt, answer.strip()))
    return truths


def _is_right(prompt: Prompt, answer: str) -> bool:
    assert prompt.answer is not None
    if prompt.choices is not None:
        return answer.strip("().") == LETTERS[prompt.choices.index(prompt.answer)] or answer == prompt.answer
    return re.fullmatch(NUMBER, answer) is not None and Decimal(answer) == Decimal(prompt.answer)


def _need(step: str) -> list[str] | None:
    """Return what a step picks as needed, in the order of the alphabet; None if it does not pick."""
    lead, _, stated = step.removesuffix(".").partition(": ")
    return sorted(stated.split(", ")) if lead in NEED else None


class _Checker:
    """Holds what is known so far and how far the computations have come."""

    def __init__(self, item: Item) -> None:
        self._prompt = item.prompt
        self._facts = item.facts
        self._derivation = Derivation(item.solution)
        self._known = {Decimal(value) for value in item.facts.seen.values() if isinstance(value, int)}
        self._needed = next(filter(None, map(_need, item.solution.split("\n\n"))), None)

    def step(self, step: str) -> bool:
        if not step.endswith("."):
            return False
        sentence = step[:-1]
        if match := _EQUATION.fullmatch(sentence):
            return self._equation(*match.groups())
        if match := _CHOICE.fullmatch(sentence):
            return self._choice(match[2], match[3])
        if match := _EXTREME.fullmatch(sentence):
            return self._extreme(match[2], largest=match[1] in LARGEST)
        if match := _COMPARISON.fullmatch(sentence):
            left, sign, right = match.groups()
            larger, smaller = (left, right) if sign == ">" else (right, left)
            a, b = self._number(larger), self._number(smaller)
            return a is not None and b is not None and a > b
        if need := _need(step):
            return need == (self._needed or need) and None not in map(self._fact, need)
        lead, _, stated = sentence.partition(": ")
        return lead in SEEN[self._facts.scene] and None not in map(self._fact, stated.split(", "))

    def _fact(self, pair: str) -> Value | None:
        """Return the value of `name value` when the picture shows it."""
        name, _, value = pair.rpartition(" ")
        known = self._facts.seen.get(name)
        return known if known is not None and str(known) == value else None

    def _number(self, text: str) -> Decimal | None:
        """Return the number of `name number`, or of a known number alone, when it is true."""
        name, _, value = text.rpartition(" ")
        if not re.fullmatch(NUMBER, value) or Decimal(value) not in self._known:
            return None
        expected = {**self._facts.seen, **self._facts.derived}.get(name)
        return Decimal(value) if not name or str(expected) == value else None

    def _extreme(self, pair: str, *, largest: bool) -> bool:
        value = self._fact(pair)
        numbers = [number for number in self._facts.seen.values() if isinstance(number, int)]
        return isinstance(value, int) and value == (max(numbers) if largest else min(numbers))

    def _choice(self, letter: str, text: str) -> bool:
        choices = self._prompt.choices or ()
        index = LETTERS.index(letter)
        return index < len(choices) and choices[index] == text == self._prompt.answer

    def _equation(self, lead: str, left: str, operation: str, right: str, result: str) -> bool:
        operation = operation.replace("x", "*")
        a, b, c = Decimal(left), Decimal(right), Decimal(result)
        if lead not in COMPUTE[operation] or (operation == "/" and b == 0):
            return False
        if operation == "/":
            decimals = max(0, -int(c.as_tuple().exponent))
            holds = result == divide(a, b, decimals) and (decimals > 0 or c * b == a)
        else:
            holds = c == {"+": a + b, "-": a - b, "*": a * b}[operation]
        if not holds or not self._derivation.follow(a, b, operation):
            return False
        self._known.add(c)
        return True
