"""What a source is, and what most sources share: a table, and a function from a row to a record."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from mstar_pl.data.records import Lazy, View
from mstar_pl.data.references import MARK, container, locate
from mstar_pl.data.sources.fields import absent, check_known
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.tables import Row, Table, open_table
from mstar_pl.types import Example, InputError, Prompt

log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R", bound=Prompt | Example | StepLabels)


class Source(ABC, Generic[T]):
    """Where prompts, examples or labelled steps come from; a configuration chooses one by `class_path`.

    Attributes:
        path: The file or folder that is read, where there is one.
    """

    path: Path | None = None

    @property
    def origin(self) -> str:
        """Where the data come from, for messages."""
        return type(self).__name__ if self.path is None else str(self.path)

    @abstractmethod
    def load(self) -> Sequence[T]:
        """Open the data and return the records, read when they are asked for.

        Raises:
            InputError: The data are missing or in no known form.
        """


class RowSource(Source[R]):
    """Records from the rows of a table; subclasses say in `read` what a row means.

    Args:
        path: A data file or a folder, in any form that `open_table` knows.
        images: Folder to which image paths are relative, or the zip archive that holds them; default is the
            folder of the data.
        split: Split of a folder.
        faulty: What becomes of a row at fault, e.g. one whose image is missing: `refuse` the data when it is
            read, or `skip` it. Then all rows are read once by `load`, and the log says what was skipped.
    """

    path: Path

    def __init__(
        self,
        path: str | Path,
        images: str | Path | None = None,
        split: str | None = None,
        faulty: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        check_known("faulty", [faulty], ("refuse", "skip"))
        self.path = Path(path)
        self.images = Path(images) if images is not None else folder_of(self.path)
        self.split = split
        self.faulty = faulty

    @abstractmethod
    def read(self, number: int, row: Row) -> R:
        """Return the record of a row.

        Args:
            number: Number of the row, counted from 0.
            row: Its cells by column.

        Raises:
            ValueError: The row is at fault; says what is and how to mend it.
        """

    def load(self) -> Sequence[R]:
        """Open the table and check its first row; the others are read when they are asked for.

        Raises:
            InputError: The table is missing, empty or in no known form, or its first row is at fault.
        """
        return opened(self.records(), self.faulty, self.origin)

    def records(self) -> TableRecords[R]:
        """Open the table; every row is checked when it is read.

        Raises:
            InputError: The table is missing, empty or in no known form.
        """
        table = open_table(self.path, self.split)
        if not table:
            raise InputError(f"{self.path}: no rows; the data set is empty")
        return TableRecords(table, self._checked)

    def image(self, cell: Any) -> tuple[str, ...]:
        """Return the images of a cell: a path, a list of paths, or what `open_table` made of image bytes.

        Raises:
            ValueError: The cell holds something else, or an image does not exist or lies elsewhere.
        """
        return tuple(locate(self.own(image), self.images) for image in image_names(cell))

    def own(self, image: str) -> str:
        """Return the path or reference of an image of these data; it comes from strangers, and may lie.

        Raises:
            ValueError: It leads out of the folder of images, to no file of the data either.
        """
        # Links are not followed: they are made here.
        file = Path(os.path.abspath(self.images / container(image)))
        inside = file.is_relative_to(os.path.abspath(self.images))
        if not inside and not (MARK in image and file in self._files):
            raise ValueError(f"image {image!r:.80} lies outside of {self.images}; name its folder in images")
        return image

    @cached_property
    def _files(self) -> set[Path]:
        parts = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return {part.absolute() for part in parts}

    def _checked(self, number: int, row: Row) -> R:
        record = self.read(number, row)
        prompt_of(record).check()
        return record


class TableRecords(Lazy[T]):
    """Records of a table, each read when it is asked for.

    Args:
        table: The table.
        read: Function from number and cells of a row to its record; a `ValueError` is the row's fault.
    """

    def __init__(self, table: Table, read: Callable[[int, Row], T]) -> None:
        self.table = table
        self.read = read

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def __iter__(self) -> Iterator[T]:
        """Yield the records one by one."""
        for number, (name, row) in enumerate(self.table):
            yield self._record(number, name, row)

    def _read(self, place: int) -> T:
        return self._record(place, *self.table[place])

    def _record(self, number: int, name: str, row: Row) -> T:
        try:
            return self.read(number, row)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(f"{name}: {error}") from None


def prompt_of(record: Prompt | Example | StepLabels) -> Prompt:
    """Return a prompt itself, or the one that a record belongs to."""
    return record if isinstance(record, Prompt) else record.prompt


def folder_of(path: Path) -> Path:
    """Return a data folder itself, or the folder of a data file."""
    return path if path.is_dir() else path.parent


def image_names(cell: Any) -> list[str]:
    """Return the paths or references in an image cell, none for an empty one.

    Raises:
        ValueError: It holds something else.

    >>> image_names("a.png"), image_names(["a.png", "b.png"]), image_names(None), image_names(["a.png", None])
    (['a.png'], ['a.png', 'b.png'], [], ['a.png'])
    """
    cells = cell if isinstance(cell, list) else [cell]
    names = [one for one in cells if not absent(one)]
    if wrong := [one for one in names if not isinstance(one, str)]:
        raise ValueError(
            f"an image must be a path, got {wrong[0]!r:.60}; keep image bytes in Parquet or Arrow"
        )
    return names


def read_all(records: Sequence[R]) -> Iterator[R | InputError]:
    """Yield every record of a source, or what is at fault with it; an id that was used already is a fault.

    One prompt may have several examples: their ids may repeat.
    """
    seen: set[int] = set()  # hashes, which take less memory than ids
    for place in range(len(records)):
        try:
            record = records[place]
        except InputError as error:
            yield error
            continue
        if isinstance(record, Prompt):
            key = hash(record.id)
            if key in seen:
                yield InputError(f"row {place}: id {record.id!r} was already used; ids must be unique")
                continue
            seen.add(key)
        yield record


class Sound(View[R]):
    """Records that were all read and are not at fault."""


def sound(records: Sequence[R], source: str) -> Sound[R]:
    """Return the records that are not at fault; the log says how many others were skipped, and the first.

    Raises:
        InputError: None is left.
    """
    kept, first = array("q"), None
    for place, record in enumerate(read_all(records)):
        if isinstance(record, InputError):
            first = first or record
        else:
            kept.append(place)
    if not kept:
        raise InputError(f"{source}: every row is at fault, the first: {first}")
    if first is not None:
        count = len(records) - len(kept)
        log.warning("%s: skipped %d of %d rows at fault, the first: %s", source, count, len(records), first)
    return Sound(records, kept)


def opened(records: Sequence[R], faulty: Literal["refuse", "skip"], source: str) -> Sequence[R]:
    """Return records with the first one checked, or those that are not at fault; see `RowSource`."""
    if faulty == "skip":
        return sound(records, source)
    _ = records[0]
    return records


def validated(records: Sequence[R], source: str) -> Sequence[R]:
    """Read every record once, where that was not done, and return them all.

    Raises:
        InputError: One is at fault, or repeats an id; names the row.
    """
    if isinstance(records, Sound):
        return records
    if fault := next((one for one in read_all(records) if isinstance(one, InputError)), None):
        text = str(fault) if source in str(fault) else f"{source}: {fault}"
        raise InputError(f"{text} (mstar-pl data check lists all such rows; faulty: skip leaves them out)")
    return records
