"""Pictures and files of rows, written as the makers of benchmarks write them."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

Row = dict[str, Any]


def picture(number: int) -> bytes:
    """Return a PNG that no other number gives."""
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (40 * number % 256, 7 * number % 256, 90)).save(file, "PNG")
    return file.getvalue()


def base64_of(number: int) -> str:
    return base64.b64encode(picture(number)).decode()


def cell_of(number: int) -> Row:
    """Return the struct that the `datasets` library writes for an image."""
    return {"bytes": picture(number), "path": f"{number}.png"}


def write_image(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number))


def write_tsv(path: Path, rows: list[Row]) -> None:
    """Write rows as pandas does: no value is an empty field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)


def write_parquet(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
