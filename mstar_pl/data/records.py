"""Records of a file, read when they are asked for; in memory is 16 bytes a row."""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from abc import abstractmethod
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
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


class Pieces(Lazy[tuple[int, bytes]]):
    """Numbers, counted from 1, and bytes of the pieces of a file, each the text of one row.

    Opening it reads the file once, a chunk at a time, and keeps at most 16 bytes a piece. The file stays
    open: one that is replaced later does not change what is read. What `gzip` packed (`.gz`) is unpacked into
    a temporary file without a name.

    Raises:
        InputError: The file is missing, or a folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        marked = os.pread(self._file, len(BOM_UTF8), 0) == BOM_UTF8
        self._bounds = array("q", [len(BOM_UTF8) if marked else 0])  # where each piece ends
        self._kept: Sequence[int] = array("q")
        self._index()

    def __len__(self) -> int:
        """Return the number of pieces."""
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

    @abstractmethod
    def _index(self) -> None:
        """Fill `_bounds`, and `_kept` with the numbers, from 0, of the pieces that hold a row."""

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the file in chunks, each with its offset."""
        offset = 0
        while chunk := os.pread(self._file, CHUNK, offset):
            yield offset, chunk
            offset += len(chunk)

    def _open(self) -> None:
        try:
            if self.path.is_dir():
                raise InputError(f"{self.path}: is a folder; give the file inside it")
            self._file = (
                _unpacked(self.path) if self.path.suffix.lower() == ".gz" else os.open(self.path, os.O_RDONLY)
            )
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file; check the path") from None

    def _read(self, place: int) -> tuple[int, bytes]:
        row = self._kept[place]
        begin, end = self._bounds[row : row + 2]
        return row + 1, os.pread(self._file, end - begin, begin)


def _unpacked(path: Path) -> int:
    with TemporaryFile() as file:
        try:
            with gzip.open(path) as packed:
                shutil.copyfileobj(packed, file, CHUNK)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise InputError(f"{path}: cannot be unpacked ({error}); fetch it again") from None
        file.flush()
        return os.dup(file.fileno())


class Lines(Pieces):
    """Line numbers, counted from 1, and bytes of the lines of a file that are not blank."""

    def _index(self) -> None:
        kept = self._kept = array("q")
        blank, length = True, 0
        for offset, chunk in self._chunks():
            start = 0
            while (end := chunk.find(b"\n", start) + 1) > 0:
                if not (blank and not chunk[start:end].strip()):
                    kept.append(len(self._bounds) - 1)
                self._bounds.append(offset + end)
                start, blank = end, True
            blank = blank and not chunk[start:].strip()
            length = offset + len(chunk)
        if length > self._bounds[-1]:
            if not blank:
                kept.append(len(self._bounds) - 1)
            self._bounds.append(length)


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
