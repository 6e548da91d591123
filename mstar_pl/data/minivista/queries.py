"""Questions about a handful of named numbers, which charts, tables, prices and counts have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from mstar_pl.data.minivista.grammar import Writer
from mstar_pl.data.minivista.record import Draft, Draw, Facts, Form

Values = Mapping[str, int]
Solve = Callable[[Writer, Values, tuple[str, ...]], int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture of named numbers.

    Attributes:
        facts: What is seen; all values that `names` mention are whole numbers.
        draw: Draws the picture.
        ref: How a question refers to a name, e.g. `the {} bar`.
        noun: Plural of what carries the numbers, e.g. `bars`.
        skill: The skill of reading this picture.
        names: The names to ask about; empty means all. The first step states these.
        phrases: Wordings of queries that replace those of `PHRASES`; an empty tuple forbids a query.
    """

    facts: Facts
    draw: Draw
    ref: str
    noun: str
    skill: str
    names: tuple[str, ...] = ()
    phrases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One thing to ask: how many names it takes (0 means all, at least three) and how it is solved."""

    name: str
    form: Form
    arity: int
    solve: Solve
    weight: int = 2
    symmetric: bool = False
    fits: Callable[[list[int]], bool] = lambda _: True


PHRASES: Mapping[str, tuple[str, ...]] = {
    "read": ("What is the value of {a}?", "Read the value of {a}.", "Which number has {a}?"),
    "sum": ("What is the sum of {a} and {b}?", "How much are {a} and {b} together?", "Add {a} and {b}."),
    "difference": ("How much larger is {a} than {b}?", "What is the difference between {a} and {b}?"),
    "total": ("What is the total of all {n}?", "Add all the {n}.", "How much are all the {n} together?"),
    "range": ("What is the difference between the largest and the smallest of the {n}?",),
    "sum_minus": ("What is {a} plus {b} minus {c}?", "Add {a} and {b}, then subtract {c}."),
    "double": ("Double {a}, then add {b}.", "What is 2 times {a} plus {b}?"),
    "average": ("What is the average of all the {n}?", "Find the average of the {n}."),
    "average_two": ("What is the average of {a} and {b}?", "Find the average of {a} and {b}."),
    "ratio": ("What is {a} divided by {b}?", "How many times {b} is {a}?"),
    "largest": ("Which of the {n} is the largest?", "Which of the {n} has the highest number?"),
    "smallest": ("Which of the {n} is the smallest?", "Which of the {n} has the lowest number?"),
}


def _read(writer: Writer, values: Values, names: tuple[str, ...]) -> int:
    writer.need(*names)
    return values[names[0]]


def _sum(writer: Writer, values: Values, names: tuple[str, ...]) -> int:
    return writer.total(values[name] for name in names)


def _difference(writer: Writer, values: Values, names: tuple[str, ...]) -> int:
    return writer.compute(values[names[0]], "-", values[names[1]])


def _range(writer: Writer, values: Values, names: tuple[str, ...]) -> int:
    largest, smallest = max(names, key=values.__getitem__), min(names, key=values.__getitem__)
    writer.extreme(largest, largest=True)
    writer.extreme(smallest, largest=False)
    return _difference(writer, values, (largest, smallest))


def _sum_minus(writer: Writer, values: Values, names: tuple[str, ...]) -> int:
    return writer.compute(_sum(writer, values, names[:2]), "-", values[names[2]])


def _double(writer: Writer, values: Values, names: tuple[str, ...]) -> int:
    return writer.compute(writer.compute(values[names[0]], "*", 2), "+", values[names[1]])


def _average(writer: Writer, values: Values, names: tuple[str, ...]) -> str:
    return writer.average(_sum(writer, values, names), len(names))


def _ratio(writer: Writer, values: Values, names: tuple[str, ...]) -> str:
    return writer.average(values[names[0]], values[names[1]])


def _extreme(*, largest: bool) -> Solve:
    def solve(writer: Writer, values: Values, names: tuple[str, ...]) -> str:
        name = (max if largest else min)(names, key=values.__getitem__)
        writer.extreme(name, largest=largest)
        return name

    return solve


def _unique(*, largest: bool) -> Callable[[list[int]], bool]:
    return lambda values: values.count(max(values) if largest else min(values)) == 1


QUERIES = (
    Query(name="read", form="integer", arity=1, solve=_read, weight=1),
    Query(name="sum", form="integer", arity=2, solve=_sum, symmetric=True),
    Query(name="difference", form="integer", arity=2, solve=_difference, fits=lambda v: v[0] > v[1]),
    Query(name="total", form="integer", arity=0, solve=_sum),
    Query(name="range", form="integer", arity=0, solve=_range, fits=lambda v: max(v) > min(v)),
    Query(name="sum_minus", form="integer", arity=3, solve=_sum_minus, fits=lambda v: v[0] + v[1] >= v[2]),
    Query(name="double", form="integer", arity=2, solve=_double),
    Query(name="average", form="float", arity=0, solve=_average),
    Query(name="average_two", form="float", arity=2, solve=_average, symmetric=True),
    Query(name="ratio", form="float", arity=2, solve=_ratio, fits=lambda v: v[0] > v[1] and 1 < v[1] < 10),
    Query(name="largest", form="choice", arity=0, solve=_extreme(largest=True), fits=_unique(largest=True)),
    Query(
        name="smallest", form="choice", arity=0, solve=_extreme(largest=False), fits=_unique(largest=False)
    ),
)


def ask(rng: Random, form: Form, scene: Scene) -> Draft:
    """Draft a question about a scene; a multiple choice asks for a name or, as often, for a number."""
    names = scene.names or tuple(scene.facts.seen)
    wanted: Form = "integer" if form == "choice" and (len(names) < 3 or rng.random() < 0.4) else form
    phrases = {**PHRASES, **scene.phrases}
    possible = [q for q in QUERIES if q.form == wanted and phrases[q.name] and len(names) >= (q.arity or 3)]
    while True:
        query = rng.choices(possible, [q.weight for q in possible])[0]
        asked = tuple(rng.sample(names, query.arity)) if query.arity else names
        values = {name: int(scene.facts.seen[name]) for name in asked}
        if query.fits(list(values.values())):
            return _draft(rng, scene, query, values, rng.choice(phrases[query.name]))
        if wanted == "choice":
            return ask(rng, form, scene)


def _draft(rng: Random, scene: Scene, query: Query, values: Values, phrase: str) -> Draft:
    asked = tuple(values)
    writer = Writer(rng, scene.facts)
    writer.see(*scene.names)
    answer = query.solve(writer, values, asked)
    refs = dict(zip("abc", map(scene.ref.format, asked), strict=False))
    ordered = sorted(asked) if query.symmetric or query.arity == 0 else asked
    return Draft(
        query=f"{query.name} {','.join(ordered)}",
        question=phrase.format(n=scene.noun, **refs),
        answer=str(answer),
        steps=tuple(writer.steps),
        facts=scene.facts,
        draw=scene.draw,
        skills=(scene.skill, "statistical reasoning" if query.arity == 0 else "arithmetic reasoning"),
        precision=1 if query.form == "float" else None,
        options=asked if query.form == "choice" else None,
    )
