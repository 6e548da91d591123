"""What cells of published rows mean: empty cells, questions with hints and choices, gold answers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from mstar_pl.data.jsonl import decode_object
from mstar_pl.types import AnswerType, InputError

AnswerForm = Literal["any", "text", "letter", "index"]

_HINT = re.compile(r"\A\s*Hint:[ \t]*(.*?)\n(?=Question:)", re.DOTALL)
_OPTION = re.compile(r"^\(([A-Z])\)[ \t]*", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-Z])\)?[.:)]?")
_MARKED = re.compile(r"(?:\(([A-Z])\)|([A-Z])[.:)])\s*(.+)", re.DOTALL)
_IMAGE = re.compile(r"\A(?:\s*<image>)+\s*|\s*<image>\s*\Z")


class ParsedQuestion(NamedTuple):
    """The parts of a query.

    Attributes:
        question: The question itself.
        choices: The texts of its options, or None.
        hint: The line that says how to answer, or None.
    """

    question: str
    choices: tuple[str, ...] | None = None
    hint: str | None = None


def absent(cell: Any) -> bool:
    """Return whether a cell holds nothing: None, NaN, the text `nan` that exports make of it, or blanks.

    >>> absent(None), absent(float("nan")), absent("nan"), absent(""), absent("None"), absent(0)
    (True, True, True, True, False, False)
    """
    if isinstance(cell, str):
        return cell.strip() in ("", "nan", "NaN")
    return cell is None or cell != cell


def find(row: dict[str, Any], names: Iterable[str], field: str, needed: bool = True) -> Any:
    """Return the first cell of some columns that holds something; an empty one, or None, if none does.

    Raises:
        ValueError: A row that needs one has none of the columns; names those that it has.

    >>> find({"answer": None, "ground_truth": "3"}, ("answer", "ground_truth"), "answer")
    '3'
    """
    cells = [row[name] for name in names if name in row]
    if needed and not cells:
        columns = f"no column {' or '.join(names)} for {field!r}, only {', '.join(row)}"
        raise ValueError(f"{columns}; name it in the option fields")
    return next((cell for cell in cells if not absent(cell) and cell != []), cells[0] if cells else None)


def text_of(cell: Any, field: str) -> str:
    """Return a text or number as text; whole floats as the integers they were before a column had nulls.

    Raises:
        ValueError: It is empty, or something else.

    >>> text_of("a", "unit"), text_of(7, "id"), text_of(7.0, "id"), text_of(1.5, "answer")
    ('a', '7', '7', '1.5')
    """
    if absent(cell) or isinstance(cell, bool | bytes | list | dict):
        raise ValueError(f"{field!r} must be a text, got {cell!r:.60}; mend it, or name another column")
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def text_or_none(cell: Any, field: str) -> str | None:
    """Return a cell as `text_of` does, None for an empty one."""
    return None if absent(cell) else text_of(cell, field)


def texts_of(cell: Any, field: str) -> tuple[str, ...]:
    """Return the texts or numbers of a list, as `text_of` does.

    Raises:
        ValueError: It is no list, or holds something else.
    """
    if not isinstance(cell, list):
        raise ValueError(
            f"{field!r} must be a list of texts, got {cell!r:.60}; mend it, or name another column"
        )
    return tuple(text_of(one, field) for one in cell)


def whole_or_none(cell: Any, field: str) -> int | None:
    """Return the whole number in a cell, None for an empty one.

    Raises:
        ValueError: It is something else.

    >>> whole_or_none("2.0", "precision"), whole_or_none(1, "precision"), whole_or_none(None, "precision")
    (2, 1, None)
    """
    if (text := text_or_none(cell, field)) is None:
        return None
    if not (found := re.fullmatch(r"([0-9]{1,9})(?:\.0*)?", text)):
        raise ValueError(f"{field!r} must be a whole number, got {cell!r:.60}")
    return int(found[1])


def mapping_of(cell: Any, field: str) -> dict[str, Any]:
    """Return the mapping in a cell, which may be JSON as text; an empty one for an empty cell.

    Raises:
        ValueError: It is something else.
    """
    if absent(cell):
        return {}
    given = decode_object(cell.encode()) if isinstance(cell, str) else cell
    if not isinstance(given, dict):
        raise ValueError(f"{field!r} must be an object, or JSON as text, got {cell!r:.60}")
    return given


def check_known(option: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse what an option does not know.

    Raises:
        InputError: There is such; names the known ones.
    """
    if (unknown := next((one for one in given if one not in known), None)) is not None:
        raise InputError(f"{option}: {unknown!r} is unknown; known are {', '.join(known)}")


