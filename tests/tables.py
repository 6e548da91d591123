"""Tables in the forms in which data sets are published, and small pictures."""

import csv
import gzip
import io
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (7, 5), color).save(file, "PNG")
    return file.getvalue()


def write_text(path, text):
    (gzip.open if path.suffix == ".gz" else open)(path, "wb").write(text.encode())


def write_table(path, rows):
    """Write rows in the form that the name asks for."""
    kind = path.name.partition(".")[2].removesuffix(".gz")
    if kind == "jsonl":
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "list.json":
        write_text(path, json.dumps(rows, indent=1))
    elif kind == "object.json":
        write_text(
            path, json.dumps({row["pid"]: {k: v for k, v in row.items() if k != "pid"} for row in rows})
        )
    elif kind in ("tsv", "csv"):
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, file.getvalue())
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    elif kind == "arrow":
        datasets.Dataset.from_list(rows).save_to_disk(path)
    return path


def write_columns(path, columns):
    """Write a Parquet file, or an Arrow file with two batches."""
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    return path
