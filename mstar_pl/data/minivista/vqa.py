"""Visual question answering: count shapes and dice, compare sizes, find colours."""

from __future__ import annotations

from random import Random

from mstar_pl.data.minivista.drawing import COLOURS, SHAPES, Canvas, Point, spots
from mstar_pl.data.minivista.grammar import Writer
from mstar_pl.data.minivista.queries import Scene, ask
from mstar_pl.data.minivista.record import Draft, Facts, Form, Kind

_COUNTING = {
    "read": ("How many {a} are there?", "Count the {a}."),
    "sum": ("How many {a} and {b} are there together?", "Count the {a} and the {b} together."),
    "difference": ("How many more {a} than {b} are there?",),
    "total": ("How many shapes are there in total?", "Count all the shapes."),
    "largest": ("Which shapes are there most of?", "Which shapes have the highest number?"),
    "smallest": ("Which shapes are there least of?", "Which shapes have the lowest number?"),
    "average": ("What is the average number of the shapes?",),
}


def _shapes(rng: Random, form: Form) -> Draft:
    count = rng.choice((2, 2, 3, 3)) if form != "choice" else 3
    colours = sorted(rng.sample(list(COLOURS), count), key=list(COLOURS).index)
    kinds = [f"{colour} {shape}" for colour, shape in zip(colours, rng.choices(SHAPES, k=count), strict=True)]
    values = {f"{kind}s": rng.randint(1, 9 if count == 2 else 5) for kind in kinds}
    if sum(values.values()) > 16:
        return _shapes(rng, form)

    def draw(canvas: Canvas) -> None:
        radius = canvas.rng.uniform(8, 10)
        drawn = [name.rstrip("s").split() for name, number in values.items() for _ in range(number)]
        for at, (colour, shape) in zip(spots(canvas.rng, len(drawn)), drawn, strict=True):
            canvas.shape(shape, at, radius, canvas.colour(colour))

    facts = Facts(scene="shapes", seen=values)
    scene = Scene(facts=facts, draw=draw, ref="{}", noun="shapes", skill="counting", phrases=_COUNTING)
    return ask(rng, form, scene)


def _corners(canvas: Canvas, count: int) -> list[Point]:
    """Return some of four corners in reading order, so that the picture decides the order of a caption."""
    corners: list[Point] = [(25, 25), (71, 25), (25, 71), (71, 71)]
    return [corners[k] for k in sorted(canvas.rng.sample(range(4), count))]


_PIPS = {
    1: (4,),
    2: (0, 8),
    3: (0, 4, 8),
    4: (0, 2, 6, 8),
    5: (0, 2, 4, 6, 8),
    6: (0, 2, 3, 5, 6, 8),
}


def _dice(rng: Random, form: Form) -> Draft:
    names = rng.sample(list(COLOURS), rng.choice((2, 3, 4)))
    values = {name: rng.randint(1, 6) for name in names}

    def draw(canvas: Canvas) -> None:
        corners = _corners(canvas, len(values))
        for (x, y), (name, value) in zip(corners, values.items(), strict=True):
            canvas.box(x - 20, y - 20, x + 20, y + 20, canvas.colour(name))
            for pip in _PIPS[value]:
                canvas.disc((x - 12 + 12 * (pip % 3), y - 12 + 12 * (pip // 3)), 4, (255, 255, 255))

    facts = Facts(scene="dice", seen=values)
    return ask(rng, form, Scene(facts=facts, draw=draw, ref="the {} die", noun="dice", skill="counting"))


_SIZES = {"small": 7, "medium": 12, "large": 18}


def _sizes(rng: Random, form: Form) -> Draft:
    """Three or four things of one shape and different colours; one size is had by one thing only."""
    names = rng.sample(list(COLOURS), rng.choice((3, 4)))
    wanted = rng.choice(list(_SIZES))
    others = [size for size in _SIZES if size != wanted]
    seen = dict(zip(names, [wanted, *rng.choices(others, k=len(names) - 1)], strict=True))
    answer = names[0]
    shape = rng.choice(SHAPES)
    order = dict(sorted(seen.items(), key=lambda _: rng.random()))

    def draw(canvas: Canvas) -> None:
        corners = _corners(canvas, len(order))
        for at, (name, size) in zip(corners, order.items(), strict=True):
            canvas.shape(shape, at, _SIZES[size], canvas.colour(name))

    facts = Facts(scene="sizes", seen=order)
    writer = Writer(rng, facts)
    writer.see()
    writer.need(answer)
    return Draft(
        query=f"{wanted} {shape}",
        question=rng.choice((f"Which {shape} is {wanted}?", f"What colour is the {wanted} {shape}?")),
        answer=answer,
        steps=tuple(writer.steps),
        facts=facts,
        draw=draw,
        skills=("comparison",),
        options=tuple(names),
    )


_PLACES = {"top left": (26, 26), "top right": (70, 26), "bottom left": (26, 70), "bottom right": (70, 70)}


def _places(rng: Random, form: Form) -> Draft:
    """Four shapes in four corners: what colour, or what shape, has the corner or the shape asked for."""
    things = [
        f"{colour} {shape}"
        for colour, shape in zip(rng.sample(list(COLOURS), 4), rng.choices(SHAPES, k=4), strict=True)
    ]
    colours = [thing.split()[0] for thing in things]
    place = rng.choice(list(_PLACES))
    asked = things[list(_PLACES).index(place)]

    def draw(canvas: Canvas) -> None:
        for at, thing in zip(_PLACES.values(), things, strict=True):
            colour, shape = thing.split()
            jitter = (at[0] + canvas.rng.uniform(-4, 4), at[1] + canvas.rng.uniform(-4, 4))
            canvas.shape(shape, jitter, canvas.rng.uniform(12, 17), canvas.colour(colour))

    seen = {
        f"{where} {thing.split()[0]}": thing.split()[1] for where, thing in zip(_PLACES, things, strict=True)
    }
    facts = Facts(scene="places", seen=seen)
    writer = Writer(rng, facts)
    writer.see()
    writer.need(f"{place} {asked.split()[0]}")
    by_colour = rng.random() < 0.5
    question = f"What colour is the shape at the {place}?" if by_colour else f"Which shape is at the {place}?"
    return Draft(
        query=f"{'colour' if by_colour else 'shape'} {place}",
        question=question,
        answer=asked.split()[0 if by_colour else 1],
        steps=tuple(writer.steps),
        facts=facts,
        draw=draw,
        skills=("comparison",),
        options=tuple(colours) if by_colour else SHAPES,
    )


KINDS = (
    Kind(name="shapes", build=_shapes),
    Kind(name="dice", build=_dice),
    Kind(name="sizes", build=_sizes, forms=("choice",)),
    Kind(name="places", build=_places, forms=("choice",)),
)
