"""How a prompt is written as text, and how a response is split into steps and answer.

A response is a chain of thought whose steps are separated by a blank line, ended by `# Answer` and the answer
(M-STAR, arXiv 2412.17451, section 2; the same delimiter as PRM800K).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mstar_pl.types import Prompt

STEP_SEPARATOR = "\n\n"
ANSWER_HEADING = "# Answer"
# `# Answer`, and other forms that models write.
_HEADING = re.compile(r"^[ \t]*#+[ \t]*(?:final[ \t]+)?answer[ \t]*:?[ \t]*", re.IGNORECASE | re.MULTILINE)

QuestionStyle = Literal["mathvista", "plain"]

ANSWER_CONDITION = (
    "Offer a comprehensive breakdown of your analytical process, detailing each step, the reasoning behind "
    "your decisions, and how you integrated various pieces of information, and put your answer at the end."
)
"""Instruction of the warm-up stage: explain a given answer (arXiv 2412.17451)."""


def split_steps(response: str) -> list[str]:
    r"""Split a response into its steps; the answer with its heading is the last element.

    A heading of another form (`### Answer: 6`) is written as `# Answer`.

    >>> split_steps("4 red.\n\n2 blue.\n\n# Answer\n\n6")
    ['4 red.', '2 blue.', '# Answer\n\n6']
    """
    body, answer = split_answer(response)
    steps = [step.strip() for step in body.split(STEP_SEPARATOR) if step.strip()]
    return steps + ([] if answer is None else [f"{ANSWER_HEADING}{STEP_SEPARATOR}{answer}"])


def final_answer(response: str) -> str:
    r"""Return what a response says behind its last `# Answer`, or all of it where it has no such heading.

    >>> final_answer("It is 4.\n\n## Answer: B\n"), final_answer("B")
    ('B', 'B')
    """
    body, answer = split_answer(response)
    return body.strip() if answer is None else answer


def split_answer(response: str) -> tuple[str, str | None]:
    r"""Return what stands before the last heading of an answer, and the answer; all and None without one.

    >>> split_answer("It is 4.\n\n## Answer: B\n"), split_answer("B")
    (('It is 4.\n\n', 'B'), ('B', None))
    """
    headings = list(_HEADING.finditer(response))
    if not headings:
        return response, None
    return response[: headings[-1].start()], response[headings[-1].end() :].strip()


def join_steps(steps: list[str]) -> str:
    """Join steps into a response; the inverse of `split_steps` but for blanks and another form of heading."""
    return STEP_SEPARATOR.join(steps)


def beginning(steps: Sequence[str], count: int) -> str:
    r"""Return the first steps as the beginning of a response that goes on.

    >>> beginning(["4 red.", "2 blue.", "Add: 4 + 2 = 6."], 2)
    '4 red.\n\n2 blue.\n\n'
    """
    return join_steps(list(steps[:count])) + STEP_SEPARATOR


def letter(index: int) -> str:
    """Return the option letter of a choice.

    >>> letter(0), letter(3)
    ('A', 'D')
    """
    return chr(ord("A") + index)


def written_answer(prompt: Prompt) -> str:
    """Return the gold answer as a response gives it: the letter of an option, otherwise the answer.

    Raises:
        ValueError: The prompt has no answer.

    >>> options = {"choices": ("a", "b"), "question_type": "multi_choice"}
    >>> written_answer(Prompt(id="1", question="Which?", answer="b", **options))
    'B'
    """
    if prompt.answer is None:
        raise ValueError(f"prompt {prompt.id!r} has no answer")
    return letter(prompt.choices.index(prompt.answer)) if prompt.choices else prompt.answer


def render_question(prompt: Prompt, style: QuestionStyle = "mathvista") -> str:
    r"""Write the question of a prompt as text for the user turn, without image placeholders.

    A `query`, where the prompt has one, is that text, whatever the style.

    Args:
        prompt: The prompt.
        style: `mathvista` gives the released MathVista query (hint, question, choices); `plain` leaves the
            hint out, for small models whose context is short.

    >>> print(render_question(Prompt(id="1", question="How many?", unit="g", answer_type="integer"), "plain"))
    How many? (Unit: g)
    >>> which = Prompt(id="1", question="Which?", choices=("a", "b"), question_type="multi_choice")
    >>> print(render_question(which, "plain"))
    Which?
    Choices:
    (A) a
    (B) b
    >>> render_question(Prompt(id="1", question="How many?", query="How many? Answer in one word."))
    'How many? Answer in one word.'
    """
    if prompt.query is not None:
        return prompt.query
    question = f"{prompt.question} (Unit: {prompt.unit})" if prompt.unit else prompt.question
    if prompt.choices:
        options = (f"({letter(index)}) {choice}" for index, choice in enumerate(prompt.choices))
        question = "\n".join([question, "Choices:", *options])
    return question if style == "plain" else f"Hint: {_hint(prompt)}\nQuestion: {question}"


def render_answer_conditioned(
    prompt: Prompt, style: QuestionStyle, instruction: str = ANSWER_CONDITION
) -> str:
    r"""Write a question together with its gold answer and the instruction to explain it (the warm-up stage).

    Raises:
        ValueError: The prompt has no answer.

    >>> options = {"choices": ("a", "b"), "question_type": "multi_choice"}
    >>> prompt = Prompt(id="1", question="Which?", answer="b", **options)
    >>> print(render_answer_conditioned(prompt, "plain", "Explain the answer."))
    Which?
    Choices:
    (A) a
    (B) b
    Answer: B
    Explain the answer.
    """
    return f"{render_question(prompt, style)}\nAnswer: {written_answer(prompt)}\n{instruction}"


def _hint(prompt: Prompt) -> str:
    """Return MathVista's hint for the question's type (`create_one_query` in its repository)."""
    if prompt.question_type == "multi_choice":
        return (
            "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
        )
    forms = {
        "integer": ("an integer answer", "value, e.g., 1, 2, 3"),
        "float": ("a floating-point number with two decimal places", "value, e.g., 1.23, 1.34, 1.45"),
        "list": ("a Python list as an answer", "list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]"),
    }
    if prompt.answer_type == "float" and prompt.precision == 1:
        forms["float"] = ("a floating-point number with one decimal place", "value, e.g., 1.2, 1.3, 1.4")
    if prompt.answer_type not in forms:
        return "Please answer the question and provide the final answer at the end."
    what, final = forms[prompt.answer_type]
    return f"Please answer the question requiring {what} and provide the final {final}, at the end."
