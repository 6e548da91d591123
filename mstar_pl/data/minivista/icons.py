"""Small pictures of objects and living things, each drawn around a point with a radius."""

from __future__ import annotations

from collections.abc import Callable

from mstar_pl.data.minivista.drawing import Canvas, Point

Icon = Callable[[Canvas, Point, float], None]


def _apple(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    canvas.disc((x, y + 0.1 * r), 0.9 * r, canvas.colour("red"))
    canvas.line((x, y - 0.6 * r), (x + 0.3 * r, y - 1.2 * r))


def _pear(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    fill = canvas.colour("green")
    canvas.disc((x, y - 0.45 * r), 0.5 * r, fill)
    canvas.disc((x, y + 0.35 * r), 0.8 * r, fill)
    canvas.line((x, y - 0.9 * r), (x + 0.2 * r, y - 1.3 * r))


def _ball(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    canvas.disc(at, 0.95 * r, canvas.colour("blue"))
    canvas.box(x - 0.85 * r, y - 0.2 * r, x + 0.85 * r, y + 0.2 * r, (250, 250, 250), edge=False)


def _star(canvas: Canvas, at: Point, r: float) -> None:
    canvas.shape("star", at, r, canvas.colour("yellow"))


def _cup(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    canvas.disc((x + 0.6 * r, y), 0.45 * r, None)
    outline = [(x - 0.9 * r, y - 0.8 * r), (x + 0.7 * r, y - 0.8 * r), (x + 0.5 * r, y + 0.9 * r)]
    canvas.polygon([*outline, (x - 0.7 * r, y + 0.9 * r)], canvas.colour("orange"))


def _book(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    canvas.box(x - 0.7 * r, y - 0.95 * r, x + 0.7 * r, y + 0.95 * r, canvas.colour("purple"))
    canvas.line((x - 0.4 * r, y - 0.9 * r), (x - 0.4 * r, y + 0.9 * r), fill=(250, 250, 250))


def _grass(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    fill = canvas.colour("green")
    for lean in (-0.9, -0.3, 0.3, 0.9):
        foot = x + 0.5 * lean * r
        canvas.polygon([(foot - 2, y + r), (foot + 2, y + r), (x + lean * r, y - r)], fill, edge=False)


def _bug(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    canvas.disc((x, y - 0.7 * r), 0.4 * r, canvas.ink)
    canvas.disc((x, y + 0.1 * r), 0.85 * r, canvas.colour("red"))
    canvas.line((x, y - 0.7 * r), (x, y + 0.9 * r), width=1)
    for side in (-0.4, 0.4):
        canvas.disc((x + side * r, y + 0.1 * r), 0.2 * r, canvas.ink)


def _fish(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    fill = canvas.colour("blue")
    canvas.polygon([(x + 0.4 * r, y), (x + 1.1 * r, y - 0.7 * r), (x + 1.1 * r, y + 0.7 * r)], fill)
    canvas.disc((x - 0.2 * r, y), 0.9 * r, fill, flat=0.65)
    canvas.disc((x - 0.6 * r, y - 0.1 * r), 0.15 * r, (255, 255, 255))


def _bird(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    fill = canvas.colour("yellow")
    canvas.disc((x - 0.2 * r, y + 0.3 * r), 0.75 * r, fill)
    canvas.disc((x + 0.3 * r, y - 0.5 * r), 0.45 * r, fill)
    canvas.polygon(
        [(x + 0.6 * r, y - 0.8 * r), (x + 1.2 * r, y - 0.5 * r), (x + 0.6 * r, y - 0.2 * r)], (240, 90, 20)
    )


def _frog(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    fill = canvas.colour("green")
    canvas.disc((x, y + 0.2 * r), 0.95 * r, fill, flat=0.75)
    for side in (-0.5, 0.5):
        canvas.disc((x + side * r, y - 0.55 * r), 0.35 * r, (255, 255, 255))
        canvas.disc((x + side * r, y - 0.55 * r), 0.15 * r, canvas.ink)


def _fox(canvas: Canvas, at: Point, r: float) -> None:
    x, y = at
    fill = canvas.colour("orange")
    for side in (-1, 1):
        canvas.polygon([(x + side * 0.9 * r, y - 1.1 * r), (x + side * r, y), (x, y - 0.4 * r)], fill)
    canvas.polygon([(x - r, y - 0.3 * r), (x + r, y - 0.3 * r), (x, y + r)], fill)
    canvas.disc((x, y + 0.8 * r), 0.2 * r, canvas.ink)


OBJECTS: dict[str, Icon] = {
    "apple": _apple,
    "pear": _pear,
    "ball": _ball,
    "star": _star,
    "cup": _cup,
    "book": _book,
}
"""Countable objects with a price; the plural ends in s."""

LIVING: dict[str, Icon] = {
    "grass": _grass,
    "bug": _bug,
    "fish": _fish,
    "bird": _bird,
    "frog": _frog,
    "fox": _fox,
}
"""Members of a food chain."""
