"""Numbers and units in answers: parsing, searching and comparing (standard library only)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MAX_CHARACTERS = 400
"""Of a number with its unit; a longer text is none."""

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: i for i, word in enumerate(_ONES)} | {word: 10 * i for i, word in enumerate(_TENS, start=2)}
_WORDS |= {
    f"{ten}{by}{one}": _WORDS[ten] + _WORDS[one] for ten in _TENS for one in _ONES[1:10] for by in "- "
}
_WORDS |= {f"{one} hundred": 100 * _WORDS[one] for one in _ONES[1:10]} | {"hundred": 100}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_POWER = r"(?:[eE][-+]?\d+|\s*(?:\\times|\\cdot|[\u00d7x*])\s*10\s*\^\s*\{?\s*[-+]?\d+\s*\}?)"
_FRACTION = r"\\frac\s*\{\s*\d+(?:\.\d+)?\s*\}\s*\{\s*\d+(?:\.\d+)?\s*\}|\\frac\d\d|\d+\s*/\s*\d+"
_NUMBER = (
    rf"(?P<sign>[-+]?)\s*[$€£]?\s*(?:(?:(?P<whole>\d+)(?:\s+|(?=\\)))?(?P<fraction>{_FRACTION})(?![\d.])"
    rf"|(?P<decimal>{_DECIMAL})(?P<power>{_POWER})?)"
)
_UNIT_WORD = r"[A-Za-zµμΩ]+(?:\^?[23²³]|\^\{[-\d]+\})?\.?"
_UNIT = rf"(?P<unit>(?:%|°\s?[CF]?\b|°|{_UNIT_WORD})?(?:(?:\s+|\s*[/·*]\s*){_UNIT_WORD}){{0,4}})"
_APPROXIMATE = r"(?:approximately|approx\.?|about|around|roughly|nearly|exactly|~|≈)?"
_WHOLE = re.compile(rf"{_APPROXIMATE}\s*{_NUMBER}\s*{_UNIT}", re.IGNORECASE)
_WHOLE_WORD = re.compile(rf"{_APPROXIMATE}\s*(?P<sign>-?)(?P<word>{_WORD})\b\s*{_UNIT}", re.IGNORECASE)
_SEARCH = re.compile(
    rf"(?<![\w.])(?<!\d[,:]){_NUMBER}(?![.,:]?\d)(?P<percent>\s*(?:%|percent\b))?|\b(?P<word>{_WORD})\b",
    re.IGNORECASE,
)
_NUMERAL = re.compile(rf"\b(?:{_WORD}|pi|half|quarter)\b", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?:minus|negative)\s+", re.IGNORECASE)
_MULTIPLES = {"thousand": 1e3, "million": 1e6, "billion": 1e9}

# Factor to the base unit of each dimension, for answers given in another unit than the one asked for.
_SCALES: tuple[dict[str, float], ...] = (
    {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3},
    {"mg": 1e-3, "g": 1.0, "kg": 1e3},
    {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0},
    {"ml": 1e-3, "l": 1.0},
)
_ALIASES = {
    "percent": "%", "meter": "m", "metre": "m", "centimeter": "cm", "centimetre": "cm", "millimeter": "mm",
    "millimetre": "mm", "kilometer": "km", "kilometre": "km", "gram": "g", "kilogram": "kg",
    "milligram": "mg", "second": "s", "sec": "s", "minute": "min", "hour": "h", "hr": "h", "liter": "l", 
    "litre": "l", "milliliter": "ml", "millilitre": "ml",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with the unit written behind it (`%` for percentages, empty for none)."""

    value: float
    unit: str = ""


