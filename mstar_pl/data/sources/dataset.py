"""Prompts of a table that names its columns as the field does: question, answer, image, choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, cast, get_args

from mstar_pl.data.sources import fields as cells
from mstar_pl.data.sources.fields import AnswerForm
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
"""Columns in which a field of a prompt is looked for, the first that is filled."""


class DatasetPrompts(RowSource[Prompt]):
    """Prompts of a `datasets` folder, Parquet, Arrow, JSON, JSONL, TSV or CSV file.

    Options are a list in one column, or the columns A, B, C, … as in VLMEvalKit's files. The columns
    `question_type`, `answer_type`, `unit`, `precision`, `query` and `metadata` mean what they mean in a
    prompt. A row without an id has its number as id.

    Args:
        path: The file or folder.
        fields: Column of `id`, `question`, `answer`, `images` or `choices`, where it has a name of its own.
        answer_form: How the answer of a multiple-choice question names the choice: its `text`, a `letter`, an
            `index` from 0, or `any` of them, which refuses the text of one that is the letter of another.
        metadata: Columns to keep in the prompt's metadata.
        options: Options of `RowSource`: images, split, faulty.

    Raises:
        InputError: `fields` or `answer_form` says something unknown.
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
        cells.check_known("fields", fields or {}, COLUMNS)
        cells.check_known("answer_form", [answer_form], get_args(AnswerForm))
        self.fields = fields or {}
        self.answer_form = answer_form
        self.metadata = metadata

    def read(self, number: int, row: Row) -> Prompt:
        """Return the prompt of a row."""
        choices = self._choices(row)
        answer = cells.text_or_none(self._cell(row, "answer"), "answer")
        if choices and answer is not None:
            given, answer = answer.strip(), cells.gold_choice(answer, choices, self.answer_form)
            if self.answer_form == "any" and given in choices and given != answer:
                raise ValueError(
                    f"answer {given!r} is the letter of {answer!r}; say in answer_form which it is"
                )
        return Prompt(
            id=cells.text_or_none(self._cell(row, "id"), "id") or str(number),
            question=cells.text_of(self._cell(row, "question", needed=True), "question"),
            images=self.image(self._cell(row, "images")),
            answer=answer,
            choices=choices or None,
            question_type="multi_choice" if choices else "free_form",
            answer_type=cast(AnswerType, cells.text_or_none(row.get("answer_type"), "answer_type") or "text"),
            unit=cells.text_or_none(row.get("unit"), "unit"),
            precision=cells.whole_or_none(row.get("precision"), "precision"),
            query=cells.text_or_none(row.get("query"), "query"),
            metadata=self._metadata(row),
        )

    def _cell(self, row: Row, field: str, needed: bool = False) -> Any:
        names = (self.fields[field],) if field in self.fields else COLUMNS[field]
        return cells.find(row, names, field, needed or field in self.fields)

    def _choices(self, row: Row) -> tuple[str, ...]:
        listed = self._cell(row, "choices")
        if not cells.absent(listed):
            return cells.texts_of(listed, "choices")
        if "A" not in row:
            return ()
        lettered = set(ascii_uppercase) - set(self.fields.values())
        filled = "".join(sorted(name for name in lettered if not cells.absent(row.get(name))))
        if not ascii_uppercase.startswith(filled):
            raise ValueError(f"options are in the columns {', '.join(filled)}: one is empty; fill it")
        return tuple(cells.text_of(row[name], name) for name in filled)

    def _metadata(self, row: Row) -> Mapping[str, Any]:
        return cells.mapping_of(row.get("metadata"), "metadata") | {
            name: cells.find(row, (name,), name) for name in self.metadata
        }


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
        response = cells.find(row, (self.response,), "response")
        if not isinstance(response, str) or not response.strip():
            raise ValueError(f"{self.response!r} is empty; training needs a response for each prompt")
        return Example(prompt=self.prompts.read(number, row), response=response)
