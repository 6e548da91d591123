"""Rows of Parquet and Arrow files, memory-mapped; of images only whether they are there.

A column holds images if its cells, or the items of their lists, are structs with `bytes`, as those of
`datasets`, or binary. Binary columns may also hold texts: the first cell tells.
"""

from __future__ import annotations

import mmap
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
"""Most rows of a Parquet file that are decoded at a time."""
BATCH_BYTES = 1 << 26
"""Bytes of a Parquet file that are decoded at a time, about."""
HELD = MARK
"""What stands for an image that a cell holds; one that it only names is its path."""


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
    def _schema(self) -> pa.Schema:
        """The columns of the file."""

    @cached_property
    @abstractmethod
    def _table(self) -> pa.Table:
        """The columns; in place of an image `HELD`, or its path."""

    @abstractmethod
    def _cells(self, column: str) -> Iterable[pa.Scalar]:
        """Return the cells of a column, each read when its turn comes."""

    @cached_property
    def _batches(self) -> list[pa.RecordBatch]:
        return self._table.to_batches()

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.array([0, *accumulate(batch.num_rows for batch in self._batches)])

    @cached_property
    def _images(self) -> list[str]:
        columns = [field.name for field in self._schema if _may_hold_images(field.type)]
        return [column for column in columns if column not in self._texts]

    @cached_property
    def _texts(self) -> list[str]:
        columns = [field.name for field in self._schema if pa.types.is_binary(_items(field.type))]
        return [column for column in columns if _are_texts(self._cells(column))]

    def _light(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with `HELD` in place of images; all of a column that was left out are there."""
        columns = {name: pa.repeat(HELD, batch.num_rows) for name in self._schema.names}
        for name, values in zip(batch.schema.names, batch.columns, strict=True):
            columns[name] = _images_in(values) if name in self._images else values
        return pa.RecordBatch.from_pydict(columns)

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
        name = f"{self.path}: row {place}"
        for column in self._images:
            cell = MARK.join([str(self.path.absolute()), str(place), column])
            row[column] = self._references(cell, row[column])
        for column in self._texts:
            try:
                row[column] = _decoded(row[column])
            except UnicodeDecodeError:
                raise InputError(f"{name}: column {column!r} is not UTF-8; convert it to UTF-8") from None
        return name, row

    def _references(self, cell: str, found: Any) -> Any:
        """Return the reference of an image: its cell, or a path that the images of a source may have."""
        if isinstance(found, list):
            return [self._references(f"{cell}{MARK}{item}", one) for item, one in enumerate(found)]
        if not found or found == HELD:
            return cell if found else None
        outside = os.path.isabs(found) or ".." in Path(found).parts  # is refused when the cell is read
        return cell if outside or (self.path.parent / found).is_file() else found


class ArrowTable(ColumnTable):
    """Rows of an Arrow file or stream, as `datasets` saves them."""

    def image(self, place: int, column: str) -> Any:
        """Return a cell that holds images."""
        return self._mapped[column][place].as_py()

    @cached_property
    def _mapped(self) -> pa.Table:
        with _readable(self.path, "Arrow"):
            source = pa.memory_map(str(self.path))
            try:
                return pa.ipc.open_stream(source).read_all()
            except pa.ArrowInvalid:  # the other of the two forms
                source.seek(0)
                return pa.ipc.open_file(source).read_all()

    @cached_property
    def _schema(self) -> pa.Schema:
        return _distinct(self._mapped.schema, self.path)

    @cached_property
    def _table(self) -> pa.Table:
        return pa.Table.from_batches([self._light(batch) for batch in self._mapped.to_batches()])

    def _cells(self, column: str) -> Iterable[pa.Scalar]:
        return self._mapped[column]


class ParquetTable(ColumnTable):
    """Rows of a Parquet file, whatever its row groups.

    Its columns are decoded once, when a row is first asked for, into a temporary file without a name: rows
    are then as near as those of an Arrow file, and memory holds none of them. Images are left out: columns
    of them that have no null are not decoded, of others a few rows at a time.

    Raises:
        InputError: It is no Parquet file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        _ = self._schema  # a file at fault is refused here

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._metadata.num_rows

    def image(self, place: int, column: str) -> Any:
        """Return a cell that holds images; the row group's images are kept for the next call."""
        begins = np.array([0, *accumulate(group.num_rows for group in self._groups)])
        group = int(np.searchsorted(begins, place, "right")) - 1
        modified = os.stat(self.path).st_mtime_ns
        return _column_chunk(str(self.path), modified, group, column)[place - begins[group]].as_py()

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        with _readable(self.path, "Parquet"):
            return pq.read_metadata(self.path)

    @property
    def _groups(self) -> list[pq.RowGroupMetaData]:
        return [self._metadata.row_group(group) for group in range(self._metadata.num_row_groups)]

    @cached_property
    def _schema(self) -> pa.Schema:
        return _distinct(self._metadata.schema.to_arrow_schema(), self.path)

    @cached_property
    def _table(self) -> pa.Table:
        columns, size = self._decoded_columns()
        num_rows = min(BATCH, BATCH_BYTES * len(self) // max(size, 1)) or 1
        with TemporaryFile() as file:
            writer = None
            for batch in self._read_batches(num_rows, columns):
                batch = self._light(batch)
                writer = writer or pa.ipc.new_stream(file, batch.schema)
                writer.write_batch(batch)
            if writer is None:
                return pa.table({})
            writer.close()
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.ipc.open_stream(pa.BufferReader(pa.py_buffer(mapped))).read_all()

    def _cells(self, column: str) -> Iterator[pa.Scalar]:
        for batch in self._read_batches(16, [column]):
            yield from batch.column(0)

    def _read_batches(self, num_rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with _readable(self.path, "Parquet"), pq.ParquetFile(self.path, memory_map=True) as source:
            yield from source.iter_batches(num_rows, columns=columns, use_threads=False)

    def _decoded_columns(self) -> tuple[list[str], int]:
        """Return the leaf columns without those of images that are there in every row, and their bytes."""
        leaves = [self._metadata.schema.column(place).path for place in range(self._metadata.num_columns)]
        single = {*self._images, *(f"{column}.bytes" for column in self._images)}
        beside = {leaf.removesuffix("path") + "bytes" for leaf in leaves if leaf.endswith(".path")}
        images = single | {leaf for leaf in beside if leaf.split(".")[0] in self._images}
        columns, size = [], 0
        for place, leaf in enumerate(leaves):
            chunks = [group.column(place) for group in self._groups]
            # Of a list without paths, this leaf tells the length.
            if not (leaf in images and all(_has_no_null(chunk) for chunk in chunks)):
                columns.append(leaf)
                size += sum(chunk.total_uncompressed_size for chunk in chunks)
        return columns, size


@lru_cache(maxsize=4)
def _column_chunk(path: str, modified: int, group: int, column: str) -> pa.ChunkedArray:
    with pq.ParquetFile(path, memory_map=True) as file:
        return file.read_row_group(group, columns=[column], use_threads=False)[column]


@contextmanager
def _readable(path: Path, form: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as {form} ({error}); fetch it again") from None


def _distinct(schema: pa.Schema, path: Path) -> pa.Schema:
    if twice := next((name for name in schema.names if schema.names.count(name) > 1), None):
        raise InputError(f"{path}: two columns have the name {twice!r}; rename one")
    return schema


def _items(kind: pa.DataType) -> pa.DataType:
    """Return the type of a cell, or of the items of its list; that of large binaries is binary."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _items(kind.value_type)
    return pa.binary() if pa.types.is_large_binary(kind) else kind


def _may_hold_images(kind: pa.DataType) -> bool:
    kind = _items(kind)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _may_hold_images(kind.field("bytes").type)
    return pa.types.is_binary(kind)


def _are_texts(cells: Iterable[pa.Scalar]) -> bool:
    first = next((value for cell in cells if (value := cell.as_py()) not in (None, b"", [])), None)
    try:
        return _decoded(first) is not None
    except UnicodeDecodeError:  # no image is UTF-8 text
        return False


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def _has_no_null(chunk: pq.ColumnChunkMetaData) -> bool:
    known = chunk.statistics
    return known is not None and known.has_null_count and known.null_count == 0


def _images_in(values: pa.Array) -> pa.Array:
    """Return `HELD` for each image, the path of one that is only named, or null; lists of these for lists."""
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        ends = np.cumsum(pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False))
        offsets = pa.array([0, *ends], pa.int32())
        return pa.ListArray.from_arrays(offsets, _images_in(values.flatten()), mask=values.is_null())
    found, named = values.is_valid(), pa.nulls(len(values), pa.string())
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        found = pc.struct_field(values, "bytes").is_valid()
        if values.type.get_field_index("path") >= 0:
            named = pc.struct_field(values, "path").cast(pa.string())
    return pc.if_else(found, HELD, named)
