"""Prompts of a table that names its columns as the field does: question, answer, image, choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from string import ascii_uppercase
from typing import Any, cast

from mstar_pl.data.jsonl import decode_object
from mstar_pl.data.sources.fields import AnswerForm, absent, gold_choice
from mstar_pl.data.sources.source import RowSource
from mstar_pl.data.tables import Row
from mstar_pl.types import AnswerType, Example, Prompt

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "pid", "index", "question_id"),
    "question": ("question", "problem", "prompt"),
    "answer": ("answer", "ground_truth"),
    "images": ("images", "decoded_image", "image", "image_path"),
    "choices": ("choices", "options"),
}
"""Columns in which a field of a prompt is looked for, the first that a row has."""


class DatasetPrompts(RowSource[Prompt]):
    """Prompts of a `datasets` folder, Parquet, Arrow, JSON, JSONL, TSV or CSV file.

    Options are a list in one column, or the columns A, B, C, … as in VLMEvalKit's files. The columns
    `question_type`, `answer_type`, `unit`, `precision`, `query` and `metadata` mean what they mean in a
    prompt. A row without an id has its number as id.

    Args:
        path: The file or folder.
        fields: Column of `id`, `question`, `answer`, `images` or `choices`, where it has a name of its own.
        answer_form: How the answer of a multiple-choice question names the choice: its `text`, a `letter`, an
            `index` from 0, or `any` of them.
        metadata: Columns to keep in the prompt's metadata.
        options: Options of `RowSource`: images, split, faulty.
    """

    def __init__(
        self,
        path: str | Path,
        fields: dict[str, str] | None = None,
        answer_form: AnswerForm = "any",
        metadata: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.fields = fields or {}
        self.answer_form = answer_form
        self.metadata = metadata

    def read(self, number: int, row: Row) -> Prompt:
        """Return the prompt of a row."""
        identity, answer = self._cell(row, "id"), self._cell(row, "answer")
        choices = self._choices(row)
        answer = None if absent(answer) else str(answer)
        if choices and answer is not None:
            answer = gold_choice(answer, choices, self.answer_form)
        precision = _text(row, "precision")
        return Prompt(
            id=str(number if absent(identity) else identity),
            question=str(self._cell(row, "question", needed=True)),
            images=self.image(self._cell(row, "images")),
            answer=answer,
            choices=choices or None,
            question_type="multi_choice" if choices else "free_form",
            answer_type=cast(AnswerType, _text(row, "answer_type") or "text"),
            unit=_text(row, "unit"),
            precision=None if precision is None else int(float(precision)),
            query=_text(row, "query"),
            metadata=self._metadata(row),
        )

    def _cell(self, row: Row, field: str, needed: bool = False) -> Any:
        names = (self.fields[field],) if field in self.fields else COLUMNS[field]
        return find(row, names, field, needed or field in self.fields)

    def _choices(self, row: Row) -> tuple[str, ...]:
        listed = self._cell(row, "choices")
        if isinstance(listed, list):
            return tuple(str(choice) for choice in listed)
        if not absent(listed):
            raise ValueError(f"choices must be a list, got {listed!r:.60}; name their column in fields")
        lettered = takewhile(lambda name: not absent(row.get(name)), ascii_uppercase)
        return tuple(str(row[name]) for name in lettered)

    def _metadata(self, row: Row) -> Mapping[str, Any]:
        given = row.get("metadata") or {}
        if isinstance(given, str):  # as published data sets have it
            given = decode_object(given.encode())
        return given | {name: find(row, (name,), name) for name in self.metadata}


class DatasetExamples(RowSource[Example]):
    """Prompts as `DatasetPrompts` reads them, with a response to learn.

    Args:
        prompts: How the prompts are read, and from where.
        response: Column of the response.
    """

    def __init__(self, prompts: DatasetPrompts, response: str = "response") -> None:
        super().__init__(prompts.path, prompts.images, prompts.split, prompts.faulty)
        self.prompts = prompts
        self.response = response

    def read(self, number: int, row: Row) -> Example:
        """Return the example of a row."""
        response = find(row, (self.response,), "response")
        if not isinstance(response, str) or not response.strip():
            raise ValueError(f"{self.response!r} is empty; training needs a response for each prompt")
        return Example(prompt=self.prompts.read(number, row), response=response)


def find(row: Row, names: Iterable[str], field: str, needed: bool = True) -> Any:
    """Return the cell of the first of some columns that a row has; None where none is needed.

    Raises:
        ValueError: It has none of them; names the columns that it has.
    """
    for name in names:
        if name in row:
            return row[name]
    if needed:
        columns = f"no column {' or '.join(names)} for {field!r}, only {', '.join(row)}"
        raise ValueError(f"{columns}; name it in the option fields")
    return None


def _text(row: Row, column: str) -> str | None:
    return None if absent(row.get(column)) else str(row[column])
