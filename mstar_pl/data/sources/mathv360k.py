"""MathV360K (`Zhiqiang007/MathV360K`, Math-LLaVA, arXiv 2406.17294), and the paper's split of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mstar_pl.data.sources.fields import gold_choice, hinted_type, parse_question, text_of
from mstar_pl.data.sources.source import RowSource
from mstar_pl.data.tables import Row
from mstar_pl.types import Prompt

TASKS = {
    "figure question answering": ("DocVQA", "FigureQA", "DVQA", "PlotQA", "ChartQA", "MapQA"),
    "geometry problem solving": ("GEOS", "Geometry3K", "GeoQA+", "UniGeo"),
    "math word problem": ("IconQA", "CLEVR-Math", "TabMWP"),
    "textbook question answering": ("TQA", "AI2D", "ScienceQA"),
    "visual question answering": (
        "A-OKVQA",
        "VQA2.0",
        "PMC-VQA",
        "VizWiz",
        "Super-CLEVR",
        "VQA-AS",
        "VQA-RAD",
        "TextVQA",
    ),
}
"""The sources of each of MathVista's tasks (arXiv 2406.17294, table 6)."""

_SAYS = re.compile(r"\A\s*The answer is\b:?\s*", re.IGNORECASE)
_FOLDER = "data_images"


class MathV360K(RowSource[Prompt]):
    """Prompts of `train_samples_all_tuning.json`, or of a Parquet or JSONL copy of it.

    The task is that of the source, which the first folder of the image's path names. Ids are made of the
    row's number, since the published ones may repeat; those are kept as `metadata.identity`.

    Args:
        path: The file.
        images: Folder `data_images`, or `data_images.zip`; default is the folder of the file.
        tasks: Tasks of further sources by the names of their folders.
        faulty: Whether to `refuse` or `skip` rows at fault: with missing images, or with answers that name
            none of the choices.
        options: Further options of `RowSource`: split.
    """

    def __init__(
        self,
        path: str | Path,
        images: str | Path | None = None,
        tasks: dict[str, str] | None = None,
        faulty: Literal["refuse", "skip"] = "skip",
        **options: Any,
    ) -> None:
        super().__init__(path, images, faulty=faulty, **options)
        named = [(source, task) for task, sources in TASKS.items() for source in sources]
        self.tasks = tasks or {}
        self._tasks = {_plain(source): task for source, task in (*named, *self.tasks.items())}

    def read(self, number: int, row: Row) -> Prompt:
        """Return the prompt of a row."""
        asked, said = turns_of(row)
        image = text_of(row.get("image"), "image").removeprefix(f"{_FOLDER}/")
        parsed = parse_question(asked)
        answer = answer_of(said, parsed.choices)
        answer_type, precision = hinted_type(parsed.hint)
        return Prompt(
            id=f"mathv360k-{number}",
            question=parsed.question,
            images=self.image(image),
            answer=answer,
            choices=parsed.choices,
            question_type="multi_choice" if parsed.choices else "free_form",
            answer_type=answer_type,
            precision=precision,
            metadata=self._metadata(image, row),
        )

    def _metadata(self, image: str, row: Row) -> Mapping[str, Any]:
        source, _, _ = image.partition("/")
        if (task := self._tasks.get(_plain(source))) is None:
            raise ValueError(
                f"folder {source!r} is none of the 24 sources; name its task in the option tasks"
            )
        identity = {"identity": str(row["id"])} if row.get("id") is not None else {}
        return {"task": task, "source": source, **identity}


def turns_of(row: Row) -> tuple[str, str]:
    """Return what is asked and answered in the `conversations` of a row.

    Raises:
        ValueError: They are not one human turn and one answer.
    """
    turns = row.get("conversations")
    turns = [turn for turn in turns if isinstance(turn, dict)] if isinstance(turns, list) else []
    if [turn.get("from") for turn in turns] != ["human", "gpt"]:
        raise ValueError("field 'conversations' must be one human turn and one gpt turn")
    asked, said = (turn.get("value") for turn in turns)
    if not isinstance(asked, str) or not isinstance(said, str):
        raise ValueError("both turns of 'conversations' must have a text as 'value'")
    return asked, said


def answer_of(said: str, choices: tuple[str, ...] | None) -> str:
    """Return the answer of a gpt turn: `The answer is X`, or X alone; the text of a choice if there are some.

    Raises:
        ValueError: It is empty, or names none of the choices.

    >>> answer_of("The answer is 16.2 kg.", None), answer_of("The answer is B", ("North", "South"))
    ('16.2 kg', 'South')
    """
    answer = _SAYS.sub("", said).strip().removesuffix(".").strip()
    if not answer:
        raise ValueError(f"no answer in {said!r:.60}; mend the row, or remove it")
    return gold_choice(answer, choices) if choices else answer


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
