"""Where the rows of a JSON list, a JSON object of rows or a delimited file begin and end.

Found by counting quotes and brackets in whole chunks; nothing is decoded. A row is decoded when it is read.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator

import numpy as np

from mstar_pl.data.records import Pieces
from mstar_pl.types import InputError

_SPACE = b" \t\r\n"
_BACKSLASH = ord("\\")
_FOLD = 0x20  # the bit by which [ differs from {, and ] from }


class Elements(Pieces):
    """Objects in a JSON list, or `"key": object` pairs in a JSON object; see `Pieces`.

    Attributes:
        keyed: Whether it is an object.

    Raises:
        InputError: The file is neither, is cut off, or ends with something else than an object.
    """

    def _index(self) -> None:
        depth = inside = 0
        for offset, text in self._aligned():
            codes = np.frombuffer(text, np.uint8)
            quotes = _delimiters(codes)
            folded = codes | _FOLD
            brackets = np.flatnonzero((folded == ord("{")) | (folded == ord("}")))
            brackets = brackets[(np.searchsorted(quotes, brackets) + inside) % 2 == 0]
            signs = np.where(folded[brackets] == ord("{"), 1, -1)
            depths = depth + np.cumsum(signs)
            _extend(self._bounds, offset + 1 + brackets[(depths == 1) & (signs < 0)])
            depth = int(depths[-1]) if len(depths) else depth
            inside = (inside + len(quotes)) % 2
        self._kept = range(len(self._bounds) - 1)
        self._check()

    def _aligned(self) -> Iterator[tuple[int, bytes]]:
        """Yield the file in chunks that end outside of an escape, each behind a space, with its offset."""
        held = b""
        for offset, chunk in self._chunks():
            text = b" " + held + chunk
            begin = offset - len(held) - 1
            held = b"\\" * ((len(text) - len(text.rstrip(b"\\"))) % 2)
            yield begin, text[: len(text) - len(held)]

    def _check(self) -> None:
        """Find out what the file is; what stands between two rows is seen when the second one is read."""
        begin = os.pread(self._file, 4096, self._bounds[0]).lstrip(_SPACE)[:1]
        self.keyed = begin == b"{"
        end = os.pread(self._file, 4096, self._bounds[-1]).strip(_SPACE)
        if (begin, end[0 if self._kept else 1 :].strip(_SPACE)) not in ((b"[", b"]"), (b"{", b"}")):
            raise InputError(
                f"{self.path}: not a JSON list or object of rows, or cut off; fetch it again, or name it "
                ".jsonl if it has one row a line"
            )

    def _read(self, place: int) -> tuple[int, bytes]:
        number, piece = super()._read(place)
        return number, piece.lstrip(_SPACE)[1:]  # [, { or the comma before it


def _delimiters(codes: np.ndarray) -> np.ndarray:
    r"""Return the places of the quotes that begin or end a string: behind an even number of backslashes.

    >>> _delimiters(np.frombuffer(rb' "a\"b\\"', np.uint8)).tolist()
    [1, 8]
    """
    quotes = np.flatnonzero(codes == ord('"'))
    behind = np.flatnonzero(codes[quotes - 1] == _BACKSLASH)
    places, lengths = quotes[behind], np.ones(len(behind), np.int64)
    longer = np.arange(len(behind))
    while len(longer := longer[codes[places[longer] - lengths[longer] - 1] == _BACKSLASH]):
        lengths[longer] += 1
    return np.delete(quotes, behind[lengths % 2 == 1])


class DelimitedRows(Pieces):
    """Rows of a TSV or CSV file, the header first; a quoted field may hold line ends. See `Pieces`.

    Raises:
        InputError: The file is empty.
    """

    def _index(self) -> None:
        inside = length = 0
        for offset, chunk in self._chunks():
            codes = np.frombuffer(chunk, np.uint8)
            quotes, ends = np.flatnonzero(codes == ord('"')), np.flatnonzero(codes == ord("\n"))
            _extend(self._bounds, offset + 1 + ends[(np.searchsorted(quotes, ends) + inside) % 2 == 0])
            inside = (inside + len(quotes)) % 2
            length = offset + len(chunk)
        if length > self._bounds[-1]:
            self._bounds.append(length)
        self._kept = range(len(self._bounds) - 1)
        short = np.flatnonzero(np.diff(np.asarray(self._bounds)) <= 2).tolist()
        if blank := {place for place in short if not self._read(place)[1].strip()}:
            self._kept = array("q", (place for place in self._kept if place not in blank))
        if not self._kept:
            raise InputError(f"{self.path}: is empty; the first line must name the columns")


def _extend(bounds: array[int], places: np.ndarray) -> None:
    bounds.frombytes(places.astype(np.int64).tobytes())
