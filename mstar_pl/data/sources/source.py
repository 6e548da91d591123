"""What a source of prompts is, and what most share: a table, and a function from a row to a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from mstar_pl.data.records import Lazy
from mstar_pl.data.references import MARK, absence, anchored, archive
from mstar_pl.data.sources.fields import absent
from mstar_pl.data.tables import Row, Table, open_table
from mstar_pl.types import InputError, Prompt


class PromptSource(Protocol):
    """Where prompts come from; a configuration chooses one by `class_path`."""

    def load(self) -> Sequence[Prompt]:
        """Open the data and return its prompts, read when they are asked for.

        Raises:
            InputError: The data are missing or in no known form.
        """
        ...


class RowSource(ABC):
    """Prompts from the rows of a table; subclasses say in `read` what a row means.

    Args:
        path: A data file or a folder, in any form that `open_table` knows.
        images: Folder to which image paths are relative, or the zip archive that holds them; default is the
            folder of the data.
        split: Split of a folder.
    """

    def __init__(self, path: str | Path, images: str | Path | None = None, split: str | None = None) -> None:
        self.path = Path(path)
        self.images = Path(images) if images is not None else folder_of(self.path)
        self.split = split

    @abstractmethod
    def read(self, number: int, row: Row) -> Prompt:
        """Return the prompt of a row.

        Args:
            number: Number of the row, counted from 0.
            row: Its cells by column.

        Raises:
            ValueError: The row is at fault; says what is and how to mend it.
        """

    def load(self) -> Sequence[Prompt]:
        """Open the table and check its first row; the others are read when they are asked for.

        Raises:
            InputError: The table is missing, empty or in no known form, or its first row is at fault.
        """
        table = open_table(self.path, self.split)
        if not table:
            raise InputError(f"{self.path}: no rows; the data set is empty")
        prompts = Prompts(table, self)
        _ = prompts[0]
        return prompts

    def image(self, cell: Any) -> tuple[str, ...]:
        """Return the images of a cell: a path, a list of paths, or what `open_table` made of image bytes.

        Raises:
            ValueError: The cell holds something else, or an image does not exist.
        """
        return tuple(locate(image, self.images) for image in image_names(cell))


class Prompts(Lazy[Prompt]):
    """Prompts of a table, each read when it is asked for.

    Args:
        table: The table.
        source: What reads its rows.
    """

    def __init__(self, table: Table, source: RowSource) -> None:
        self.table = table
        self.source = source

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.table)

    def __iter__(self) -> Iterator[Prompt]:
        """Yield the prompts one by one."""
        for number, (name, row) in enumerate(self.table):
            yield self._prompt(number, name, row)

    def _read(self, place: int) -> Prompt:
        return self._prompt(place, *self.table[place])

    def _prompt(self, number: int, name: str, row: Row) -> Prompt:
        try:
            prompt = self.source.read(number, row)
            prompt.check()
            return prompt
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None


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
    if wrong := next((one for one in names if not isinstance(one, str)), None):
        raise ValueError(f"an image must be a path, got {wrong!r:.60}; keep image bytes in Parquet or Arrow")
    return names


def locate(image: str, root: Path) -> str:
    """Return an image's path made absolute, or its reference into the archive `root`.

    The members of an archive may lie in a folder of its name.

    Raises:
        ValueError: The image does not exist.
    """
    if MARK in image or root.suffix != ".zip":
        found = anchored(image, root)
    else:
        file = anchored(root.name, root.parent)
        members = archive(file).NameToInfo
        member = next((one for one in (image, f"{root.stem}/{image}") if one in members), image)
        found = f"{file}{MARK}{member}"
    if (fault := absence(found)) is not None:
        raise ValueError(f"image {image!r} {fault}; image paths are relative to {root}")
    return found
