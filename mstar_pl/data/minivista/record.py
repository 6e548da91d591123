"""Records of MiniVista: what is seen in a picture, a draft of an item, and the finished item."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from PIL.Image import Image

from mstar_pl.data.minivista.drawing import Canvas, Mark
from mstar_pl.types import Prompt

Form = Literal["integer", "float", "choice"]
Value = int | str
Draw = Callable[[Canvas], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The truth of a picture, against which the steps of a response are checked.

    Attributes:
        scene: Name of the scene; it decides with which words a step may state what is seen.
        seen: What can be read off the picture, by name: `{"red": 4, "blue": 7}`.
        derived: Named results that a comparison may mention once they were computed: `{"red area": 12}`.
    """

    scene: str
    seen: Mapping[str, Value]
    derived: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An item before it is drawn, and before its options are shuffled.

    Attributes:
        query: What is asked, without the wording; with the kind and the facts it makes the content key.
        question: The question in words.
        answer: The answer as text; `precision` says how many decimals it has.
        steps: The solution without its answer part.
        facts: The truth of the picture.
        draw: Draws the picture; called for the accepted draft only.
        skills: MathVista-like skill names.
        precision: Number of decimals of a float answer.
        options: The texts among which a multiple-choice question chooses; None means numbers near the answer.
    """

    query: str
    question: str
    answer: str
    steps: tuple[str, ...]
    facts: Facts
    draw: Draw
    skills: tuple[str, ...]
    precision: int | None = None
    options: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A template of items.

    Attributes:
        name: Name of the kind, unique over all tasks.
        build: Draws a random draft whose answer has the wanted form.
        forms: The forms of answer that this kind can ask for.
    """

    name: str
    build: Callable[[Random, Form], Draft]
    forms: tuple[Form, ...] = ("integer", "float", "choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A picture with a question, a solution and the truth of what is seen.

    Attributes:
        prompt: The question; `images` is empty here, `write_split` fills in the file name.
        image: The picture, 96 x 96, RGB.
        solution: Steps separated by a blank line, then `# Answer` and the answer (the letter of an option).
        caption: All that is seen, in the words of the perception steps.
        facts: The truth of the picture.
        key: The content key: kind, query and facts, without wording and drawing. It decides the split.
        marks: The texts and shapes of the picture with their centres in pixels, `(x, y, "12")`.
    """

    prompt: Prompt
    image: Image
    solution: str
    caption: str
    facts: Facts
    key: str
    marks: tuple[Mark, ...] = ()