def parse_quantity(text: str) -> Quantity | None:
    r"""Read a text that is one number with an optional unit, or return None.

    Understands thousands separators, simple and mixed fractions, powers of ten, currency signs and number
    words up to nine hundred. What goes on as another number (`3 and a half`, `2 pi`) is none.

    >>> parse_quantity("1,234.5 kg")
    Quantity(value=1234.5, unit='kg')
    >>> parse_quantity(r"-\frac{3}{4}").value, parse_quantity("1 1/2").value, parse_quantity("11/2").value
    (-0.75, 1.5, 5.5)
    >>> parse_quantity("minus twenty five").value, parse_quantity("3 and a half")
    (-25.0, None)
    >>> parse_quantity("45%"), parse_quantity("2 + 3")
    (Quantity(value=45.0, unit='%'), None)
    """
    text = text.strip().rstrip(".")
    if len(text) > MAX_CHARACTERS:
        return None
    if negative := _NEGATIVE.match(text):
        text = f"-{text[negative.end() :]}"
    match = _WHOLE.fullmatch(text) or _WHOLE_WORD.fullmatch(text)
    if match is None or _NUMERAL.search(match["unit"]):
        return None
    value = _value(match)
    return None if value is None else Quantity(value, _unit(match["unit"]))


def find_quantities(text: str) -> list[tuple[int, str]]:
    """Return the position and the text of every number in running text, number words included.

    Digits inside words (`H2O`, `Figure3`) are not numbers, nor are times, ratios and lists without blanks.

    >>> find_quantities("Of 1,200 cars, three are 2.5% red (H2O, 3:4).")
    [(3, '1,200'), (15, 'three'), (25, '2.5%')]
    """
    return [(match.start(), match[0].strip()) for match in _SEARCH.finditer(text)]


def same_quantity(candidate: Quantity, gold: Quantity, precision: int | None = None) -> bool:
    """Tell whether two quantities are equal: to `precision` decimals if given, else to a relative 1e-6.

    A missing unit is taken to be the right one; known units of the same dimension are converted; `%` against
    a bare number may mean the number itself or a hundredth of it, `2 million` two or two millions.

    >>> same_quantity(Quantity(2.0, "kg"), Quantity(2000.0, "g"))
    True
    >>> percent = Quantity(5.0, "%")
    >>> same_quantity(percent, Quantity(0.05)), same_quantity(percent, Quantity(500.0, "%"))
    (True, False)
    >>> same_quantity(Quantity(1.2345), Quantity(1.23), precision=2)
    True
    """
    values = [candidate.value]
    values += [
        candidate.value * _MULTIPLES[word] for word in candidate.unit.split()[:1] if word in _MULTIPLES
    ]
    if (candidate.unit == "%") != (gold.unit == "%"):
        values.append(candidate.value / 100 if candidate.unit == "%" else candidate.value * 100)
        values = values if not (candidate.unit and gold.unit) else []
    for scale in _SCALES:
        if candidate.unit in scale and gold.unit in scale:
            values = [candidate.value * scale[candidate.unit] / scale[gold.unit]]
    return any(_close(value, gold.value, precision) for value in values)


def _close(value: float, gold: float, precision: int | None) -> bool:
    if precision is not None:
        return abs(value - gold) <= 0.5 * 10.0**-precision * (1 + 1e-6)
    # Whole numbers are counts or years: exact but for floating-point error.
    return math.isclose(value, gold, rel_tol=1e-12 if gold.is_integer() else 1e-6, abs_tol=1e-12)


def _value(match: re.Match[str]) -> float | None:
    groups = match.groupdict()
    sign = -1.0 if groups["sign"] == "-" else 1.0
    if groups.get("word"):
        return sign * _WORDS[groups["word"].lower()]
    if groups["fraction"]:
        return _fraction(groups["fraction"], float(groups["whole"] or 0), sign)
    value = float(groups["decimal"].replace(",", ""))
    exponent = re.search(r"[-+]?\d+\s*\}?$", groups["power"] or "0")
    power = int(exponent[0].rstrip("} ")) if exponent else 0
    return sign * value * 10.0**power if abs(power) < 300 else None


def _fraction(text: str, whole: float, sign: float) -> float | None:
    numbers = re.findall(r"\d+(?:\.\d+)?", text) if not re.fullmatch(r"\\frac\d\d", text) else list(text[-2:])
    numerator, denominator = float(numbers[0]), float(numbers[1])
    return sign * (whole + numerator / denominator) if denominator else None


def _unit(text: str) -> str:
    unit = text.strip().rstrip(".").lower()
    singular = unit[:-1] if unit.endswith("s") and len(unit) > 2 else unit
    return _ALIASES.get(singular, unit)
