"""Answers in running text that announces none: numbers, options and yes/no statements."""

from __future__ import annotations

import re

from mstar_pl.data.format import letter
from mstar_pl.rewards.choices import find_choice, find_opening
from mstar_pl.rewards.markup import fold, plain
from mstar_pl.rewards.quantity import find_quantities, parse_quantity
from mstar_pl.rewards.restatement import affirms
from mstar_pl.types import Prompt

MAX_READ = 8_000
"""Characters of running text in which an answer that nothing announces is looked for."""

_SENTENCE_END = re.compile(
    r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\be\.g\.)(?<!\bi\.e\.)[*\"')]*\s+(?=[A-Z*(])|\n\s*\n|\n"
)
_EMPHASIS = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*")
_CONCLUSION = re.compile(
    r"^\W*(?:therefore|thus|hence|so|in conclusion|as a result|因此|所以)\b", re.IGNORECASE
)
_COUNT = re.compile(
    r"\b(?:there\s+(?:is|are|was|were|(?:will|would)\s+be)|has|have|had|shows?|see|count)\s+"
    r"(?:only\s+|a\s+total\s+of\s+|exactly\s+)?$",
    re.IGNORECASE,
)
# Each part begins with what the one before it cannot end with: no text makes it look twice.
_ALTERNATIVE = re.compile(r"\W*\d(?:[\d.,]*\d)?\W*(?<=\s)or\s\W*\d")
_REFUSAL = re.compile(
    r"\b(?:can(?:not|'t| not)|unable to|(?:im|not )possible to|do(?:es)?(?: not|n't)|not|without|"
    r"insufficient|lack)\s+(?:\w+\s+){0,4}?(?:enough|sufficient|determin\w+|definitive\w*|conclusively|information|details|"
    r"context|answer\w*|view|see|select\w*)\b"
    r"|\bnone of the (?:options|choices|given)"
    r"|\b(?:not|isn't) (?:\w+ ){0,2}?(?:listed|available|among|provided|one of)\b"
    r"|\b(?:question|text) (?:is|seems(?: to be)?) (?:\w+ )?"
    r"(?:incomplete|unclear|ambiguous|not clear|nonsensical)"
    r"|\bas an ai\b|\bi'm sorry\b|\bi can't\b|\bunfortunately\b|\bplease provide\b",
    re.IGNORECASE,
)


def answer_in_prose(text: str, prompt: Prompt) -> str | None:
    """Return the answer that running text gives without saying `the answer is`, or None.

    An option that opens the text counts first. Then sentences are read in this order: those that conclude
    (`Therefore`), those with emphasised text, the others, each from the last to the first. After a refusal
    only a conclusion counts. A yes/no question may be answered by repeating it as a statement.

    >>> prompt = Prompt(id="1", question="How many?", answer_type="integer")
    >>> answer_in_prose("I count **4** snowmen. Do you like snow?", prompt)
    '4'
    >>> answer_in_prose("There is not enough information.", prompt) is None
    True
    """
    if prompt.question_type == "multi_choice":
        if (opening := find_opening(text[:MAX_READ], prompt.choices or ())) is not None:
            return letter(opening)
    elif prompt.answer_type == "text":
        return plain(text).rstrip(".") if 0 < len(text) <= 100 and "\n" not in text else None
    if len(text) > MAX_READ:
        text = _SENTENCE_END.split(text[-MAX_READ:], maxsplit=1)[-1]
    sentences = _answering(text)
    backwards = sentences[::-1]  # sorting is stable
    for sentence in sorted(backwards, key=_weight, reverse=True):
        for span in (*reversed(_EMPHASIS.findall(sentence)), sentence):
            if found := typed(span, prompt, last=True):
                return found
    return _statement(sentences, prompt)


def first_sentence(text: str) -> str:
    """Return the first sentence, line or paragraph of a text, whichever is the shortest.

    >>> first_sentence(" 3.5 m, i.e. much. It is long.")
    '3.5 m, i.e. much.'
    """
    return _SENTENCE_END.split(text.lstrip(), maxsplit=1)[0]


def number_in(text: str, prompt: Prompt, *, last: bool = False) -> str | None:
    """Return the number in a text that answers the question, as written, or None.

    A text that is one number, or ends in `= number`, is clear. Otherwise what follows `there are` and the
    like is preferred, then numbers that the question does not mention; the word `one` is mostly a pronoun and
    comes last. An alternative (`3 or 4`) is no answer.

    >>> prompt = Prompt(id="1", question="How many bars are below 40?", answer_type="integer")
    >>> number_in("There are 3 bars below 40.", prompt), number_in("d = 2 * 3 = 6 cm", prompt)
    ('3', '6 cm')
    """
    stripped = plain(text)
    result = re.split(r"=|≈|\\approx", stripped)[-1].strip()
    if parse_quantity(result) is not None:
        return result.rstrip(".")
    if _ALTERNATIVE.match(stripped):
        return None
    counted = [
        number
        for start, number in find_quantities(stripped)
        if _COUNT.search(stripped[max(0, start - 60) : start])
    ]
    if len(counted) == 1:
        return counted[0]
    numbers = [number for _, number in find_quantities(result) or find_quantities(stripped)]
    given = {number.lower() for _, number in find_quantities(plain(prompt.question))}
    numbers = [number for number in numbers if number.lower() != "one"] or numbers
    numbers = [number for number in numbers if number.lower() not in given] or numbers
    return numbers[-1 if last else 0] if numbers else None


def typed(span: str, prompt: Prompt, *, last: bool = False) -> str | None:
    """Return what a span says in the form that the prompt asks for, or None.

    Args:
        span: The span.
        prompt: The prompt.
        last: Take the last of several options or numbers, not the first; of lists it is always the last.

    >>> typed("[1, 2] and [3]", Prompt(id="1", question="Which?", answer_type="list"))
    '[3]'
    """
    if prompt.question_type == "multi_choice":
        index = find_choice(span, prompt.choices or (), last=last)
        return None if index is None else letter(index)
    if prompt.answer_type == "list":
        lists = re.findall(r"\[[^\[\]]*\]", span)
        return lists[-1] if lists else None
    if prompt.answer_type == "text":
        return plain(span).rstrip(".") or None
    return number_in(span, prompt, last=last)


def _answering(text: str) -> list[str]:
    sentences = [sentence for sentence in _SENTENCE_END.split(text) if sentence]
    refusals = [i for i, sentence in enumerate(sentences) if _REFUSAL.search(sentence)]
    if refusals:
        sentences = [sentence for sentence in sentences[refusals[-1] + 1 :] if _CONCLUSION.search(sentence)]
    return sentences


def _weight(sentence: str) -> tuple[bool, bool]:
    return _CONCLUSION.search(sentence) is not None, _EMPHASIS.search(sentence) is not None


def _statement(sentences: list[str], prompt: Prompt) -> str | None:
    options = [fold(choice) for choice in prompt.choices or ()]
    if sorted(options) != ["no", "yes"]:
        return None
    for sentence in sentences:
        if (verdict := affirms(sentence, prompt.question)) is not None:
            return letter(options.index("yes" if verdict else "no"))
    return None
