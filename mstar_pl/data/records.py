"""Records of a JSONL file, read when they are asked for; in memory is 16 bytes a line."""

from __future__ import annotations

import os
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from mstar_pl.types import InputError

T = TypeVar("T")
CHUNK = 1 << 22
"""Bytes that are read at a time to find the lines."""


class Lazy(Sequence[T], Generic[T]):
    """A sequence whose slices and choices are views: nothing is read before it is asked for."""

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> View[T]: ...
    def __getitem__(self, place: int | slice) -> T | View[T]:
        """Return one record, or a view of several."""
        if isinstance(place, slice):
            return View(self, range(len(self))[place])
        return self._read(range(len(self))[place])

    def __iter__(self) -> Iterator[T]:
        """Yield the records one by one."""
        return map(self._read, range(len(self)))

    @abstractmethod
    def _read(self, place: int) -> T:
        """Return one record; `place` lies within the sequence."""


class View(Lazy[T]):
    """Some records of a sequence, in an order.

    Args:
        records: The sequence.
        places: Positions in it.

    >>> letters = View("abcd", [3, 1, 1])
    >>> len(letters), letters[0], list(letters[1:]), letters[-1]
    (3, 'd', ['b', 'b'], 'b')
    """

    def __init__(self, records: Sequence[T], places: Iterable[int]) -> None:
        self._records = records
        self._places = places if isinstance(places, range) else array("q", places)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._places)

    def _read(self, place: int) -> T:
        return self._records[self._places[place]]


class Lines(Lazy[tuple[int, bytes]]):
    """Line numbers, counted from 1, and bytes of the lines of a file that are not blank.

    Opening it reads the file once, in pieces, and keeps 16 bytes a line. The file stays open: one that is
    replaced later does not change what is read.

    Raises:
        InputError: The file is missing, or a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self._bounds = array("q", [0])  # where each line ends
        self._kept = array("q")
        offset, blank = 0, True
        while piece := os.pread(self._file, CHUNK, offset):
            start = 0
            while (end := piece.find(b"\n", start) + 1) > 0:
                if not (blank and not piece[start:end].strip()):
                    self._kept.append(len(self._bounds) - 1)
                self._bounds.append(offset + end)
                start, blank = end, True
            blank = blank and not piece[start:].strip()
            offset += len(piece)
        if offset > self._bounds[-1]:
            if not blank:
                self._kept.append(len(self._bounds) - 1)
            self._bounds.append(offset)

    def __len__(self) -> int:
        """Return the number of lines that are not blank."""
        return len(self._kept)

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file to its process."""
        return {name: value for name, value in self.__dict__.items() if name != "_file"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file again."""
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        try:
            if self.path.is_dir():
                raise InputError(f"{self.path}: is a folder; give the JSONL file inside it")
            self._file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file; check the path") from None

    def _read(self, place: int) -> tuple[int, bytes]:
        row = self._kept[place]
        begin, end = self._bounds[row : row + 2]
        return row + 1, os.pread(self._file, end - begin, begin)


class Records(Lazy[T]):
    """Records of a JSONL file, each decoded when it is asked for.

    Args:
        lines: Lines of the file.
        decode: Function from number and bytes of a line to its record.
    """

    def __init__(self, lines: Lines, decode: Callable[[int, bytes], T]) -> None:
        self.lines = lines
        self.decode = decode

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.lines)

    def _read(self, place: int) -> T:
        return self.decode(*self.lines[place])
