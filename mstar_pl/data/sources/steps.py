"""Labelled steps of the published process-supervision sets, in any form of table."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mstar_pl.data.records import Lazy
from mstar_pl.data.sources.fields import check_known
from mstar_pl.data.sources.source import RowSource, Source, TableRecords, image_names, opened
from mstar_pl.data.step_formats import StepFormat, images_of, step_decoder
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.tables import Row, Table, open_table
from mstar_pl.types import InputError

Fork = tuple[list[str], list[float | None]]


class StepRows(RowSource[StepLabels]):
    """VisualPRM400K (raw or not), Math-Shepherd, stepwise sets or our own: a row is a response.

    Args:
        path: A file or folder in any form that `open_table` knows.
        format: See `mstar_pl.data.step_formats`; None finds it out from the first row.
        options: Options of `RowSource`: images, split, faulty.
    """

    def __init__(self, path: str | Path, format: StepFormat | None = None, **options: Any) -> None:
        super().__init__(path, **options)
        self.format = format
        self._decode = step_decoder(self.path, format, self.images)

    def read(self, number: int, row: Row) -> StepLabels:
        """Return the labelled steps of a row."""
        for image in image_names(images_of(row)):
            self.own(image)
        return self._decode(number + 1, row)


class Prm800k(Source[StepLabels]):
    """PRM800K (`phase1_train.jsonl` …): each completion that a labeller did not choose forks a response.

    A response is the prefix of chosen steps and the fork, as in TRL's stepwise set (`trl-lib/prm800k`). A
    rating of 1 is right, 0 and -1 are wrong; a step without a rating has no label, one that the labeller
    wrote is right.

    Args:
        path: The file.
        faulty: Whether to `refuse` or `skip` responses at fault; see `RowSource`.
    """

    path: Path

    def __init__(self, path: str | Path, faulty: Literal["refuse", "skip"] = "refuse") -> None:
        check_known("faulty", [faulty], ("refuse", "skip"))
        self.path = Path(path)
        self.faulty: Literal["refuse", "skip"] = faulty

    def load(self) -> Sequence[StepLabels]:
        """Count the forks of each row, and return the responses, read when they are asked for.

        Raises:
            InputError: The file is missing, has no response, or the first is at fault.
        """
        return opened(self.records(), self.faulty, self.origin)

    def records(self) -> Sequence[StepLabels]:
        """Return the responses, each checked when it is read; a row that cannot be read stands for one.

        Raises:
            InputError: The file is missing, or has no response.
        """
        rows = TableRecords(open_table(self.path), lambda number, row: forks(row))
        places, numbers = array("q"), array("q")
        for place in range(len(rows)):
            try:
                num = len(rows[place])
            except InputError:
                num = 1
            places.extend([place] * num)
            numbers.extend(range(num))
        if not places:
            raise InputError(f"{self.path}: no labelled step; the data set is empty")
        return _Forks(rows.table, places, numbers)


class _Forks(Lazy[StepLabels]):
    def __init__(self, table: Table, places: array[int], numbers: array[int]) -> None:
        self.table = table
        self.places = places
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.places)

    def _read(self, place: int) -> StepLabels:
        number, fork = self.places[place], self.numbers[place]
        name, row = self.table[number]
        try:
            return self._record(f"prm800k-{number}-{fork}", row, *forks(row)[fork])
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None

    def _record(self, id: str, row: Row, steps: list[str], labels: list[float | None]) -> StepLabels:
        question = row["question"]
        prompt = {
            "id": id,
            "images": [],
            "question": question["problem"],
            "answer": question.get("ground_truth_answer"),
        }
        return StepLabels.from_json(prompt | {"steps": steps, "labels": labels})


def forks(row: Row) -> list[Fork]:
    """Return the responses of a PRM800K row: steps and labels of each fork, and of the chosen path.

    Raises:
        ValueError: The row is not laid out as PRM800K's.

    >>> steps = [{"completions": [{"text": "a", "rating": 1}, {"text": "b", "rating": -1}],
    ...           "chosen_completion": 0, "human_completion": None}]
    >>> forks({"question": {"problem": "?"}, "label": {"steps": steps}})
    [(['b'], [0.0]), (['a'], [1.0])]
    """
    try:
        _ = row["question"]["problem"]
        found, path = _walk(row["label"]["steps"])
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a row of PRM800K: {type(error).__name__} {error}") from None
    return [*found, path] if path[0] else found


def _walk(steps: Sequence[Row]) -> tuple[list[Fork], Fork]:
    """Return the forks, and the path of chosen steps."""
    found: list[Fork] = []
    texts: list[str] = []
    labels: list[float | None] = []
    for step in steps:
        completions, chosen = step["completions"] or [], step["chosen_completion"]
        for place, one in enumerate(completions):
            if place != chosen:
                found.append(([*texts, one["text"]], [*labels, _label(one)]))
        if chosen is None and step["human_completion"] is None:
            break
        written: Any = {"text": _human(step), "rating": 1} if chosen is None else completions[chosen]
        texts, labels = [*texts, written["text"]], [*labels, _label(written)]
    return found, (texts, labels)


def _human(step: Row) -> str:
    written = step["human_completion"]
    return written if isinstance(written, str) else written["text"]


def _label(completion: Row) -> float | None:
    return None if completion["rating"] is None else float(completion["rating"] == 1)
