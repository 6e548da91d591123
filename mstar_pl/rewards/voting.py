"""Votes among the samples of one prompt: which answer is theirs? (standard library only).

The PRM-weighted vote gives unlabelled prompts their pseudo answer (arXiv 2412.17451, section 5); beside the
plain majority and best-of-N it also measures the process reward model as a verifier. Samples are compared by
`answer_key`; a sample without a key does not vote, and equal votes are decided by the order of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mstar_pl.rewards.choices import find_choice
from mstar_pl.rewards.equivalence import read_quantity
from mstar_pl.rewards.markup import fold, plain
from mstar_pl.rewards.quantity import Quantity, parse_quantity
from mstar_pl.types import Prompt


def answer_key(extraction: str | None, prompt: Prompt) -> str | None:
    """Return a text that is the same for equal answers to the prompt, or None for no answer.

    What `mstar_pl.rewards.equivalence.decide` does against a gold answer, without looking at it: the text of
    the chosen option; else a canonical number (see `number_key`); else the case-folded text without spaces.
    Where equality depends on the gold answer, as of `5%` and `0.05`, answers keep apart.

    Args:
        extraction: The answer found in a response, as in `Score.extraction`.
        prompt: The prompt; its gold answer is not used.

    >>> count = Prompt(id="1", question="How many?", answer_type="float", unit="kg")
    >>> [answer_key(text, count) for text in ("3", "3.00 kg", "about three", "1/3", "3000 g", None)]
    ['3', '3', '3', '0.333333', '3000 g', None]
    >>> choice = Prompt(id="2", question="?", question_type="multi_choice", choices=("Red", "Blue"))
    >>> [answer_key(text, choice) for text in ("(B)", "blue.", "It is option A", "Dark  GREEN")]
    ['Blue', 'Blue', 'Red', 'darkgreen']
    """
    if extraction is None:
        return None
    choices = prompt.choices or ()
    if prompt.question_type == "multi_choice" and (index := find_choice(extraction, choices)) is not None:
        return choices[index]
    # A text may hold a number without being one ("Room 3"), so there the whole must be a number.
    reads_inside = prompt.answer_type in ("integer", "float")
    quantity = read_quantity(extraction) if reads_inside else parse_quantity(plain(extraction))
    if prompt.answer_type != "list" and quantity is not None and math.isfinite(quantity.value):
        return number_key(quantity, prompt)
    return "".join(fold(extraction).split()) or None


def number_key(quantity: Quantity, prompt: Prompt) -> str:
    """Return a number as text: whole, or rounded to the prompt's precision, else to six significant digits.

    The unit is dropped if it is the prompt's, or if the prompt wants a number and names none; any other unit,
    and `%`, stays, for the number may then mean something else.

    >>> prompt = Prompt(id="1", question="?", answer_type="float", precision=1)
    >>> number_key(Quantity(2.96, "cm"), prompt), number_key(Quantity(3.04), prompt)
    ('3', '3')
    >>> number_key(Quantity(5.0, "%"), prompt), number_key(Quantity(5.25), prompt)
    ('5 %', '5.2')
    """
    value = quantity.value if prompt.precision is None else round(quantity.value, prompt.precision)
    if math.isclose(value, round(value), rel_tol=1e-12):
        number = str(round(value))
    else:
        number = f"{value:.6g}" if prompt.precision is None else repr(value)
    wanted = parse_quantity(f"1 {prompt.unit}") if prompt.unit else None
    expected = wanted is not None and quantity.unit == wanted.unit
    ignored = not prompt.unit and prompt.answer_type in ("integer", "float") and quantity.unit != "%"
    return number if expected or ignored or not quantity.unit else f"{number} {quantity.unit}"


def majority(keys: Sequence[str | None]) -> str | None:
    """Return the key that most samples have, or None if none has one.

    >>> majority(["a", None, "b", "b", None, None]), majority(["b", "a", "a", "b"]), majority([None])
    ('b', 'b', None)
    """
    return weighted_vote(keys, [1.0] * len(keys))


def weighted_vote(keys: Sequence[str | None], weights: Sequence[float]) -> str | None:
    """Return the key with the largest sum of weights, or None if no sample has one.

    Args:
        keys: One key a sample; None does not vote.
        weights: One weight a sample, e.g. its process reward in [0, 1].

    >>> weighted_vote(["a", "b", "b", None], [0.9, 0.5, 0.5, 5.0]), weighted_vote(["a", "b"], [0.5, 0.5])
    ('b', 'a')
    """
    if not all(map(math.isfinite, weights)):
        raise ValueError("a weight is not finite; leave the sample out")
    sums: dict[str, float] = {}
    for key, weight in zip(keys, weights, strict=True):
        if key is not None:
            sums[key] = sums.get(key, 0.0) + weight
    return max(sums, key=sums.__getitem__, default=None)  # the first of equal ones, in order of occurrence
