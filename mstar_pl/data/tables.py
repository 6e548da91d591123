"""Rows of data files as they are published: JSONL, JSON, TSV, CSV, Parquet, Arrow, or a folder of them.

Nothing is held in memory but where the rows lie. An image inside a row comes back as a reference to its cell
(`mstar_pl.data.references`): rows are light, whatever the images weigh.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from mstar_pl.data.arrow_tables import ArrowTable, ParquetTable
from mstar_pl.data.elements import DelimitedRows, Elements
from mstar_pl.data.jsonl import decode_object
from mstar_pl.data.records import Lazy, Lines, Pieces
from mstar_pl.data.references import MARK
from mstar_pl.types import InputError

Row = dict[str, Any]
Table = Lazy[tuple[str, Row]]
IMAGE_COLUMN = "image"
_BASE64 = re.compile(r"(?:data:image/[\w.+-]+;base64,)?([A-Za-z0-9+/\s]{64,}={0,2}\s*)")
_TEXTS = {".jsonl", ".json", ".tsv", ".csv"}
_COLUMNS = {".parquet", ".arrow"}
_PART = re.compile(r"-(\d+)-of-(\d+)")
csv.field_size_limit(sys.maxsize)  # images are fields


def open_table(path: str | Path, split: str | None = None) -> Table:
    """Open a data file, or a folder of Parquet or Arrow files, by its name.

    Rows come with a name for messages: `file.jsonl:12` (a line, counted from 1), `file.tsv: row 7` (counted
    from 0) or `file.json: pid 7001` (of an object of rows, whose key is put in as `pid` where the row has
    none). Text files may be packed by gzip (`.gz`).

    Args:
        path: A JSONL file, a JSON list or object of rows, TSV or CSV with a header, Parquet, Arrow, or a
            folder: what `datasets` saves, or any with Parquet or Arrow files.
        split: In a folder: files that are named by it, as in `test-00000-of-00001.parquet` or `test/…`.

    Raises:
        InputError: There is no such file, it is in none of the forms, or the split is missing.
    """
    path = Path(path)
    if path.is_dir():
        return JoinedTable([_open_file(file) for file in _files_of(path, split)])
    if split is not None:
        raise InputError(f"{path}: split {split!r} needs a folder; give the folder, or leave the split out")
    return _open_file(path)


def embedded(value: Any) -> str | None:
    """Return the base64 text of an image that a cell of a text file holds; None for a path or anything else.

    >>> embedded("pictures/7.png"), embedded("31"), embedded("data:image/png;base64," + "iVBO" * 20)[:8]
    (None, None, 'iVBOiVBO')
    """
    found = _BASE64.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else None


class TextTable(Table):
    """Rows of a JSONL, JSON, TSV or CSV file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = _kind(path)
        self.pieces: Pieces
        if kind == ".json":
            self.pieces = Elements(path)
        else:
            self.pieces = Lines(path) if kind == ".jsonl" else DelimitedRows(path)
        self._delimiter = "," if kind == ".csv" else "\t"
        self._first = 0
        if isinstance(self.pieces, DelimitedRows):
            self._header, self._first = self._fields(f"{path}: header", self.pieces[0][1]), 1
            if twice := next((one for one in self._header if self._header.count(one) > 1), None):
                raise InputError(f"{path}: two columns have the name {twice!r}; rename one")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.pieces) - self._first

    def text(self, place: int, column: str) -> str | None:
        """Return the base64 text of the image in a cell."""
        return embedded(self._row(place)[1].get(column))

    def _read(self, place: int) -> tuple[str, Row]:
        name, row = self._row(place)
        if embedded(row.get(IMAGE_COLUMN)):
            row[IMAGE_COLUMN] = MARK.join([str(self.path.absolute()), str(place), IMAGE_COLUMN])
        return name, row

    def _row(self, place: int) -> tuple[str, Row]:
        number, piece = self.pieces[place + self._first]
        name = f"{self.path}:{number}" if isinstance(self.pieces, Lines) else f"{self.path}: row {place}"
        try:
            if isinstance(self.pieces, DelimitedRows):
                return name, self._named(self._fields(name, piece))
            if isinstance(self.pieces, Elements) and self.pieces.keyed:
                (key, row), *_ = decode_object(b"{" + piece + b"}").items()
                if not isinstance(row, dict):
                    raise ValueError(f"{key!r} holds no row; give a file of the rows alone")
                return f"{self.path}: pid {key}", {"pid": key} | row
            return name, decode_object(piece)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(f"{name}: {error}") from None

    def _fields(self, name: str, piece: bytes) -> list[str]:
        try:
            return next(csv.reader([piece.decode().rstrip("\r\n")], delimiter=self._delimiter, strict=True))
        except UnicodeDecodeError as error:
            raise InputError(f"{name}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
        except csv.Error as error:
            fix = "a quote is not closed or not doubled, or lines do not end in a line feed"
            raise InputError(f"{name}: {error}: {fix}") from None

    def _named(self, fields: list[str]) -> Row:
        if len(fields) != len(self._header):
            raise ValueError(f"{len(fields)} fields, but the header has {len(self._header)}; mend the row")
        return dict(zip(self._header, fields, strict=True))


class JoinedTable(Table):
    """Rows of several files, one after the other.

    Args:
        parts: The files.
    """

    def __init__(self, parts: Sequence[Table]) -> None:
        self.parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Yield the rows one by one."""
        return chain.from_iterable(self.parts)

    def _read(self, place: int) -> tuple[str, Row]:
        number = bisect_right(self._ends, place)
        return self.parts[number][place - (self._ends[number - 1] if number else 0)]


def _open_file(path: Path) -> Table:
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    kind = _kind(path)
    if kind in _COLUMNS:
        return ParquetTable(path) if kind == ".parquet" else ArrowTable(path)
    if kind in _TEXTS:
        return TextTable(path)
    known = ", ".join(sorted(_TEXTS | _COLUMNS))
    raise InputError(f"{path}: is no table by its name; known are {known}")


def _kind(path: Path) -> str:
    """Return the form of a file by its name.

    >>> _kind(Path("a.JSON")), _kind(Path("a.tsv.gz"))
    ('.json', '.tsv')
    """
    name = Path(path.name.lower())
    packed = Path(name.stem).suffix
    return packed if name.suffix == ".gz" and packed in _TEXTS else name.suffix


def _files_of(folder: Path, split: str | None) -> list[Path]:
    if split is not None and (folder / split).is_dir():
        folder, split = folder / split, None
    if (folder / "state.json").is_file():
        return _saved_files(folder)
    found = {path: _split_of(path) for path in sorted(folder.rglob("*")) if _kind(path) in _COLUMNS}
    splits = sorted(set(found.values()))
    if split is None and len(splits) > 1:
        raise InputError(f"{folder}: holds {', '.join(splits)}; choose one by the option split")
    if not (chosen := [path for path in found if split in (None, found[path])]):
        holds = f"holds {', '.join(splits)}" if splits else "holds no Parquet or Arrow file"
        raise InputError(f"{folder}: {holds}; check the path{f' and split {split!r}' if split else ''}")
    _check_whole(folder, chosen)
    return chosen


def _saved_files(folder: Path) -> list[Path]:
    """Return the files that `datasets` says it saved; others are caches."""
    state = folder / "state.json"
    try:
        names = [part["filename"] for part in json.loads(state.read_text("utf-8"))["_data_files"]]
        if not all(Path(name).name == name for name in names):
            raise ValueError("a file lies in another folder")
    except (ValueError, KeyError, TypeError) as error:
        fault = f"does not list the files of a saved data set ({error})"
        raise InputError(f"{state}: {fault}; save it again") from None
    return [folder / name for name in names]


def _check_whole(folder: Path, files: Sequence[Path]) -> None:
    """Refuse files of several configurations, and parts of which one is missing or there twice."""
    parents = sorted({str(file.parent.relative_to(folder)) for file in files})
    if len(parents) > 1:
        raise InputError(f"{folder}: holds {', '.join(parents)}; give the path of one of them")
    parts = [found for file in files if (found := _PART.search(file.name))]
    numbers, total = sorted(int(part[1]) for part in parts), max((int(part[2]) for part in parts), default=0)
    if numbers != list(range(total)):
        held = ", ".join(map(str, numbers))
        raise InputError(f"{files[0].parent}: holds the parts {held} of {total}; fetch all, each once")


def _split_of(path: Path) -> str:
    """Return the split that a file is named by, as `test-00000-of-00001.parquet` or `test/0000.parquet`."""
    name = re.split(r"[-.]", path.name)[0]
    return path.parent.name if name.isdecimal() or name in ("data", "part") else name
