"""Options of multiple-choice questions: which one does a text name? (standard library only)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mstar_pl.rewards.markup import content_words, fold, plain
from mstar_pl.rewards.quantity import find_quantities, parse_quantity, same_quantity

_BARE = re.compile(
    r"(?:the\s+)?(?:option|choice|answer)?\s*[\[(]?\s*([A-Za-z])\s*[\])]?[.,:;!]*", re.IGNORECASE
)
_LEADING = re.compile(
    r"[\[(]([A-Za-z])[\])]|([A-Z])(?:[).:]|,?\s*[(\u2013-])(?=\W|$|\w)|(?:option|choice)\s+[\[(]?([A-Z])\b"
)
_MORE = r"\s*(?:\\(?![,;. ])|[\^√])"  # a number with this behind it is only part of an expression
_PARENTHESISED = re.compile(r"(?<![\w])\(([A-Z])\)")
_NAMED = re.compile(r"\b(?:option|choice|answer|letter)\s+(?:is\s+)?[\"'(]?([A-Z])\b")
_ALTERNATIVE = re.compile(
    r"[\[(]?[A-Z][\])]?\s*(?:,|/|&|or|and)\s*(?:or\s+|and\s+)?[\[(]?[A-Z](?![\w'\u2019])"
)
_TOKEN = re.compile(r"(?<![\w'\u2019-])([B-HJ-Z])(?![\w'\u2019-])")


def name_choice(text: str, choices: Sequence[str]) -> int | None:
    """Return the index of the option that `text` as a whole names, or None.

    In this order: a lone capital letter is an index, even if choices are letters themselves (as in
    MathVista); the text of a choice; a lone lower-case letter; a leading letter as in `(B) 45` or `B. 45`; a
    choice of the same number.

    >>> name_choice("(B)", ["1", "2"]), name_choice("**45 degrees.**", ["30°", "45°"])
    (1, 1)
    >>> name_choice("b", ["b", "a"])
    0
    >>> name_choice("B", ["b", "a"]), name_choice("B. No", ["Yes", "No"]), name_choice("maybe", ["Yes", "No"])
    (1, 1, None)
    """
    stripped = plain(text)
    if _ALTERNATIVE.match(stripped) and stripped not in choices:
        return None
    bare = _BARE.fullmatch(stripped)
    if bare and bare[1].isupper() and _index(bare[1], choices) is not None:
        return _index(bare[1], choices)
    for form in (plain, fold):
        compact = ["".join(form(choice).split()) for choice in choices]
        if (said := "".join(form(text).split())) and said in compact:
            return compact.index(said)
    if bare and _index(bare[1], choices) is not None:
        return _index(bare[1], choices)
    leading = _LEADING.match(stripped)
    if leading and (index := _index(leading[1] or leading[2] or leading[3], choices)) is not None:
        return index
    return _same_number(stripped, choices)


def find_choice(text: str, choices: Sequence[str], *, last: bool = False) -> int | None:
    """Return the index of the option that running text mentions, or None if there is none or no single one.

    In this order: `text` as a whole; the first (or last) letter in parentheses; a letter behind `option` or
    the like; a text that opens with a choice; the only choice that occurs in the text, be it literally, as a
    number or by all of its content words; the only lone capital letter.

    >>> find_choice("the shaded part, i.e. (C), is larger", ["1", "2", "3"])
    2
    >>> find_choice("No, it is not.", ["Yes", "No"]), find_choice("red or blue", ["red", "blue"])
    (1, None)
    """
    stripped = plain(text)
    if _ALTERNATIVE.match(stripped) and stripped not in choices:
        return None
    if (index := name_choice(text, choices)) is not None:
        return index
    for pattern in (_PARENTHESISED, _NAMED):
        found = [
            index for match in pattern.findall(stripped) if (index := _index(match, choices)) is not None
        ]
        if found:
            return found[-1 if last else 0]
    for rule in (find_opening, _mentioned, _mentioned_number, _mentioned_words):
        if (index := rule(stripped, choices)) is not None:
            return index
    return _only(
        {index for match in _TOKEN.findall(stripped) if (index := _index(match, choices)) is not None}
    )


def find_opening(text: str, choices: Sequence[str]) -> int | None:
    """Return the index of the option with which a text opens: `(B) ...`, `B. ...` or `Yes, ...`.

    >>> find_opening("No, it is not round.", ["Yes", "No"]), find_opening("(B) since ...", ["1", "2"])
    (1, 1)
    """
    stripped = plain(text)
    leading = _LEADING.match(stripped)
    if leading and (index := _index(leading[1] or leading[2] or leading[3], choices)) is not None:
        return index
    folded = fold(text)
    for index, choice in enumerate(choices):
        if (name := fold(choice)) and re.match(rf"{re.escape(name)}\s*(?:[,.;:]|$)", folded):
            return index
    return None


def _index(name: str, choices: Sequence[str]) -> int | None:
    index = ord(name.upper()) - ord("A")
    return index if 0 <= index < len(choices) else None


def _same_number(text: str, choices: Sequence[str]) -> int | None:
    quantity = parse_quantity(text)
    if quantity is None:
        return None
    parsed = [parse_quantity(plain(choice)) for choice in choices]
    return _only(
        {i for i, choice in enumerate(parsed) if choice is not None and same_quantity(quantity, choice)}
    )


def _only(indices: set[int]) -> int | None:
    return next(iter(indices)) if len(indices) == 1 else None


def _mentioned(text: str, choices: Sequence[str]) -> int | None:
    folded = fold(text)
    spans = [
        (*match.span(), index)
        for index, name in enumerate(map(fold, choices))
        if len(name) > 1 or (name and not name.isalpha())
        for match in re.finditer(rf"(?<![\w.]){re.escape(name)}(?!\w|\.\d|{_MORE})", folded)
    ]
    return _only(
        {
            i
            for start, end, i in spans
            if not any(s <= start and end <= e and e - s > end - start for s, e, _ in spans)
        }
    )


def _mentioned_number(text: str, choices: Sequence[str]) -> int | None:
    found = find_quantities(text)
    said = [parse_quantity(n) for at, n in found if not re.match(_MORE, text[at + len(n) :])]
    return _only(
        {
            i
            for i, value in enumerate(map(choice_value, choices))
            for q in said
            if q and value is not None and abs(q.value - value) <= 1e-6 * abs(value)
        }
    )


def choice_value(choice: str) -> float | None:
    """Return the number of a choice that has exactly one, whatever its unit and script.

    >>> choice_value("4.40米"), choice_value("from 2 to 3"), choice_value("x = 5")
    (4.4, None, 5.0)
    """
    found = find_quantities(plain(choice))
    quantity = parse_quantity(found[0][1]) if len(found) == 1 else None
    return quantity.value if quantity else None


def _mentioned_words(text: str, choices: Sequence[str]) -> int | None:
    said = content_words(text)
    return _only(
        {i for i, choice in enumerate(choices) if (words := content_words(choice)) and words <= said}
    )
