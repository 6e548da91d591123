"""Figure question answering: bar, line and pie charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

from mstar_pl.data.minivista.drawing import COLOURS, Canvas
from mstar_pl.data.minivista.queries import Scene, ask
from mstar_pl.data.minivista.record import Draft, Facts, Form, Kind

Values = Mapping[str, int]


def numbers(rng: Random, count: int) -> list[int]:
    """Draw numbers to be written into a picture: mostly 1 to 9, now and then up to 20."""
    return [rng.randint(10, 20) if rng.random() < 0.15 else rng.randint(1, 9) for _ in range(count)]


def _coloured(rng: Random, low: int = 2) -> dict[str, int]:
    names = rng.sample(list(COLOURS), rng.choice((low, 3, 3, 4)))
    return dict(zip(names, numbers(rng, len(names)), strict=True))


def _lettered(rng: Random) -> dict[str, int]:
    names = "PQRS"[: rng.choice((2, 3, 3, 4))]
    return dict(zip(names, numbers(rng, len(names)), strict=True))


def _chart(
    rng: Random, form: Form, scene: str, values: Values, draw: Callable[[Canvas], None], ref: str
) -> Draft:
    noun = {"bars": "bars", "line": "points", "pie": "slices"}[scene]
    facts = Facts(scene=scene, seen=values)
    return ask(rng, form, Scene(facts=facts, draw=draw, ref=ref, noun=noun, skill="chart reading"))


def _bars(rng: Random, form: Form) -> Draft:
    values = _coloured(rng)

    def draw(canvas: Canvas) -> None:
        pitch, unit = 88 / len(values), 62 / max(*values.values(), 8)
        for k, (name, value) in enumerate(values.items()):
            x = 4 + pitch * (k + 0.5)
            top = 90 - unit * value
            canvas.box(x - pitch * 0.34, top, x + pitch * 0.34, 90, canvas.colour(name))
            canvas.text((x, top - 9), value)
        canvas.line((3, 91), (93, 91))

    return _chart(rng, form, "bars", values, draw, "the {} bar")


def _stacks(rng: Random, form: Form) -> Draft:
    """Bars without numbers: each is a stack of equal boxes, to be counted along the lines of the chart."""
    names = rng.sample(list(COLOURS), rng.choice((2, 3, 3)))
    values = {name: rng.randint(1, 8) for name in names}

    def draw(canvas: Canvas) -> None:
        pitch = 88 / len(values)
        for k, (name, value) in enumerate(values.items()):
            x = 4 + pitch * (k + 0.5)
            fill = canvas.colour(name)
            for level in range(value):
                canvas.box(x - pitch * 0.3, 80 - 10.5 * level, x + pitch * 0.3, 90 - 10.5 * level, fill)
        canvas.line((3, 91), (93, 91))

    return _chart(rng, form, "bars", values, draw, "the {} bar")


def _rows(rng: Random, form: Form) -> Draft:
    values = _lettered(rng)

    def draw(canvas: Canvas) -> None:
        pitch, unit = 90 / len(values), 52 / max(*values.values(), 8)
        for k, (name, value) in enumerate(values.items()):
            y = 3 + pitch * (k + 0.5)
            end = 18 + unit * value
            canvas.text((9, y), name)
            canvas.box(18, y - min(8, pitch * 0.34), end, y + min(8, pitch * 0.34), canvas.colour("blue"))
            canvas.text((end + 11, y), value)

    return _chart(rng, form, "bars", values, draw, "bar {}")


def _line(rng: Random, form: Form) -> Draft:
    values = _lettered(rng)

    def draw(canvas: Canvas) -> None:
        pitch, unit = 88 / len(values), 46 / max(*values.values(), 8)
        fill = canvas.colour(canvas.rng.choice(("red", "blue", "purple")))
        points = [(4 + pitch * (k + 0.5), 74 - unit * value) for k, value in enumerate(values.values())]
        canvas.line(*points, fill=fill)
        for point, (name, value) in zip(points, values.items(), strict=True):
            canvas.disc(point, 3, fill)
            canvas.text((point[0], point[1] - 12), value)
            canvas.text((point[0], 86), name, size=13)

    return _chart(rng, form, "line", values, draw, "point {}")


def _pie(rng: Random, form: Form) -> Draft:
    values = _coloured(rng)

    def draw(canvas: Canvas) -> None:
        whole = sum(values.values()) + 2 * len(values)
        start = canvas.rng.uniform(-100, -80)
        spans = [(name, value, 360 * (value + 2) / whole) for name, value in values.items()]
        labels = []
        for name, value, span in spans:
            canvas.slice((48, 48), 43, start, start + span, canvas.colour(name))
            middle = math.radians(start + span / 2)
            labels.append(((48 + 28 * math.cos(middle), 48 + 28 * math.sin(middle)), value))
            start += span
        for at, value in labels:
            canvas.disc(at, 10, (255, 255, 255), edge=False)
            canvas.text(at, value, size=min(15, canvas.font_size))

    return _chart(rng, form, "pie", values, draw, "the {} slice")


KINDS = (
    Kind(name="bars", build=_bars),
    Kind(name="stacks", build=_stacks),
    Kind(name="rows", build=_rows),
    Kind(name="line", build=_line),
    Kind(name="pie", build=_pie),
)
