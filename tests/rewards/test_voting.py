"""Votes by hand and against a naive reading; answers that vote together are graded alike."""

import random
from itertools import product

import pytest

from mstar_pl.rewards.equivalence import equivalent
from mstar_pl.rewards.voting import answer_key, majority, weighted_vote
from mstar_pl.types import Prompt


def make(answer_type="text", **fields):
    return Prompt(id="p", question="?", answer_type=answer_type, **fields)


CHOICE = make(question_type="multi_choice", choices=("3", "Red car", "b"))


@pytest.mark.parametrize(
    ("prompt", "alike"),
    [
        (make("integer"), ("3", "3.0", "3.00", "**3**", "three", "about 3 cars", "x = 3", "6/2")),
        (make("integer"), ("1200", "1,200", r"1.2 \times 10^3")),
        (make("integer"), ("0", "-0", "0.0")),
        (make("float"), ("1/3", "0.333333", r"\frac{1}{3}")),
        (make("float", precision=1), ("0.3", "1/3", "0.34", "0.30")),
        (make("float", precision=2), ("1234567.89", "1,234,567.891")),
        (make("float", precision=0), ("-0.2", "0.3")),
        (make("float", unit="kg"), ("3", "3 kg", "3.0 kilograms")),
        (make("float", unit="%"), ("45", "45%", "45 percent")),
        (make(), ("Room 3", "the room  3.", "ROOM\n3")),
        (make(), ("5 cm", "5.0 centimeters")),
        (make("list"), ("[1, 2]", "[1,2]", "1, 2")),
        (CHOICE, ("A", "3", "(A) 3", "three", "It is option A")),
        (CHOICE, ("B", "red car.", "The Red  Car")),
        (CHOICE, ("neither", "Neither.")),
    ],
)
def test_equal_answers_share_a_key(prompt, alike):
    keys = {answer_key(text, prompt) for text in alike}
    assert len(keys) == 1
    assert None not in keys


@pytest.mark.parametrize(
    ("prompt", "different"),
    [
        (make("integer"), ("3", "4", "-3", "3000000", "3000001", "5%", "5")),
        (make("float", precision=1), ("0.3", "0.36", "3")),
        (make("float", unit="kg"), ("3", "3 g", "3 tons")),
        (make(), ("Room 3", "Group 3", "3", "3 m", "2^3")),
        (make("list"), ("[1, 2]", "[2, 1]", "[1, 2, 3]")),
        (CHOICE, ("A", "B", "C", "D")),
    ],
)
def test_different_answers_do_not(prompt, different):
    assert len({answer_key(text, prompt) for text in different}) == len(different)


@pytest.mark.parametrize("nothing", [None, "", " ", "...", "**"])
@pytest.mark.parametrize("prompt", [make(), make("integer"), make("list"), CHOICE])
def test_nothing_said_has_no_key(nothing, prompt):
    assert answer_key(nothing, prompt) is None


SAID = (
    "3", "3.0", "(3)", "3 kg", "3000 g", "3 g", "three", "Three.", "x = 3", "3 cars", "about 3", "3.04",
    "3.4", "-3", "1/3", "0.333333", "0.33", "Red", "the red", "(A)", "B", "blue", "Red or blue", "[3]",
    "[3, 4]", "3, 4", "3 or 4", "room 3", "group 3", "3%", "0.03", "3:1", "1,000", "1000", "1e3",
)  # fmt: skip


@pytest.mark.parametrize(
    "prompt",
    [make(kind, answer="3", unit=unit, precision=precision)
     for kind, unit, precision in product(("integer", "float", "text"), (None, "kg"), (None, 0, 1))]
    + [make("text", answer=gold) for gold in ("Red", "Room 3", "3 kg", "3%", "3:1")]
    + [make("float", answer="0.03"), make("list", answer="[3, 4]")]
    + [make(question_type="multi_choice", choices=("Red", "Blue"), answer="Red"),
       make(question_type="multi_choice", choices=("3", "4"), answer="3")],
)  # fmt: skip
def test_one_key_one_outcome(prompt):
    """The vote is judged by one sample with the winning key, so the others must be graded like it."""
    outcomes = {}
    for text in SAID:
        outcomes.setdefault(answer_key(text, prompt), {})[text] = equivalent(text, prompt)
    assert [said for key, said in outcomes.items() if key is not None and len(set(said.values())) > 1] == []


def test_the_gold_answer_is_not_looked_at():
    for text in SAID:
        assert answer_key(text, make("float", answer="3")) == answer_key(text, make("float"))


def naive_vote(keys, weights):
    best, most = None, None
    for key in keys:
        total = sum(weight for other, weight in zip(keys, weights, strict=True) if other == key)
        if key is not None and (most is None or total > most):
            best, most = key, total
    return best


def test_votes_against_a_naive_reading():
    rng = random.Random(0)
    for _ in range(500):
        number = rng.randint(0, 8)
        keys = [rng.choice(["a", "b", "c", None]) for _ in range(number)]
        weights = [rng.choice([0.0, 0.25, 0.5, 1.0]) for _ in range(number)]
        assert weighted_vote(keys, weights) == naive_vote(keys, weights)
        assert majority(keys) == naive_vote(keys, [1.0] * number) == weighted_vote(keys, [0.5] * number)


def test_ties_and_zero_weights_go_to_the_first():
    assert weighted_vote([None, "b", "a"], [1.0, 0.0, 0.0]) == "b"
    assert weighted_vote(["a", "b", "b"], [1.0, 0.5, 0.5]) == "a"


@pytest.mark.parametrize(
    "call",
    [
        lambda: weighted_vote(["a", "b"], [1.0]),
        lambda: weighted_vote(["a", "b"], [1.0, float("nan")]),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError, match=r"finite|shorter"):
        call()
