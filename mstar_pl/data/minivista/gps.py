"""Geometry problem solving: rectangles, triangles and angles with written measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random

from mstar_pl.data.minivista.drawing import COLOURS, Canvas
from mstar_pl.data.minivista.grammar import Writer
from mstar_pl.data.minivista.record import Draft, Draw, Facts, Form, Kind

Solve = Callable[[Writer], int | str]


def _draft(
    rng: Random, facts: Facts, query: str, questions: tuple[str, ...], solve: Solve, draw: Draw
) -> Draft:
    writer = Writer(rng, facts)
    writer.see()
    answer = str(solve(writer))
    return Draft(
        query=query,
        question=rng.choice(questions),
        answer=answer,
        steps=tuple(writer.steps),
        facts=facts,
        draw=draw,
        skills=("geometry reasoning", "arithmetic reasoning"),
        precision=1 if "." in answer else None,
    )


def _tint(canvas: Canvas) -> tuple[int, int, int]:
    red, green, blue = canvas.colour(canvas.rng.choice(list(COLOURS)))
    return (red + 510) // 3, (green + 510) // 3, (blue + 510) // 3


def _rectangle(rng: Random, form: Form) -> Draft:
    """One rectangle: perimeter, area, half of its area, or the average of its sides."""
    limit = 12 if rng.random() < 0.7 else 30
    width, height = rng.randint(2, limit), rng.randint(2, limit)
    query = rng.choice(("perimeter", "area", "sides") if form != "float" else ("half", "average"))
    if query in ("area", "half"):
        height = rng.randint(2, max(3, 99 // width))

    def draw(canvas: Canvas) -> None:
        scale = 30 / max(width, height)
        half_w, half_h = max(14, scale * width), max(14, scale * height)
        canvas.box(42 - half_w, 40 - half_h, 42 + half_w, 40 + half_h, _tint(canvas))
        canvas.text((42, 40 + half_h + 10), width)
        canvas.text((42 + half_w + 12, 40), height)

    def solve(writer: Writer) -> int | str:
        if query == "area":
            return writer.compute(width, "*", height, "The area is")
        if query == "half":
            return writer.average(writer.compute(width, "*", height, "The area is"), 2)
        around = writer.compute(width, "+", height)
        if query == "average":
            return writer.average(around, 2, "The average is")
        return around if query == "sides" else writer.compute(2, "*", around, "The perimeter is")

    questions = {
        "perimeter": (
            "What is the perimeter of the rectangle?",
            "How long is the line around the rectangle?",
        ),
        "area": ("What is the area of the rectangle?", "Find the area of the rectangle."),
        "half": ("What is half the area of the rectangle?", "Find half of the area of the rectangle."),
        "sides": ("What is the sum of the width and the height?", "Add the width and the height."),
        "average": ("What is the average of the width and the height?",),
    }
    facts = Facts(scene="rectangle", seen={"width": width, "height": height})
    return _draft(rng, facts, query, questions[query], solve, draw)


def _joined(rng: Random, form: Form) -> Draft:
    """Two rectangles side by side, red and blue: whole area, difference of the areas, or the larger one."""
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    areas = {"red": a * b, "blue": c * d}
    larger, smaller = sorted(areas, key=areas.__getitem__, reverse=True)
    query = (
        rng.choice(("whole", "difference"))
        if form == "integer" or areas["red"] == areas["blue"]
        else "larger"
    )

    def draw(canvas: Canvas) -> None:
        canvas.box(20, 60 - 4 * b, 20 + 28, 60, canvas.colour("red"))
        canvas.box(49, 60 - 4 * d, 49 + 28, 60, canvas.colour("blue"))
        canvas.text((34, 71), a)
        canvas.text((63, 71), c)
        canvas.text((9, 60 - 2 * b), b)
        canvas.text((87, 60 - 2 * d), d)

    seen = {"red width": a, "red height": b, "blue width": c, "blue height": d}
    derived = {f"{name} area": area for name, area in areas.items()}
    facts = Facts(scene="rectangle", seen=seen, derived=derived)

    def solve(writer: Writer) -> int | str:
        red = writer.compute(a, "*", b, "The area is")
        blue = writer.compute(c, "*", d, "The area is")
        if query == "larger":
            writer.compare(f"{larger} area", f"{smaller} area")
            return larger
        if query == "whole":
            return writer.compute(red, "+", blue, "The area is")
        return writer.compute(max(red, blue), "-", min(red, blue), "The difference is")

    questions = {
        "whole": ("What is the area of the whole figure?", "Find the total area of the figure."),
        "difference": ("What is the difference between the red area and the blue area?",),
        "larger": ("Which rectangle has the larger area?",),
    }
    draft = _draft(rng, facts, query, questions[query], solve, draw)
    return replace(draft, options=("red", "blue", "equal")) if query == "larger" else draft


_CORNERS = ((12, 74), (84, 74))


def _triangle(rng: Random, form: Form) -> Draft:
    """A triangle with three written sides: its perimeter, its longest side, or the average of the sides."""
    while True:
        left, right, base = (rng.randint(3, 20) for _ in range(3))
        if 2 * max(left, right, base) < left + right + base:
            break
    seen = {"left": left, "right": right, "base": base}
    apex_x = 12 + 72 * (left**2 + base**2 - right**2) / (2 * base**2)
    apex = (min(80.0, max(16.0, apex_x)), 20)

    def draw(canvas: Canvas) -> None:
        canvas.polygon([*_CORNERS, apex], _tint(canvas))
        canvas.text((48, 85), base)
        canvas.text(((12 + apex[0]) / 2 - 9, 42), left)
        canvas.text(((84 + apex[0]) / 2 + 9, 42), right)

    query = rng.choice(("perimeter", "perimeter", "range")) if form != "float" else "average"
    names = sorted(seen, key=lambda name: (seen[name], name))
    if query == "range" and seen[names[0]] == seen[names[2]]:
        query = "perimeter"

    def solve(writer: Writer) -> int | str:
        if query == "range":
            writer.extreme(names[2], largest=True)
            writer.extreme(names[0], largest=False)
            return writer.compute(seen[names[2]], "-", seen[names[0]])
        around = writer.total((left, right, base))
        return around if query == "perimeter" else writer.average(around, 3, "The average is")

    questions = {
        "perimeter": ("What is the perimeter of the triangle?", "How long is the line around the triangle?"),
        "range": ("What is the difference between the largest and the smallest side?",),
        "average": ("What is the average of the sides of the triangle?", "Find the average of the sides."),
    }
    return _draft(rng, Facts(scene="triangle", seen=seen), query, questions[query], solve, draw)


def _right(rng: Random, form: Form) -> Draft:
    """A right triangle with its legs: area (may end in .5), or the square over the long side."""
    base, height = rng.randint(2, 20), rng.randint(2, 20)
    query = "square" if form != "float" and rng.random() < 0.4 else "area"
    if query == "square":
        base, height = rng.randint(1, 9), rng.randint(1, 9)
    elif form == "integer" and base * height % 2:
        base += 1

    def draw(canvas: Canvas) -> None:
        scale = 58 / max(base, height)
        right, top = 24 + max(24, scale * base), 74 - max(24, scale * height)
        canvas.polygon([(24, 74), (right, 74), (24, top)], _tint(canvas))
        canvas.box(24, 68, 30, 74, None)
        canvas.text(((24 + right) / 2, 84), base)
        canvas.text((12, (74 + top) / 2), height)

    def solve(writer: Writer) -> int | str:
        if query == "square":
            squares = [writer.compute(side, "*", side, "The product is") for side in (base, height)]
            return writer.compute(squares[0], "+", squares[1], "The area is")
        product = writer.compute(base, "*", height)
        whole = form == "integer" or (form == "choice" and product % 2 == 0)
        return (
            writer.compute(product, "/", 2, "The area is")
            if whole
            else writer.average(product, 2, "The area is")
        )

    questions = {
        "area": ("What is the area of the triangle?", "Find the area of the triangle."),
        "square": ("What is the area of the square on the long side?",),
    }
    facts = Facts(scene="triangle", seen={"base": base, "height": height})
    return _draft(rng, facts, query, questions[query], solve, draw)


def _angles(rng: Random, form: Form) -> Draft:
    """A triangle with two of its angles: the third angle."""
    while True:
        seen: Mapping[str, int] = {"left": rng.randint(20, 99), "right": rng.randint(20, 99)}
        third = 180 - sum(seen.values())
        if 20 <= third <= 99:
            break

    def draw(canvas: Canvas) -> None:
        slopes = [1 / math.tan(math.radians(angle)) for angle in seen.values()]
        apex = (min(76.0, max(20.0, 5 + 86 * slopes[0] / (slopes[0] + slopes[1]))), 16)
        canvas.polygon([(5, 82), (91, 82), apex], _tint(canvas))
        canvas.text((22, 73), seen["left"], size=14)
        canvas.text((73, 73), seen["right"], size=14)
        canvas.text((apex[0], 35), "?", size=14)

    def solve(writer: Writer) -> int:
        if rng.random() < 0.5:
            return writer.compute(180, "-", writer.compute(seen["left"], "+", seen["right"]), "The angle is")
        return writer.compute(writer.compute(180, "-", seen["left"]), "-", seen["right"], "The angle is")

    facts = Facts(scene="angles", seen=seen)
    questions = ("What is the missing angle of the triangle?", "How large is the angle at the top?")
    return _draft(rng, facts, "third angle", questions, solve, draw)


def _missing(rng: Random, form: Form) -> Draft:
    """A rectangle with its width; the question gives the perimeter or the area and asks for the height."""
    width, height = rng.randint(2, 20), rng.randint(2, 20)
    query = "area" if form == "float" else "perimeter"
    width = rng.randint(2, 9) if query == "area" else width
    area = rng.randint(width + 1, 60)
    around = 2 * (width + height)

    def draw(canvas: Canvas) -> None:
        scale = 30 / max(width, height)
        half_w, half_h = max(14, scale * width), max(14, scale * height)
        canvas.box(42 - half_w, 40 - half_h, 42 + half_w, 40 + half_h, _tint(canvas))
        canvas.text((42, 40 + half_h + 10), width)
        canvas.text((42 + half_w + 10, 40), "?")

    def solve(writer: Writer) -> int | str:
        if query == "area":
            return writer.average(area, width)
        return writer.compute(writer.compute(around, "/", 2), "-", width, "The side is")

    given = area if query == "area" else around
    questions = (
        f"The {query} of the rectangle is {given}. What is its height?",
        f"The {query} is {given}. Find the height.",
    )
    facts = Facts(scene="rectangle", seen={"width": width})
    return _draft(rng, facts, f"{query} {given}", questions, solve, draw)


KINDS = (
    Kind(name="rectangle", build=_rectangle),
    Kind(name="joined", build=_joined, forms=("integer", "choice")),
    Kind(name="triangle", build=_triangle),
    Kind(name="right", build=_right),
    Kind(name="angles", build=_angles, forms=("integer", "choice")),
    Kind(name="missing", build=_missing),
)
