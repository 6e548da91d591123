"""Math word problems: stories about pictured objects and their prices."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from mstar_pl.data.minivista.drawing import Canvas
from mstar_pl.data.minivista.fqa import numbers
from mstar_pl.data.minivista.grammar import Writer
from mstar_pl.data.minivista.icons import OBJECTS
from mstar_pl.data.minivista.queries import Scene, ask
from mstar_pl.data.minivista.record import Draft, Draw, Facts, Form, Kind

Story = tuple[str, tuple[str, ...], Callable[[Writer], int | str]]
"""What is asked with its numbers, the wordings, and the solution."""

_NAMES = ("Ann", "Tom", "Mia", "Ben")


def _tell(rng: Random, facts: Facts, draw: Draw, story: Story) -> Draft:
    query, wordings, solve = story
    writer = Writer(rng, facts)
    writer.see()
    answer = str(solve(writer))
    return Draft(
        query=query,
        question=rng.choice(wordings).replace("Ann", rng.choice(_NAMES)),
        answer=answer,
        steps=tuple(writer.steps),
        facts=facts,
        draw=draw,
        skills=("arithmetic reasoning", "counting" if facts.scene == "objects" else "price reading"),
        precision=1 if "." in answer else None,
    )


def _counted(rng: Random, form: Form) -> Draft:
    """Two groups of objects in rows of four; the story changes, shares or sells them."""
    first, second = rng.sample(list(OBJECTS), 2)
    n, m = rng.randint(1, 8), rng.randint(1, 8)

    def draw(canvas: Canvas) -> None:
        radius = canvas.rng.uniform(7.5, 9.5)
        for top, (name, count) in enumerate(((first, n), (second, m))):
            for k in range(count):
                at = (14 + 23 * (k % 4), 13 + 46 * top + 22 * (k // 4))
                OBJECTS[name](canvas, (at[0] + canvas.rng.uniform(-2, 2), at[1]), radius)

    facts = Facts(scene="objects", seen={f"{first}s": n, f"{second}s": m})
    stories = _shares if form == "float" else _changes
    return _tell(rng, facts, draw, rng.choice(stories(rng, (first, n), (second, m))))


def _changes(rng: Random, first: tuple[str, int], second: tuple[str, int]) -> list[Story]:
    (a, n), (b, m) = first, second
    less, more, times, price, other = (
        rng.randint(1, n),
        rng.randint(1, 9),
        *(rng.randint(2, 6) for _ in range(3)),
    )
    return [
        (
            f"left {a} {less}",
            (
                f"Ann gives away {less} {a}s. How many {a}s are left?",
                f"Ann takes {less} {a}s. How many {a}s are left?",
            ),
            lambda w: w.compute(n, "-", less),
        ),
        (
            f"more {a} {more}",
            (
                f"Ann buys {more} more {a}s. How many {a}s are there then?",
                f"Ann gets {more} more {a}s. How many has Ann?",
            ),
            lambda w: w.compute(n, "+", more),
        ),
        (
            f"all less {a} {less}",
            (f"Ann gives away {less} {a}s. How many {a}s and {b}s are left in total?",),
            lambda w: w.compute(w.compute(n, "+", m), "-", less),
        ),
        (
            f"boxes {a} {times}",
            (
                f"Ann has {times} such boxes. How many {a}s has Ann?",
                f"How many {a}s are in {times} such boxes?",
            ),
            lambda w: w.compute(n, "*", times),
        ),
        (
            f"cost {a} {price} {b} {other}",
            (f"Each {a} costs {price} and each {b} costs {other}. How much do all of them cost?",),
            lambda w: w.compute(
                w.compute(n, "*", price, "The cost is"), "+", w.compute(m, "*", other, "The cost is")
            ),
        ),
    ]


def _shares(rng: Random, first: tuple[str, int], second: tuple[str, int]) -> list[Story]:
    (a, n), (b, m) = first, second
    few, many = rng.randint(2, max(2, min(6, n))), rng.randint(2, max(2, min(6, n + m)))
    return [
        (
            f"share {a} {few}",
            (f"{few} children share the {a}s equally. How many {a}s gets each?",),
            lambda w: w.average(n, few, "The share is"),
        ),
        (
            f"share all {many}",
            (f"{many} children share all {a}s and {b}s equally. How many gets each?",),
            lambda w: w.average(w.compute(n, "+", m), many, "The share is"),
        ),
    ]


def _priced(rng: Random, form: Form) -> Draft:
    """Two or three objects with written prices; buy some of them."""
    names = rng.sample(list(OBJECTS), rng.choice((2, 3)) if form != "choice" else 3)
    seen = dict(zip(names, numbers(rng, len(names)), strict=True))

    def draw(canvas: Canvas) -> None:
        pitch, shift = 92 / len(names), canvas.rng.uniform(-6, 6)
        for k, (name, price) in enumerate(seen.items()):
            y = 2 + pitch * (k + 0.5)
            OBJECTS[name](canvas, (28 + shift, y), canvas.rng.uniform(10, 13))
            canvas.text((64 + shift, y), price)

    facts = Facts(scene="prices", seen=seen)
    if form != "integer" or rng.random() < 0.3:
        scene = Scene(
            facts=facts, draw=draw, ref="the {}", noun="prices", skill="price reading", phrases=_PRICE_PHRASES
        )
        return ask(rng, form, scene)
    return _tell(rng, facts, draw, rng.choice(_purchases(rng, seen)))


_PRICE_PHRASES = {
    "read": ("How much is {a}?", "What is the price of {a}?"),
    "sum": ("How much are {a} and {b} together?", "Ann buys {a} and {b}. How much does she pay?"),
    "difference": ("How much more does {a} cost than {b}?",),
    "total": ("Ann buys one of each. How much does she pay?", "How much do all of them cost?"),
    "largest": ("Which has the highest price?", "Which costs the most?"),
    "smallest": ("Which has the lowest price?", "Which costs the least?"),
    "average": ("What is the average price?", "What is the average of the prices?"),
    "sum_minus": (),
    "double": ("How much do 2 of {a} and one of {b} cost?",),
}


def _purchases(rng: Random, seen: dict[str, int]) -> list[Story]:
    a, b = rng.sample(list(seen), 2)
    p, q = seen[a], seen[b]
    k, j = rng.randint(2, 5 if p < 10 else 3), rng.randint(2, 4)
    note = rng.choice([note for note in (20, 30, 50) if note > p + q])
    return [
        (
            f"many {a} {k}",
            (f"Ann buys {k} {a}s. How much does Ann pay?", f"How much do {k} {a}s cost?"),
            lambda w: w.compute(k, "*", p, "The cost is"),
        ),
        (
            f"change {a} {b} {note}",
            (f"Ann has {note}. Ann buys one {a} and one {b}. How much is left?",),
            lambda w: w.compute(note, "-", w.compute(p, "+", q)),
        ),
        (
            f"mixed {a} {k} {b} {j}",
            (
                f"Ann buys {k} {a}s and {j} {b}s. How much does Ann pay?",
                f"How much do {k} {a}s and {j} {b}s cost?",
            ),
            lambda w: w.compute(
                w.compute(k, "*", p, "The cost is"), "+", w.compute(j, "*", q, "The cost is")
            ),
        ),
    ]


KINDS = (
    Kind(name="counted", build=_counted),
    Kind(name="priced", build=_priced),
)
