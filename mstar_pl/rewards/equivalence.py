"""Whether a candidate answer means the same as the gold answer of a prompt."""

from __future__ import annotations

import re
from enum import StrEnum

from mstar_pl.rewards import symbolic
from mstar_pl.rewards.bounded import is_bounded
from mstar_pl.rewards.choices import find_choice
from mstar_pl.rewards.markup import fold, plain
from mstar_pl.rewards.quantity import Quantity, find_quantities, parse_quantity, same_quantity
from mstar_pl.types import Prompt

MAX_ANSWER = 1_000
"""Characters of an answer; longer ones are compared as text."""

_MATHS = re.compile(
    r"\\[a-zA-Z]+|\^|√|π|=|\d\s*[*+]\s*\w|\bsqrt|\b(?:minus|negative|half|pi)\b|\b[a-z]\s*[-+*/]\s*\w|\w\s*[-+*/]\s*[a-z]\b|^[\[(].*,",
    re.IGNORECASE,
)
_WORD = re.compile(r"(?<![\\a-zA-Z])(?!sqrt|frac)[a-zA-Z]{4,}")


class Outcome(StrEnum):
    """Result of checking an answer.

    `undecided` means that the checker could not tell: the prompt has no gold answer, or a symbolic comparison
    would take too long, ran out of time or crashed. It is never counted as wrong. A response without an
    answer, truncated or not, is `wrong`.
    """

    CORRECT = "correct"
    WRONG = "wrong"
    UNDECIDED = "undecided"


def equivalent(candidate: str, prompt: Prompt) -> Outcome:
    """Compare an extracted answer with the gold answer of the prompt.

    >>> mass = Prompt(id="1", question="?", answer="1.2", unit="kg", answer_type="float")
    >>> equivalent("1,200 g", mass).value, equivalent("1,200 kg", mass).value
    ('correct', 'wrong')
    """
    return decide(candidate, prompt)[0]


def decide(candidate: str, prompt: Prompt) -> tuple[Outcome, str]:
    """Compare like `equivalent` and also return the name of the rule that decided.

    Rules, cheapest first: `unlabelled`, `choice`, `list`, `number`, `text`, `symbolic`; math-verify is asked
    only if both sides are mathematical and the others cannot tell.
    """
    gold = prompt.answer
    if gold is None:
        return Outcome.UNDECIDED, "unlabelled"
    same_text = re.sub(r"\s", "", fold(candidate)) == re.sub(r"\s", "", fold(gold))
    if max(len(candidate), len(gold)) > MAX_ANSWER:
        return _outcome(same_text), "text"
    choices = prompt.choices or ()
    if prompt.question_type == "multi_choice" and (index := find_choice(candidate, choices)) is not None:
        return _outcome(choices[index] == gold), "choice"
    if prompt.answer_type == "list":
        return _outcome(_same_list(candidate, gold)), "list"
    if same_text:
        return Outcome.CORRECT, "text"
    said, wanted = read_quantity(candidate), _gold_quantity(prompt)
    if said is not None and wanted is not None:
        return _outcome(same_quantity(said, wanted, prompt.precision)), "number"
    if _is_maths(gold, wanted) and _is_maths(candidate, said):
        return _decide_symbolically(plain(candidate), plain(gold), wanted, prompt.precision), "symbolic"
    return Outcome.WRONG, "number" if wanted is not None else "text"


def read_quantity(text: str) -> Quantity | None:
    """Read a number, also one written as `x = 5` or as the only number of a phrase without formulas.

    >>> read_quantity("x = 5 cm"), read_quantity("It weighs 16.2 kg in total")
    (Quantity(value=5.0, unit='cm'), Quantity(value=16.2, unit=''))
    >>> read_quantity("3 or 4"), read_quantity("2^3")
    (None, None)
    """
    stripped = plain(text)
    for part in (stripped, re.split(r"=|≈|\\approx", stripped)[-1]):
        if (quantity := parse_quantity(part)) is not None:
            return quantity
    found = find_quantities(stripped)
    return parse_quantity(found[0][1]) if len(found) == 1 and not _MATHS.search(stripped) else None


def _outcome(correct: bool) -> Outcome:
    return Outcome.CORRECT if correct else Outcome.WRONG


def _gold_quantity(prompt: Prompt) -> Quantity | None:
    gold = plain(prompt.answer or "")
    quantity = parse_quantity(gold)
    if quantity is None or quantity.unit or not prompt.unit:
        return quantity
    return parse_quantity(f"{gold} {prompt.unit}") or quantity


def _same_list(candidate: str, gold: str) -> bool:
    said, wanted = _items(candidate), _items(gold)
    return len(said) == len(wanted) and all(map(_same_item, said, wanted))


def _same_item(candidate: str, gold: str) -> bool:
    said, wanted = parse_quantity(candidate), parse_quantity(gold)
    if said is None or wanted is None:
        return fold(candidate) == fold(gold)
    return same_quantity(said, wanted)


def _items(text: str) -> list[str]:
    bracketed = re.search(r"[\[({](.*)[\])}]", plain(text), re.DOTALL)
    inside = bracketed[1] if bracketed else plain(text)
    items = (item.strip(" '\"") for item in re.split(r"\s*[,;]\s*(?:and\s+)?|\s+and\s+", inside))
    return [item for item in items if item]


def _is_maths(text: str, quantity: Quantity | None) -> bool:
    stripped = plain(text)
    formula = _MATHS.search(stripped) and re.search(r"[\d\\^√π=]", stripped) and not _WORD.search(stripped)
    return quantity is not None or bool(formula)


def _decide_symbolically(
    candidate: str, gold: str, wanted: Quantity | None, precision: int | None
) -> Outcome:
    if not (is_bounded(candidate) and is_bounded(gold)):
        return Outcome.UNDECIDED
    comparison = symbolic.CHECKER.compare(gold, candidate)
    if comparison is None or comparison.equal is None:
        return Outcome.UNDECIDED
    if comparison.value is not None and wanted is not None:
        return _outcome(comparison.equal or same_quantity(Quantity(comparison.value), wanted, precision))
    return _outcome(comparison.equal)
