import pytest

from mstar_pl.rewards.extraction import cut_next_turn, extract_answer
from mstar_pl.types import Prompt

COLOURS = Prompt(
    id="mc",
    question="Which?",
    choices=("red", "dark red", "blue"),
    question_type="multi_choice",
    answer="blue",
)
ANGLES = Prompt(
    id="deg", question="Find x.", choices=("30°", "45°", "60°"), question_type="multi_choice", answer="45°"
)
YES_NO = Prompt(
    id="yn",
    question="Are there fewer cars than buses?",
    choices=("Yes", "No"),
    question_type="multi_choice",
    answer="Yes",
)
COUNT = Prompt(id="n", question="How many bars are below 40?", answer_type="integer", answer="3")
REAL = Prompt(id="f", question="How long?", answer_type="float", precision=1, answer="2.5")
TEXT = Prompt(id="t", question="Who?", answer="Ada Lovelace")
YEARS = Prompt(id="l", question="Which years?", answer_type="list", answer="[2014, 2016]")


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        # headings: the last one counts
        (COLOURS, "Step.\n\n# Answer\n\nC", "C"),
        (COLOURS, "# Answer\n\nA\n\nWait.\n\n# Answer\n\n(B) dark red", "B"),
        (COLOURS, "# Answer\n\n**blue**", "C"),
        (COLOURS, "# Answer\n\ndark red", "B"),
        (COUNT, "There are 9.\n\n# Answer\n\n3 bars", "3 bars"),
        (TEXT, "## Final Answer:\n\nAda Lovelace.", "Ada Lovelace"),
        (REAL, "# Answer\n\nThe answer is 2.5 m.", "2.5 m"),
        (COUNT, "I count 3.\n\n# Answer\n\n", None),
        # boxes
        (COUNT, r"so \boxed{2} and thus $\boxed{3}$.", "3"),
        (ANGLES, r"Thus \boxed{45^\circ}.", "B"),
        (COLOURS, r"\boxed{\text{C}}", "C"),
        # phrases
        (COLOURS, "The answer is (C). Option (A) is wrong.", "C"),
        (COLOURS, "First I thought the answer is A. The correct answer is **B**.", "B"),
        (COLOURS, "Answer: C) blue", "C"),
        (ANGLES, "So the final answer is $45^\\circ$.", "B"),
        (COUNT, "The answer is 1,234.", "1,234"),
        (COUNT, "The final integer value is:\n47", "47"),
        (REAL, "The answer is d = 5 / 2 = 2.5 m.", "2.5 m"),
        (COLOURS, "所以答案是:C", "C"),
        # options without a phrase
        (COLOURS, "(C) because it is the sky", "C"),
        (COLOURS, "B. dark red", "B"),
        (COLOURS, "C", "C"),
        (COLOURS, "The car is dark red.", "B"),
        (COLOURS, "The car is red or blue.", None),
        (ANGLES, "Since the sum is fixed, x is 60.0 degrees.", "C"),
        (YES_NO, "No, there are as many.", "B"),
        (YES_NO, "Based on the image, there are fewer cars than buses.", "A"),
        (YES_NO, "There are more cars than buses.", "B"),
        (YES_NO, "There are more buses than cars.", "A"),
        # numbers without a phrase
        (COUNT, "There are three bars with values below 40.", "three"),
        (COUNT, "The values sum to 5 + 7 = 12.", "12"),
        (COUNT, "The smallest is **7**. The others are 8 and 9.", "7"),
        (YEARS, "These are [2014, 2016].", "[2014, 2016]"),
        # refusals
        (COUNT, "As an AI, I cannot view the 2 images.", None),
        (COLOURS, "There is not enough information to tell red from blue.", None),
        (COUNT, "I cannot determine it exactly. Therefore, I estimate 4.", "4"),
        (COUNT, "", None),
        (COLOURS, "   \n", None),
    ],
)
def test_answers_are_found(prompt, response, expected):
    assert extract_answer(response, prompt) == expected


def test_gold_answer_does_not_influence_extraction():
    unlabelled = Prompt(id="n", question=COUNT.question, answer_type="integer")
    for response in ("There are 5 of them, or 3.", "# Answer\n\n3", "four"):
        assert extract_answer(response, unlabelled) == extract_answer(response, COUNT)


@pytest.mark.parametrize("turn", ["Question:", "Human:", "## Question 2:", "User:"])
def test_a_run_on_is_cut_unless_told_otherwise(turn):
    response = f"The answer is B.\n\n{turn} What is red?\n\nThe answer is A."
    assert extract_answer(response, COLOURS) == "B"
    assert extract_answer(response, COLOURS, cut_run_on=False) == "A"


def test_a_response_that_opens_with_a_question_is_not_cut_to_nothing():
    assert cut_next_turn("\nQuestion: repeated?\nThe answer is B.").endswith("B.")


@pytest.mark.parametrize(
    "junk", ["(" * 5000, "# " * 5000, "\\boxed{" * 300, "1," * 5000, "a " * 5000, "**" * 5000]
)
@pytest.mark.timeout(20)
def test_hostile_text_takes_no_exponential_time(junk):
    for prompt in (COLOURS, COUNT, TEXT, YEARS):
        extract_answer(junk, prompt)
