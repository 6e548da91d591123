"""Drawing primitives: a small noisy canvas with text, shapes and arrows."""

from __future__ import annotations

import math
from functools import cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

SIZE = 96
"""Edge of every picture, in pixels."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 45, 45),
    "blue": (45, 85, 220),
    "green": (45, 160, 65),
    "yellow": (238, 208, 40),
    "purple": (150, 60, 185),
    "orange": (245, 135, 25),
}
SHAPES = ("circle", "square", "triangle", "star")

Point = tuple[float, float]
Rgb = tuple[int, int, int]
Mark = tuple[float, float, str]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


class Canvas:
    """A 96 x 96 picture; everything drawn is shifted by a common jitter, and colours vary a little.

    Args:
        rng: Source of every random choice of the drawing.

    Attributes:
        marks: What was written or drawn where, in pixels: `(x, y, "12")`, `(x, y, "circle")`.
    """

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        base = rng.randint(228, 255)
        self.paper: Rgb = tuple(min(255, base + rng.randint(-6, 6)) for _ in range(3))  # type: ignore[assignment]
        self.ink: Rgb = tuple(rng.randint(0, 60) for _ in range(3))  # type: ignore[assignment]
        self.font_size = rng.randint(13, 17)
        self._image = Image.new("RGB", (SIZE, SIZE), self.paper)
        self._draw = ImageDraw.Draw(self._image)
        self.marks: list[Mark] = []
        self._shift = (rng.randint(-2, 2), rng.randint(-2, 2))
        self._clutter()

    def colour(self, name: str) -> Rgb:
        """Return a shade of a named colour."""
        red, green, blue = (max(0, min(255, part + self.rng.randint(-18, 18))) for part in COLOURS[name])
        return red, green, blue

    def text(self, at: Point, text: object, *, fill: Rgb | None = None, size: int | None = None) -> None:
        """Write a short text centred at a point, with a pixel of jitter."""
        x, y = self._at((at[0] + self.rng.uniform(-1, 1), at[1] + self.rng.uniform(-1, 1)))
        font = _font(size or self.font_size)
        self.marks.append((x, y, str(text)))
        self._draw.text((x, y), str(text), fill=fill or self.ink, font=font, anchor="mm")

    def line(self, *points: Point, fill: Rgb | None = None, width: int = 2) -> None:
        """Draw a line through points."""
        self._draw.line([self._at(point) for point in points], fill=fill or self.ink, width=width)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb | None, *, edge: bool = True) -> None:
        """Draw a rectangle."""
        corners = [self._at((x0, y0)), self._at((x1, y1))]
        self._draw.rectangle(corners, fill=fill, outline=self.ink if edge else None)

    def disc(
        self, at: Point, radius: float, fill: Rgb | None, *, edge: bool = True, flat: float = 1.0
    ) -> None:
        """Draw a circle, or an ellipse whose height is `flat` times its width."""
        x, y = self._at(at)
        corners = (x - radius, y - radius * flat, x + radius, y + radius * flat)
        self._draw.ellipse(corners, fill=fill, outline=self.ink if edge else None)

    def polygon(self, points: list[Point], fill: Rgb | None, *, edge: bool = True) -> None:
        """Draw a closed polygon."""
        shifted = [self._at(point) for point in points]
        self._draw.polygon(shifted, fill=fill, outline=self.ink if edge else None)

    def slice(self, at: Point, radius: float, start: float, end: float, fill: Rgb) -> None:
        """Draw a slice of a pie between two angles in degrees."""
        x, y = self._at(at)
        corners = (x - radius, y - radius, x + radius, y + radius)
        self._draw.pieslice(corners, start, end, fill=fill, outline=self.ink)

    def arrow(self, start: Point, end: Point) -> None:
        """Draw an arrow."""
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        self.line(start, end)
        wings = [
            (end[0] - 6 * math.cos(angle + turn), end[1] - 6 * math.sin(angle + turn)) for turn in (0.6, -0.6)
        ]
        self.polygon([end, *wings], self.ink)

    def shape(self, shape: str, at: Point, radius: float, fill: Rgb) -> None:
        """Draw a shape of `SHAPES` around a point."""
        x, y = at
        self.marks.append((*self._at(at), shape))
        if shape == "circle":
            self.disc(at, radius, fill)
        elif shape == "square":
            self.box(x - radius * 0.88, y - radius * 0.88, x + radius * 0.88, y + radius * 0.88, fill)
        elif shape == "triangle":
            self.polygon(
                [(x, y - radius), (x + radius, y + radius * 0.8), (x - radius, y + radius * 0.8)], fill
            )
        else:
            radii = (radius * 1.15, radius * 0.48)
            turns = [(math.pi * (k / 5 - 0.5), radii[k % 2]) for k in range(10)]
            self.polygon([(x + r * math.cos(turn), y + r * math.sin(turn)) for turn, r in turns], fill)

    def finish(self) -> Image.Image:
        """Return the picture with pixel noise."""
        noise = Image.frombytes("RGB", (SIZE, SIZE), self.rng.randbytes(3 * SIZE * SIZE))
        return Image.blend(self._image, noise, self.rng.uniform(0.03, 0.12))

    def _at(self, point: Point) -> Point:
        return point[0] + self._shift[0], point[1] + self._shift[1]

    def _clutter(self) -> None:
        pale: Rgb = tuple(part - self.rng.randint(8, 22) for part in self.paper)  # type: ignore[assignment]
        for _ in range(self.rng.randint(0, 3)):
            ends = [(self.rng.randint(0, SIZE), self.rng.randint(0, SIZE)) for _ in range(2)]
            self._draw.line(ends, fill=pale, width=self.rng.randint(1, 2))


def spots(rng: Random, count: int) -> list[Point]:
    """Return the centres of `count` (at most 16) cells of a 4 x 4 grid in random order, with jitter."""
    cells = rng.sample(range(16), count)
    return [
        (13 + 23.4 * (c % 4) + rng.uniform(-2, 2), 13 + 23.4 * (c // 4) + rng.uniform(-2, 2)) for c in cells
    ]
