"""The endless, seeded sequence of items, and the splits that cannot share content.

Distinct content keys by kind, a lower bound from 40,000 drafts each: right 440, missing 800, rectangle 2,750,
chain 3,600, angles 4,800, sizes 8,400, triangle and joined 10,000, every other kind 27,000 or more. `val` and
`test` hold a tenth each; in the first 4,000 of `val` 8 % repeat content in a new drawing, mostly geometry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from mstar_pl.data.minivista import fqa, gps, mwp, tqa, vqa
from mstar_pl.data.minivista.drawing import Canvas
from mstar_pl.data.minivista.grammar import ANSWER, CHOOSE, LETTERS, caption
from mstar_pl.data.minivista.record import Draft, Form, Item, Kind
from mstar_pl.types import Prompt

_KINDS: dict[str, tuple[Kind, ...]] = {
    "figure question answering": fqa.KINDS,
    "geometry problem solving": gps.KINDS,
    "math word problem": mwp.KINDS,
    "textbook question answering": tqa.KINDS,
    "visual question answering": vqa.KINDS,
}
TASKS: tuple[str, ...] = tuple(_KINDS)
"""The five tasks, named as in MathVista."""

SPLITS: dict[str, range] = {
    "pretrain": range(40),
    "train": range(40, 80),
    "val": range(80, 90),
    "test": range(90, 100),
}
"""Which of the 100 hash buckets of content keys belong to which split."""

_FORMS: dict[Form, int] = {"integer": 60, "float": 15, "choice": 25}


def split_of(key: str) -> str:
    """Return the only split in which a content key may occur."""
    bucket = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % 100
    return next(name for name, buckets in SPLITS.items() if bucket in buckets)


@dataclass(frozen=True)
class MiniVista:
    """An endless sequence of items; item `i` depends on the seed, the split, the tasks and `i` alone.

    Tasks come in balanced blocks. The splits are disjoint by construction: the content key of an item (kind,
    query and all that is seen, without wording, drawing and options) is hashed, and an item is redrawn until
    its key belongs to the split.

    Args:
        seed: Seed of the sequence.
        split: `pretrain`, `train`, `val` or `test`.
        tasks: The tasks to draw from, a subset of `TASKS`.

    Raises:
        ValueError: The split or a task is unknown.

    >>> MiniVista(split="val")[7].prompt.id
    'minivista-0-val-7'
    """

    seed: int = 0
    split: str = "train"
    tasks: Sequence[str] = TASKS

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.split not in SPLITS:
            raise ValueError(f"split {self.split!r} is not one of {', '.join(SPLITS)}")
        if not self.tasks or set(self.tasks) - set(TASKS):
            raise ValueError(f"tasks {self.tasks!r} must be one or more of {', '.join(TASKS)}")

    def __getitem__(self, index: int) -> Item:
        """Return one item; `index` counts from 0 without end."""
        if index < 0:
            raise IndexError("MiniVista has no end to count back from; use an index of 0 or more")
        rng = Random(f"{self.seed}/{self.split}/{index}")
        task = self._task(index)
        form: Form = rng.choices(list(_FORMS), list(_FORMS.values()))[0]
        kind = rng.choice([kind for kind in _KINDS[task] if form in kind.forms])
        draft, key = self._draft(rng, kind, form)
        return _finish(
            rng,
            draft,
            form,
            kind=kind.name,
            task=task,
            key=key,
            id_=f"minivista-{self.seed}-{self.split}-{index}",
        )

    def __iter__(self) -> Iterator[Item]:
        """Yield items without end."""
        index = 0
        while True:
            yield self[index]
            index += 1

    def _task(self, index: int) -> str:
        block, place = divmod(index, len(self.tasks))
        return Random(f"{self.seed}/{self.split}/block {block}").sample(list(self.tasks), len(self.tasks))[
            place
        ]

    def _draft(self, rng: Random, kind: Kind, form: Form) -> tuple[Draft, str]:
        while True:
            draft = kind.build(rng, form)
            seen = ", ".join(sorted(f"{name} {value}" for name, value in draft.facts.seen.items()))
            key = f"{kind.name} | {draft.query} | {seen}"
            if split_of(key) == self.split:
                return draft, key


def number_options(rng: Random, answer: str) -> list[str]:
    """Return a number and two or three near it, none below 0."""
    step, places = (0.5, 1) if "." in answer else (1, 0)
    offsets = [
        offset for offset in (-10, -5, -3, -2, -1, 1, 2, 3, 5, 10) if float(answer) + offset * step >= 0
    ]
    near = rng.sample(offsets, rng.choice((2, 3, 3)))
    return [answer, *(f"{float(answer) + offset * step:.{places}f}" for offset in near)]


def _options(rng: Random, draft: Draft) -> tuple[str, ...]:
    """Return three or four shuffled options: those of the draft, or numbers near the answer."""
    options = list(draft.options or number_options(rng, draft.answer))
    rng.shuffle(options)
    return tuple(options)


def _finish(rng: Random, draft: Draft, form: Form, *, kind: str, task: str, key: str, id_: str) -> Item:
    choices, steps, written = None, draft.steps, draft.answer
    if form == "choice":
        choices = _options(rng, draft)
        written = LETTERS[choices.index(draft.answer)]
        steps = (*steps, f"{rng.choice(CHOOSE)} {written}: {draft.answer}.")
    prompt = Prompt(
        id=id_,
        question=draft.question,
        answer=draft.answer,
        choices=choices,
        question_type="multi_choice" if choices else "free_form",
        answer_type="text" if choices else "float" if draft.precision else "integer",
        precision=None if choices else draft.precision,
        metadata={"task": task, "source": "MiniVista", "kind": kind, "skills": list(draft.skills)},
    )
    canvas = Canvas(rng)
    draft.draw(canvas)
    return Item(
        prompt=prompt,
        image=canvas.finish(),
        solution="\n\n".join((*steps, ANSWER, written)),
        caption=caption(draft.facts),
        facts=draft.facts,
        key=key,
        marks=tuple(canvas.marks),
    )
