"""Finding the final answer in a response by rule (standard library only)."""

from __future__ import annotations

import re

from mstar_pl.data.format import split_answer
from mstar_pl.rewards.markup import plain
from mstar_pl.rewards.prose import MAX_READ, answer_in_prose, first_sentence, typed
from mstar_pl.types import Prompt

MAX_PHRASES = 20
"""How many phrases that announce an answer are tried, from the last one backwards."""

_OVERLONG = re.compile(r"\d{300,}|([^\S\n])\1{9,}|\n(?:[^\S\n]*\n){9,}")
_NEXT_TURN = re.compile(
    r"\n\s*(?:#+\s*)?(?:\*\*)?(?:Question|Human|User|Passage|Hint)\s*\d*\s*:", re.IGNORECASE
)
_FINAL = r"final\s+(?:(?:integer|float|list)\s+)?(?:answer|value|result|number)(?:\s+value)?"
_SUBJECT = rf"(?:answer|option|choice|{_FINAL})"
_ABOUT = r"(?:\s+(?:to|for|of)\s+(?:the|your|this)\s+(?:question|problem))?"
_COPULA = r"\s*(?:\*\*)?\s*(?:is\b|would\s+be\b|should\s+be\b|must\s+be\b|=|:)\s*:?(?:\s*\*\*)?\s*:?"
_PHRASE = re.compile(
    rf"\b{_SUBJECT}{_ABOUT}{_COPULA}|(?:答案|选项)\s*(?:是|为|应为|[:\uff1a])+", re.IGNORECASE
)


def extract_answer(response: str, prompt: Prompt, *, cut_run_on: bool = True) -> str | None:
    r"""Return the final answer of a response as text, or None if it has none.

    In this order: the text behind the last heading `# Answer`; the last `\boxed{}`; the text behind the last
    phrase like `answer is`; otherwise whatever the prose says that fits the type of the prompt's answer.
    Options are returned as their letter. Of long prose that announces no answer only the end is searched.

    Args:
        response: The text of the response.
        prompt: The prompt; its question, choices and answer type are used, never its gold answer.
        cut_run_on: Whether to ignore what follows a next question that the model wrote itself (see
            `cut_next_turn`).

    >>> prompt = Prompt(id="1", question="How many?", answer_type="integer")
    >>> extract_answer("So there are 3.\n\n# Answer\n\n**3 apples**", prompt)
    '3 apples'
    >>> extract_answer("Nothing to see.", prompt) is None
    True
    """
    response = _readable(response)
    text = cut_next_turn(response) if cut_run_on else response
    if (answer := split_answer(text)[1]) is not None:
        return _under_heading(answer, prompt)
    if (boxed := last_boxed(text)) is not None:
        return typed(boxed, prompt) or plain(boxed) or None
    for match in list(_PHRASE.finditer(text))[: -MAX_PHRASES - 1 : -1]:
        span = first_sentence(text[match.end() :][:MAX_READ])
        if span and (found := typed(span, prompt)):
            return found
    return answer_in_prose(text, prompt)


def _readable(response: str) -> str:
    """Return a response without what no answer has: endless numbers and blanks."""
    return _OVERLONG.sub(lambda match: match[0][:2] if match[0].isspace() else "…", response).strip()


def cut_next_turn(response: str) -> str:
    r"""Return the response up to a next question that the model wrote itself.

    A model prompted with solved examples may run on and pose, and answer, questions of its own.

    >>> cut_next_turn("The answer is B.\n\nQuestion: What is 1+1?\nThe answer is 2.")
    'The answer is B.'
    """
    match = _NEXT_TURN.search(response)
    head = response[: match.start()].strip() if match else ""
    return head or response.strip()


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last complete `\boxed{}`, or None.

    >>> last_boxed(r"\boxed{1} so \boxed{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    starts = {match.end() - 1 for match in re.finditer(r"\\f?boxed\s*\{", text)}
    last, opened = (-1, -1), list[int]()
    for match in re.finditer(r"[{}]", text) if starts else ():
        if match[0] == "{":
            opened.append(match.start())
        elif opened and (start := opened.pop()) in starts:
            last = max(last, (start, match.start()))
    return text[last[0] + 1 : last[1]] if last[0] >= 0 else None


def _under_heading(tail: str, prompt: Prompt) -> str | None:
    """Return the answer of a final section, whose first paragraph is the answer as a whole."""
    if (boxed := last_boxed(tail)) is not None:
        tail = boxed
    elif match := _PHRASE.search(tail):
        tail = tail[match.end() :]
    span = plain(tail.strip().split("\n\n")[0][:MAX_READ])
    if prompt.question_type == "multi_choice":
        return typed(span, prompt) or span or None
    return span.rstrip(".") or None
