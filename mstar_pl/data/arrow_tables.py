"""Rows of Parquet and Arrow files, memory-mapped; of images only whether they are there."""

from __future__ import annotations

import mmap
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mstar_pl.data.records import Lazy
from mstar_pl.data.references import MARK
from mstar_pl.types import InputError

Row = dict[str, Any]
BATCH = 16384
"""Rows of a Parquet file that are decoded at a time."""


class ColumnTable(Lazy[tuple[str, Row]]):
    """Rows of a file of columns.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def image(self, place: int, column: str) -> Any:
        """Return a cell that holds images: bytes, a `datasets` image (`bytes` and `path`), or a list."""

    @cached_property
    @abstractmethod
    def _table(self) -> pa.Table:
        """The columns; of images only whether they are there, or how many."""

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return self._table.to_batches()

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.array([0, *accumulate(batch.num_rows for batch in self._batches)])

    @cached_property
    def _images(self) -> list[str]:
        return [field.name for field in self._schema if _holds_images(field.type)]

    @cached_property
    @abstractmethod
    def _schema(self) -> pa.Schema:
        """The columns of the file."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave what is mapped to its process."""
        return {"path": self.path}

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._begins[-1])

    def __iter__(self) -> Iterator[tuple[str, Row]]:
        """Yield the rows one by one."""
        place = 0
        for batch in self._batches:
            for begin in range(0, batch.num_rows, 1024):
                for row in batch.slice(begin, 1024).to_pylist():
                    yield self._named(place, row)
                    place += 1

    def _read(self, place: int) -> tuple[str, Row]:
        number = int(np.searchsorted(self._begins, place, "right")) - 1
        (row,) = self._batches[number].slice(place - self._begins[number], 1).to_pylist()
        return self._named(place, row)

    def _named(self, place: int, row: Row) -> tuple[str, Row]:
        for column in self._images:
            cell = MARK.join([str(self.path.resolve()), str(place), column])
            found = row[column]  # whether there is one, or how many
            if isinstance(found, bool) or found is None:
                row[column] = cell if found else None
            else:
                row[column] = [f"{cell}{MARK}{item}" for item in range(found)]
        return f"{self.path}: row {place}", row


class ArrowTable(ColumnTable):
    """Rows of an Arrow file or stream, as `datasets` saves them."""

    def image(self, place: int, column: str) -> Any:
        """Return a cell that holds images."""
        return self._mapped[column][place].as_py()

    @cached_property
    def _mapped(self) -> pa.Table:
        source = pa.memory_map(str(self.path))
        try:
            try:
                return pa.ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:  # the other of the two forms
                source.seek(0)
                return pa.ipc.open_file(source).read_all()
        except pa.ArrowException as error:
            raise InputError(f"{self.path}: cannot be read as Arrow ({error}); fetch it again") from None

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._mapped.schema

    @cached_property
    def _table(self) -> pa.Table:
        return pa.Table.from_batches([_light(batch, self._images) for batch in self._mapped.to_batches()])


class ParquetTable(ColumnTable):
    """Rows of a Parquet file, whatever its row groups.

    Its columns, images left out, are decoded once, when a row is first asked for, into a temporary file
    without a name: rows are then as near as those of an Arrow file, and memory holds none of them.

    Raises:
        InputError: It is no Parquet file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        _ = self._metadata  # a file at fault is refused here

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._metadata.num_rows

    def image(self, place: int, column: str) -> Any:
        """Return a cell that holds images; the row group's images are kept for the next call."""
        sizes = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
        begins = np.array([0, *accumulate(sizes)])
        group = int(np.searchsorted(begins, place, "right")) - 1
        return _column_chunk(str(self.path), group, column)[place - begins[group]].as_py()

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        try:
            return pq.read_metadata(self.path)
        except pa.ArrowException as error:
            raise InputError(f"{self.path}: cannot be read as Parquet ({error}); fetch it again") from None

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._metadata.schema.to_arrow_schema()

    @cached_property
    def _table(self) -> pa.Table:
        leaves = [self._metadata.schema.column(place).path for place in range(self._metadata.num_columns)]
        named = {leaf.removesuffix(".path") for leaf in leaves if leaf.endswith(".path")}
        columns = [leaf for leaf in leaves if leaf.removesuffix(".bytes") not in named]
        with TemporaryFile() as file, pq.ParquetFile(self.path, memory_map=True) as source:
            writer = None
            for batch in source.iter_batches(BATCH, columns=columns, use_threads=False):
                batch = _light(batch, self._images)
                writer = writer or pa.ipc.new_stream(file, batch.schema)
                writer.write_batch(batch)
            if writer is None:
                return pa.table({})
            writer.close()
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(mapped))).read_all()


@lru_cache(maxsize=4)
def _column_chunk(path: str, group: int, column: str) -> pa.ChunkedArray:
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read_row_group(group, columns=[column], use_threads=False)[column]


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_images(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_images(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _light(batch: pa.RecordBatch, images: list[str]) -> pa.RecordBatch:
    """Return a batch with images replaced by whether they are there; lists of them by their lengths."""
    columns = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        if name in images:
            listed = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
            values = pc.list_value_length(values) if listed else pc.is_valid(values)
        columns[name] = values
    return pa.RecordBatch.from_pydict(columns)
