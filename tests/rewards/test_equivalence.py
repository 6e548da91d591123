import pytest

from mstar_pl.rewards.equivalence import Outcome, decide, equivalent
from mstar_pl.types import Prompt


def free(answer, answer_type="text", **fields):
    return Prompt(id="1", question="?", answer=answer, answer_type=answer_type, **fields)


def choice(answer, *choices):
    return Prompt(id="1", question="?", answer=answer, choices=choices, question_type="multi_choice")


@pytest.mark.parametrize(
    ("candidate", "prompt", "correct", "rule"),
    [
        ("3", free("3", "integer"), True, "text"),
        ("3.0", free("3", "integer"), True, "number"),
        ("3.4", free("3", "integer"), False, "number"),
        ("three apples", free("3", "integer"), True, "number"),
        ("twenty-one", free("21", "integer"), True, "number"),
        ("$1,234", free("1234", "integer"), True, "number"),
        ("1,23", free("123", "integer"), False, "number"),
        ("x = 3", free("3", "integer"), True, "number"),
        ("3 or 4", free("3", "integer"), False, "number"),
        ("1.26", free("1.3", "float", precision=1), True, "number"),
        ("1.24", free("1.3", "float", precision=1), False, "number"),
        ("1.25", free("1.3", "float", precision=1), True, "number"),
        (r"\frac{1}{2}", free("0.5", "float"), True, "number"),
        ("1 1/2", free("1.5", "float"), True, "number"),
        (r"1\frac{1}{2}", free("1.5", "float"), True, "number"),
        ("11/2", free("5.5", "float"), True, "number"),
        ("11/2", free("1.5", "float"), False, "number"),
        ("13/4", free("3.25", "float"), True, "number"),
        ("25/100", free("0.25", "float"), True, "number"),
        ("3:4", free("3", "integer"), False, "number"),
        ("at 10:30", free("10", "integer"), False, "number"),
        ("1,2,3", free("1", "integer"), False, "number"),
        ("two hundred", free("200", "integer"), True, "number"),
        ("two hundred", free("2", "integer"), False, "number"),
        ("Twenty five apples", free("25", "integer"), True, "number"),
        ("twenty five", free("20", "integer"), False, "number"),
        ("2 million", free("2000000", "integer"), True, "number"),
        ("2 million", free("2", "integer"), True, "number"),
        ("3 and a half", free("3", "integer"), False, "number"),
        ("3 pi", free("3", "integer"), False, "symbolic"),
        ("minus 5", free("-5", "integer"), True, "number"),
        ("negative five", free("5", "integer"), False, "number"),
        ("It is negative five", free("5", "integer"), False, "number"),
        (r"1.5 \times 10^{3}", free("1500", "float"), True, "number"),
        ("45%", free("45", "integer"), True, "number"),
        ("45%", free("0.45", "float"), True, "number"),
        ("5%", free("500%"), False, "number"),
        ("16.2", free("16.2 kg"), True, "number"),
        ("16200 g", free("16.2 kg"), True, "number"),
        ("16.2 g", free("16.2 kg"), False, "number"),
        ("2 kg", free("2", "integer", unit="g"), False, "number"),
        ("5 years old", free("5", "integer", unit="years"), True, "number"),
        ("The Ada  Lovelace.", free("ada lovelace"), True, "text"),
        ("Ada", free("Ada Lovelace"), False, "text"),
        ("[2014,2016]", free("[2014, 2016]", "list"), True, "list"),
        ("2014 and 2016", free("[2014, 2016]", "list"), True, "list"),
        ("[2016, 2014]", free("[2014, 2016]", "list"), False, "list"),
        ("[2014]", free("[2014, 2016]", "list"), False, "list"),
        (r"\frac{\sqrt{12}}{2}", free(r"\sqrt{3}"), True, "symbolic"),
        (r"\sqrt{2}", free(r"\sqrt{3}"), False, "symbolic"),
        (r"\sqrt{3}", free("1.73", "float", precision=2), True, "symbolic"),
        ("2014-2016", free("2016-2018"), False, "text"),
        # options
        ("(B)", choice("b-text", "a-text", "b-text"), True, "choice"),
        ("B.", choice("b-text", "a-text", "b-text"), True, "choice"),
        ("B) a-text", choice("b-text", "a-text", "b-text"), True, "choice"),
        ("a-text", choice("b-text", "a-text", "b-text"), False, "choice"),
        ("(A) or (B)", choice("x", "x", "y"), False, "text"),
        ("A, B", choice("x", "x", "y"), False, "text"),
        ("C", choice("same", "same", "other", "same"), True, "choice"),
        ("E", choice("E", "D", "E"), True, "choice"),
        ("B", choice("A", "B", "A"), True, "choice"),
        ("b", choice("b", "b", "a"), True, "choice"),
        ("45", choice("45°", "30°", "45°"), True, "choice"),
        (r"$10\sqrt{3}$", choice(r"10 \sqrt { 3 }", "10", r"10 \sqrt { 3 }"), True, "choice"),
        (r"\sqrt{300}", choice(r"10 \sqrt { 3 }", "10", r"10 \sqrt { 3 }"), True, "symbolic"),
    ],
)
def test_rules(candidate, prompt, correct, rule):
    outcome, decided_by = decide(candidate, prompt)
    assert outcome == ("correct" if correct else "wrong")
    assert decided_by == rule or (correct and decided_by in ("text", "number", "choice"))


def test_an_unlabelled_prompt_is_undecided_and_never_wrong():
    assert decide("3", free(None)) == (Outcome.UNDECIDED, "unlabelled")


def test_every_option_is_recognised_by_letter_and_text_and_only_the_gold_is_correct():
    choices = ("30°", "a cat", "Yes", r"\frac{1}{2}", "12.5 kg", "none of these")
    for gold in choices:
        prompt = choice(gold, *choices)
        for index, text in enumerate(choices):
            name = "ABCDEF"[index]
            for form in (
                name,
                f"({name})",
                f"{name}.",
                f"**{name}**",
                f"({name}) {text}",
                text,
                f"**{text}**",
            ):
                assert (equivalent(form, prompt) == "correct") == (text == gold), (form, gold)


def test_numbers_equal_themselves_in_every_notation_and_differ_from_their_successor():
    for number in (0, 7, 12, 1234, -5, 1000000):
        prompt = free(str(number), "integer")
        for form in (
            str(number),
            f"{number:,}",
            f"**{number}**",
            f"${number}$",
            f"{number}.0",
            f"x = {number}",
        ):
            assert equivalent(form, prompt) == "correct", form
        assert equivalent(str(number + 1), prompt) == "wrong"
