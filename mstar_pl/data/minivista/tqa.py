"""Textbook question answering: tables, cycles of stages and food chains."""

from __future__ import annotations

import math
from random import Random

from mstar_pl.data.minivista.drawing import COLOURS, Canvas
from mstar_pl.data.minivista.fqa import numbers
from mstar_pl.data.minivista.grammar import Writer
from mstar_pl.data.minivista.icons import LIVING
from mstar_pl.data.minivista.queries import Scene, ask
from mstar_pl.data.minivista.record import Draft, Facts, Form, Kind


def _table(rng: Random, form: Form) -> Draft:
    """Two coloured rows, three lettered columns; the question is about one row or one column."""
    rows = rng.sample(list(COLOURS), 2)
    seen = dict(zip([f"{row} {column}" for row in rows for column in "PQR"], numbers(rng, 6), strict=True))

    def draw(canvas: Canvas) -> None:
        for k, column in enumerate("PQR"):
            canvas.text((37 + 24 * k, 15), column, size=14)
            canvas.line((25 + 24 * k, 4), (25 + 24 * k, 92), width=1)
        for k, row in enumerate(rows):
            y = 43 + 32 * k
            canvas.line((3, y - 16), (94, y - 16), width=1)
            canvas.disc((13, y), 8, canvas.colour(row))
            for j, column in enumerate("PQR"):
                canvas.text((37 + 24 * j, y), seen[f"{row} {column}"])

    by_row = form == "choice" or rng.random() < 0.7
    part = rng.choice(rows if by_row else "PQR")
    names = tuple(name for name in seen if part in name.split())
    noun = f"numbers in the {part} row" if by_row else f"numbers in column {part}"
    phrases: dict[str, tuple[str, ...]] = {"range": (), "largest": (), "smallest": ()}
    facts = Facts(scene="table", seen=seen)
    scene = Scene(
        facts=facts, draw=draw, ref="{}", noun=noun, skill="table reading", names=names, phrases=phrases
    )
    return ask(rng, "integer" if form == "choice" else form, scene)


def _cycle(rng: Random, form: Form) -> Draft:
    """Coloured stages on a ring with their lengths in days; arrows run clockwise from the top."""
    names = rng.sample(list(COLOURS), rng.choice((3, 4)))
    seen = dict(zip(names, numbers(rng, len(names)), strict=True))

    def draw(canvas: Canvas) -> None:
        start = canvas.rng.uniform(-110, -70)
        turn = 360 / len(names)
        ring = [_on_ring(start + turn * k, 32) for k in range(len(names))]
        for k in range(len(names)):
            gap = 34
            canvas.arrow(_on_ring(start + turn * k + gap, 34), _on_ring(start + turn * (k + 1) - gap, 34))
        for at, (name, value) in zip(ring, seen.items(), strict=True):
            canvas.disc(at, 14, canvas.colour(name))
            canvas.disc(at, 10, (255, 255, 255), edge=False)
            canvas.text(at, value, size=min(15, canvas.font_size))

    phrases = {
        "read": ("How many days is {a}?", "How long is {a}?"),
        "sum": ("How many days are {a} and {b} together?", "How long are {a} and {b} together?"),
        "difference": ("How many days longer is {a} than {b}?",),
        "total": ("How many days is the whole cycle?", "How long is the whole cycle?"),
        "largest": ("Which stage is the longest?", "Which stage has the most days?"),
        "smallest": ("Which stage is the shortest?", "Which stage has the least days?"),
    }
    facts = Facts(scene="cycle", seen=seen)
    ref = "the {} stage"
    return ask(
        rng, form, Scene(facts=facts, draw=draw, ref=ref, noun="stages", skill="diagram", phrases=phrases)
    )


def _on_ring(degrees: float, radius: float) -> tuple[float, float]:
    return 48 + radius * math.cos(math.radians(degrees)), 48 + radius * math.sin(math.radians(degrees))


_CORNERS = ((22, 24), (74, 24), (74, 72), (22, 72))


def _chain(rng: Random, form: Form) -> Draft:
    """Four living things joined by arrows; the question is who follows, or comes before, one of them."""
    names = rng.sample(list(LIVING), 4)
    seen = {f"{names[k]} to": names[k + 1] for k in range(3)}

    def draw(canvas: Canvas) -> None:
        turn, flip = canvas.rng.randrange(4), canvas.rng.random() < 0.5
        corners = [_CORNERS[(turn + (-k if flip else k)) % 4] for k in range(4)]
        for k, (at, name) in enumerate(zip(corners, names, strict=True)):
            LIVING[name](canvas, at, canvas.rng.uniform(12, 14))
            if k:
                x, y = corners[k - 1]
                start = (x + 0.36 * (at[0] - x), y + 0.36 * (at[1] - y))
                canvas.arrow(start, (x + 0.66 * (at[0] - x), y + 0.66 * (at[1] - y)))

    facts = Facts(scene="chain", seen=seen)
    writer = Writer(rng, facts)
    writer.see()
    query = rng.choice(("after", "before", "two after", "two before"))
    if query.startswith("two"):
        k = rng.randrange(2)
        first, last = names[k], names[k + 2]
        writer.need(f"{names[k]} to", f"{names[k + 1]} to")
        asked, answer = (first, last) if query == "two after" else (last, first)
    else:
        k = rng.randrange(3)
        writer.need(f"{names[k]} to")
        asked, answer = names[k : k + 2] if query == "after" else names[k : k + 2][::-1]
    wording = {
        "after": ("What comes after the {}?", "What eats the {}?"),
        "before": ("What comes before the {}?", "What does the {} eat?"),
        "two after": ("What comes 2 steps after the {}?", "What comes 2 arrows after the {}?"),
        "two before": ("What comes 2 steps before the {}?", "What comes 2 arrows before the {}?"),
    }
    others = [name for name in LIVING if name not in (asked, answer)]
    return Draft(
        query=f"{query} {asked}",
        question=rng.choice(wording[query]).format(asked),
        answer=answer,
        steps=tuple(writer.steps),
        facts=facts,
        draw=draw,
        skills=("scientific reasoning", "diagram"),
        options=(answer, *rng.sample(others, 3)),
    )


KINDS = (
    Kind(name="table", build=_table),
    Kind(name="cycle", build=_cycle),
    Kind(name="chain", build=_chain, forms=("choice",)),
)
