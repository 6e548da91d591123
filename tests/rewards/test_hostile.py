"""The verifier against responses as no model should write them; `bin/fuzz-verifier` runs more of them."""

import resource
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mstar_pl.rewards import symbolic
from mstar_pl.rewards.answer import RULES, Outcome, equivalent, extract_answer, grade
from mstar_pl.rewards.extraction import last_boxed
from mstar_pl.types import Prompt
from tests.rewards.hostile import BOMBS, fuzz, prompts

MATHS = Prompt(id="1", question="?", answer=r"\frac{5}{2} x")


@pytest.mark.timeout(300)
def test_hostile_responses_are_graded_without_exception_or_growth():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = fuzz(1000, seed=1, limit_s=20)
    assert found.raised == []
    assert found.slow == []
    assert {"correct", "wrong", "undecided"} <= found.outcomes.keys()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000, "KiB"
    assert not list(Path.cwd().glob("hacked*")), "nothing was executed"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("text", [".," * 3900, "1" + " .," * 2500, "3" + " " * 7000 + "or"])
def test_text_that_leads_a_search_astray_is_graded_in_time(text, rules):
    """Found by the fuzzer: the first took hours."""
    for prompt in prompts():
        assert grade(f"So. {text}", prompt, rules).outcome != Outcome.CORRECT


LARGE = [
    *BOMBS[: BOMBS.index("\\sqrt{" * 500 + "2" + "}" * 500)],
    "9^{(9)^9}",
    "e^{e^{e^{9}}}",
    "((9^{999})^{999})^{999}",
]
USUAL = (
    (r"\frac{\gamma}{2}", r"\frac{1}{2}\gamma"),
    ("x^2e^{x}", "e^{x}x^2"),
    ("5e^{-200t}", "5e^{-200t}"),
    ("x^{100}", "x^{100}"),
    ("4^{1012}", "2^{2024}"),
    (r"\binom{5}{2}", "10"),
    ("(-1)^{2023}", "-1"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\sqrt[3]{27}", "3"),
)


@pytest.mark.parametrize("bomb", LARGE)
def test_bombs_do_not_reach_the_algebra_system(bomb, monkeypatch):
    asked = []
    monkeypatch.setattr(symbolic.CHECKER, "compare", lambda *texts: asked.append(texts))
    assert grade(f"# Answer\n\n{bomb}", MATHS).outcome in (Outcome.UNDECIDED, Outcome.WRONG)
    assert not asked


@pytest.mark.parametrize(("gold", "same"), USUAL)
def test_usual_expressions_are_decided(gold, same):
    prompt = Prompt(id="1", question="?", answer=gold)
    assert grade(f"# Answer\n\n${same}$", prompt).outcome == Outcome.CORRECT
    assert grade(f"# Answer\n\n${same} + 7$", prompt).outcome == Outcome.WRONG


@pytest.mark.parametrize("filler", ["What is 7 + 7?\n\nThe answer is 14. ", "Is it so? "])
def test_what_a_long_response_poses_itself_is_not_its_answer(filler):
    prompt = Prompt(id="1", question="How many?", answer="12", answer_type="integer")
    assert grade(f"The answer is 12.\n\nQuestion: {filler * 2000}", prompt).outcome == Outcome.CORRECT
    options = {"choices": ("red", "blue"), "question_type": "multi_choice"}
    prompt = Prompt(id="1", question="Which?", answer="blue", **options)
    assert grade(f"B. {'It looks like that. ' * 1000}", prompt).outcome == Outcome.CORRECT


def test_a_long_response_is_graded_like_a_short_one():
    thinking = "Let me look again. " * 20_000
    prompt = Prompt(id="1", question="How many?", answer="12", answer_type="integer")
    assert grade(f"{thinking}\n\n# Answer\n\n12", prompt).outcome == Outcome.CORRECT
    assert grade(f"{thinking}I count 12 of them.", prompt).outcome == Outcome.CORRECT
    assert grade(f"I count 12 of them. {thinking}", prompt).outcome == Outcome.WRONG, (
        "only the end is searched"
    )


def test_grading_works_off_the_main_thread():
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(grade("# Answer\n\n$2.5 x$", MATHS).outcome))
    thread.start()
    thread.join()
    assert outcomes == [Outcome.CORRECT]


def boxed_by_definition(text):
    """The last start whose brace closes, by trying each."""
    for start in range(len(text) - 1, -1, -1):
        if text.startswith("\\boxed{", start):
            depth, begin = 1, start + len("\\boxed{")
            for end in range(begin, len(text)):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                if depth == 0:
                    return text[begin:end]
    return None


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "1", "\\frac"]), max_size=14).map("".join))
def test_the_last_box_is_found_by_its_definition(text):
    assert last_boxed(text) == boxed_by_definition(text)


@given(st.text(max_size=200), st.sampled_from(prompts()), st.sampled_from(RULES))
def test_any_text_is_graded_the_same_twice(text, prompt, rules):
    assert grade(text, prompt, rules) == grade(text, prompt, rules)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz ", min_size=1, max_size=30).filter(str.strip)
NUMBERS = st.integers(-(10**9), 10**9).map(str) | st.decimals(-(10**6), 10**6, places=3).map(str)


@given(WORDS | NUMBERS)
def test_an_answer_is_equivalent_to_itself(answer):
    prompt = Prompt(id="1", question="?", answer=answer)
    assert equivalent(answer, prompt) == Outcome.CORRECT
    assert equivalent(f"  **{answer}** ", prompt) == Outcome.CORRECT


@given(NUMBERS, NUMBERS)
def test_numbers_are_equivalent_if_they_are_equal(first, second):
    prompt = Prompt(id="1", question="?", answer=second, answer_type="float")
    equal = abs(float(first) - float(second)) <= 1e-6 * max(abs(float(first)), abs(float(second)))
    assert (equivalent(first, prompt) == Outcome.CORRECT) == equal


@given(NUMBERS, st.sampled_from(["So.\n\n# Answer\n\n{}", r"So \boxed{{{}}}.", "So the answer is {}."]))
def test_a_number_is_extracted_from_every_ending(number, ending):
    prompt = Prompt(id="1", question="How much?", answer=number, answer_type="float")
    assert extract_answer(ending.format(number), prompt) == number
    assert grade(ending.format(number), prompt).outcome == Outcome.CORRECT