def parse_question(text: str) -> ParsedQuestion:
    r"""Split a query into its parts: `<image>`, `Hint: …`, `Question: …`, `Choices:` and lines `(A) …`.

    All of them but the question may be missing (MathVista's released queries, MathV360K).

    Raises:
        ValueError: The options are not lettered in order, or there must be some but none is found.

    >>> query = "<image>\nHint: Give the letter.\nQuestion: Which?\nChoices:\n(A) left\n(B) right"
    >>> parse_question(query)
    ParsedQuestion(question='Which?', choices=('left', 'right'), hint='Give the letter.')
    >>> parse_question("How many?").question
    'How many?'
    """
    text = _IMAGE.sub("", text.replace("\r\n", "\n"))
    hint = _HINT.match(text)
    text = text[hint.end() :] if hint else text
    question, found, listed = text.strip().removeprefix("Question:").rpartition("\nChoices:\n")
    if not found:
        if re.search(r"\bChoices:", listed) or (hint and "option letter" in hint[1]):
            raise ValueError("no options are found; write them as 'Choices:' and lines '(A) …' below it")
        return ParsedQuestion(listed.strip(), None, hint[1].strip() if hint else None)
    _, *parts = _OPTION.split(listed)
    letters, choices = parts[::2], tuple(choice.strip() for choice in parts[1::2])
    if letters != [chr(ord("A") + index) for index in range(len(letters))] or not letters:
        raise ValueError(f"options are lettered {', '.join(letters) or 'not at all'}, not A, B, C in order")
    return ParsedQuestion(question.strip(), choices, hint[1].strip() if hint else None)


def hinted_type(hint: str | None) -> tuple[AnswerType, int | None]:
    """Return the answer type, and decimal places, that one of MathVista's hints asks for.

    >>> hinted_type("… requiring a floating-point number with one decimal place and …")
    ('float', 1)
    >>> hinted_type("Please answer the question and provide the final answer at the end.")
    ('text', None)
    """
    asked = hint or ""
    if "requiring an integer answer" in asked:
        return "integer", None
    if "requiring a floating-point number" in asked:
        return "float", 1 if "one decimal place" in asked else 2
    return ("list", None) if "requiring a Python list" in asked else ("text", None)


def gold_choice(answer: Any, choices: Sequence[str], form: AnswerForm = "any") -> str:
    """Return the text of the right choice, in whatever form a data set names it.

    Args:
        answer: The cell.
        choices: The texts of the options.
        form: `letter` (`B`, `(B)`), `index` (from 0, a number or its digits), `text`, or `any`. With `any` a
            lone capital letter within range is a letter, even where options are letters themselves; then a
            choice's text; then a letter followed by its own choice's text (`(B) no`, `B. no`); then an index.

    Raises:
        ValueError: It names none of the choices.

    >>> [gold_choice(one, ["yes", "no"]) for one in ("no", "B", "(B)", "B. no", 1)]
    ['no', 'no', 'no', 'no', 'no']
    >>> gold_choice("1", ["1", "2"]), gold_choice("1", ["1", "2"], "index")
    ('1', '2')
    >>> gold_choice("C", ["yes", "no"])
    Traceback (most recent call last):
        ...
    ValueError: answer 'C' names none of the 2 choices
    """
    text = str(answer).strip()
    rules = {"letter": _by_letter, "text": _by_text, "marked": _by_marked_text, "index": _by_index}
    chosen = rules if form == "any" else {form: rules[form]}
    for rule in chosen.values():
        place = rule(text, choices)
        if place is not None and 0 <= place < len(choices):
            return choices[place]
    raise ValueError(f"answer {answer!r} names none of the {len(choices)} choices")


def _by_letter(text: str, choices: Sequence[str]) -> int | None:
    found = _LETTER.fullmatch(text)
    return ord(found[1]) - ord("A") if found else None


def _by_text(text: str, choices: Sequence[str]) -> int | None:
    for fold in (str.strip, _folded):
        folded = [fold(choice) for choice in choices]
        if fold(text) in folded:
            return folded.index(fold(text))
    return None


def _by_marked_text(text: str, choices: Sequence[str]) -> int | None:
    found = _MARKED.fullmatch(text)
    if not found:
        return None
    place = ord(found[1] or found[2]) - ord("A")
    same = place < len(choices) and _folded(choices[place]) == _folded(found[3])
    return place if same else None


def _by_index(text: str, choices: Sequence[str]) -> int | None:
    return int(text) if text.isdecimal() else None


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
