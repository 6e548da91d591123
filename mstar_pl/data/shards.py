"""Rows in Parquet shards of one folder, safe against crashes and against mixing unlike rows.

    folder/rank-0-00000.parquet    rows; the fingerprint of what they depend on in its metadata
    folder/manifest.json           counts, metrics, fingerprint; written last: it means complete

Shards are written under a temporary name and renamed: a crash loses the shard being filled, nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mstar_pl.data.durable import written_whole
from mstar_pl.data.jsonl import write_json
from mstar_pl.types import InputError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
_FINGERPRINT = b"mstar_pl.fingerprint"


class ShardFolder:
    """Read and write the shards of one job.

    Args:
        folder: The folder; made by `begin`.
        schema: Columns of a shard.
        key: Column that names the units of work, all rows of one in the same shard.
    """

    def __init__(self, folder: Path, schema: pa.Schema, key: str) -> None:
        self.folder = folder
        self.schema = schema
        self.key = key

    def manifest(self) -> dict[str, Any] | None:
        """Return the manifest of a complete job, or None.

        Raises:
            InputError: It was written by another version of the schema.
        """
        path = self.folder / MANIFEST
        if not path.is_file():
            return None
        manifest = json.loads(path.read_text())
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {manifest['schema_version']}, this release reads {SCHEMA_VERSION}; "
                "give another folder"
            )
        return manifest

    def begin(self, fingerprint: str) -> set[str]:
        """Make the folder ready to be filled and return the keys that it already holds.

        What is there under another fingerprint came from another policy or other settings. It is set aside as
        `FOLDER.stale-1`: not used, not deleted.
        """
        manifest = self.manifest()
        found = {manifest["fingerprint"]} if manifest else set()
        found |= {_fingerprint_of(shard) for shard in self._shards()}
        if found - {fingerprint}:
            number = 1
            while (stale := self.folder.with_name(f"{self.folder.name}.stale-{number}")).exists():
                number += 1
            self.folder.rename(stale)
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink()
        done: set[str] = set()
        for shard in self._shards():
            done |= set(pq.read_table(shard, columns=[self.key])[self.key].to_pylist())
        return done

    def append(self, rows: Sequence[Mapping[str, Any]], fingerprint: str, rank: int = 0) -> Path:
        """Write rows as the next shard of a process."""
        taken = [int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"rank-{rank}-*.parquet")]
        number = max(taken, default=-1) + 1
        path = self.folder / f"rank-{rank}-{number:05d}.parquet"
        table = pa.Table.from_pylist(list(rows), self.schema.with_metadata({_FINGERPRINT: fingerprint}))
        with written_whole(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        return path

    def finish(self, fingerprint: str, metrics: Mapping[str, float], **further: Any) -> dict[str, Any]:
        """Write the manifest, which makes the job complete, and return it."""
        shards = {shard.name: pq.read_metadata(shard).num_rows for shard in self._shards()}
        manifest = {
            "schema_version": SCHEMA_VERSION,
            **further,
            "fingerprint": fingerprint,
            "num_rows": sum(shards.values()),
            "shards": shards,
            "metrics": dict(metrics),
        }
        write_json(self.folder / MANIFEST, manifest)
        return manifest

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows, shard by shard, whether the job is complete or not."""
        for table in self.tables():
            yield from table.to_pylist()

    def tables(self, columns: Sequence[str] | None = None, filters: Any = None) -> Iterator[pa.Table]:
        """Yield the shards one by one, or what is asked of their columns and rows."""
        for shard in self._shards():
            chosen = list(columns) if columns else None
            yield pq.read_table(shard, schema=self.schema, columns=chosen, filters=filters)

    def check_complete(self) -> None:
        """Refuse to read a job that is not complete.

        Raises:
            InputError: The job is not complete, or a shard is missing.
        """
        manifest = self.manifest()
        if manifest is None:
            raise InputError(f"{self.folder}: no {MANIFEST}; this was not finished")
        for name in manifest["shards"]:
            if not (self.folder / name).is_file():
                raise InputError(
                    f"{self.folder / name}: is missing; restore it, or remove its folder to sample again"
                )

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("rank-*.parquet"))


def _fingerprint_of(shard: Path) -> str:
    return (pq.read_schema(shard).metadata or {}).get(_FINGERPRINT, b"").decode()
