"""Checking responses against gold answers: from text to `Grade`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from mstar_pl.data.format import letter
from mstar_pl.rewards.choices import name_choice
from mstar_pl.rewards.equivalence import Outcome, decide, equivalent, read_quantity
from mstar_pl.rewards.extraction import extract_answer
from mstar_pl.rewards.official.mathvista import MathVistaRule, normalize_extraction, score
from mstar_pl.types import Prompt

Rules = Literal["default", "mathvista", "mathvista-2023"]
RULES: tuple[str, ...] = get_args(Rules)

__all__ = ["RULES", "Grade", "Outcome", "Rules", "equivalent", "extract_answer", "grade", "grade_extraction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What the checker found.

    Attributes:
        outcome: `correct`, `wrong` or `undecided`.
        extraction: The answer found in the response, or None.
        prediction: What was compared with the gold answer, e.g. the text of the chosen option; None if there
            is nothing.
        rule: Name of the rule that decided, e.g. `choice`, `number`, `symbolic`, `no answer`, `mathvista`.
    """

    outcome: Outcome
    extraction: str | None
    prediction: str | None
    rule: str


def grade(response: str, prompt: Prompt, rules: str = "default") -> Grade:
    r"""Extract the answer of a response and compare it with the gold answer.

    Args:
        response: The text of the response.
        prompt: The prompt it answers.
        rules: `default`; or `mathvista` or `mathvista-2023`, the official MathVista comparison with its
            current or its former integer rule. MathVista extracts with a language model; here its rules
            follow `extract_answer` on the whole response, run-on included, and where that finds nothing the
            response itself is compared, as happens to a refusal in the official pipeline.

    >>> prompt = Prompt(id="1", question="1+1?", answer="2", answer_type="integer")
    >>> grade("One and one make two.\n\n# Answer\n\n2", prompt).outcome.value
    'correct'
    >>> grade("I do not know.", prompt)
    Grade(outcome=<Outcome.WRONG: 'wrong'>, extraction=None, prediction=None, rule='no answer')
    """
    _check_rules(rules)
    official = rules != "default"
    extraction = extract_answer(response, prompt, cut_run_on=not official)
    if prompt.answer is None:
        return Grade(outcome=Outcome.UNDECIDED, extraction=extraction, prediction=None, rule="unlabelled")
    if official:
        found = response if extraction is None else _official_form(extraction, prompt)
        return replace(grade_extraction(found, prompt, rules), extraction=extraction)
    if extraction is None:
        return Grade(outcome=Outcome.WRONG, extraction=None, prediction=None, rule="no answer")
    return grade_extraction(extraction, prompt, rules)


def grade_extraction(extraction: str, prompt: Prompt, rules: str = "default") -> Grade:
    """Compare an answer that was extracted already, e.g. by a language model, with the gold answer.

    >>> prompt = Prompt(id="1", question="?", answer="77", answer_type="integer")
    >>> [grade_extraction("77.78", prompt, rules).outcome.value for rules in RULES]
    ['wrong', 'correct', 'wrong']
    """
    _check_rules(rules)
    if rules == "default":
        outcome, rule = decide(extraction, prompt)
        index = name_choice(extraction, prompt.choices or ())
        prediction = extraction if index is None else (prompt.choices or ())[index]
        return Grade(outcome=outcome, extraction=extraction, prediction=prediction, rule=rule)
    version: MathVistaRule = "2023" if rules == "mathvista-2023" else "current"
    prediction_or_none = normalize_extraction(extraction, prompt, version)
    outcome = Outcome.CORRECT if score(prediction_or_none, prompt) else Outcome.WRONG
    outcome = Outcome.UNDECIDED if prompt.answer is None else outcome
    return Grade(outcome=outcome, extraction=extraction, prediction=prediction_or_none, rule=rules)


def _check_rules(rules: str) -> None:
    if rules not in RULES:
        raise ValueError(f"rules {rules!r} is not one of {', '.join(RULES)}")


def _official_form(extraction: str, prompt: Prompt) -> str:
    """Return the extraction as MathVista's extractor is told to give it: a letter or a bare number."""
    if prompt.question_type == "multi_choice":
        index = name_choice(extraction, prompt.choices or ())
        return extraction if index is None else letter(index)
    quantity = read_quantity(extraction) if prompt.answer_type in ("integer", "float") else None
    if quantity is None:
        return extraction
    return str(int(quantity.value)) if quantity.value.is_integer() else repr(quantity.value)
