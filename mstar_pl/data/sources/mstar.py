"""The sets that M-STAR was trained on: chains of thought, and labelled steps (arXiv 2412.17451).

Their columns are not documented: they are looked for under the field's names, and can be named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mstar_pl.data.sources.fields import ParsedQuestion, absent, check_known, find, parse_question, text_of
from mstar_pl.data.sources.mathv360k import turns_of
from mstar_pl.data.sources.source import R, RowSource
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.tables import Row
from mstar_pl.types import Example, Prompt

QUESTION = ("question", "query", "prompt", "input")
RESPONSE = ("response", "solution", "answer", "output")
IMAGES = ("image", "images", "image_path")
STEPS = ("output", "steps", "completions")
LABELS = ("label", "labels")


class MStarRows(RowSource[R]):
    """What both sets share.

    Args:
        path: A file or folder in any form that `open_table` knows.
        fields: Column of `question`, `images`, `response`, `steps` or `labels`, where none is found.
        options: Options of `RowSource`: images, split, faulty.
    """

    def __init__(self, path: str | Path, fields: dict[str, str] | None = None, **options: Any) -> None:
        super().__init__(path, **options)
        check_known("fields", fields or {}, ("question", "images", "response", "steps", "labels"))
        self.fields = fields or {}

    def _cell(self, row: Row, field: str, names: Sequence[str], needed: bool = True) -> Any:
        return find(row, [self.fields[field]] if field in self.fields else names, field, needed)

    def _prompt(self, number: int, row: Row, asked: str) -> Prompt:
        parsed: ParsedQuestion = parse_question(asked)
        identity = row.get("id")
        return Prompt(
            id=f"{self.path.stem}-{number}" if absent(identity) or identity == -1 else str(identity),
            question=parsed.question,
            images=self.image(self._cell(row, "images", IMAGES, needed=False)),
            choices=parsed.choices,
            question_type="multi_choice" if parsed.choices else "free_form",
        )


class CotExamples(MStarRows[Example]):
    """Questions with chains of thought, in columns or as `conversations` of two turns; see `MStarRows`."""

    def read(self, number: int, row: Row) -> Example:
        """Return the example of a row."""
        if "conversations" in row and not self.fields.keys() & {"question", "response"}:
            asked, response = turns_of(row)
        else:
            asked = text_of(self._cell(row, "question", QUESTION), "question")
            found = [name for name in RESPONSE if not absent(row.get(name))]
            if len(found) > 1 and "response" not in self.fields:
                raise ValueError(
                    f"columns {', '.join(found)} may be the response; name it in the option fields"
                )
            response = text_of(self._cell(row, "response", RESPONSE), "response")
        return Example(prompt=self._prompt(number, row, asked), response=response)


class MprmSteps(MStarRows[StepLabels]):
    """Solutions in steps with a label each, 1 or 0 or a share in between; see `MStarRows`."""

    def read(self, number: int, row: Row) -> StepLabels:
        """Return the labelled steps of a row."""
        asked = text_of(self._cell(row, "question", QUESTION), "question")
        steps, labels = self._cell(row, "steps", STEPS), self._cell(row, "labels", LABELS)
        if not isinstance(steps, list) or not isinstance(labels, list):
            raise ValueError("steps and labels must be lists, one label a step")
        prompt = self._prompt(number, row, asked)
        return StepLabels.from_json(prompt.to_json() | {"steps": steps, "labels": labels})
