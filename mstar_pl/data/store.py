"""The rollout store: every response of every iteration on disk, with its scores and whether it was selected.

    root/iteration-0003/rank-0-00000.parquet    one row a rollout, a prompt's rows together
    root/iteration-0003/manifest.json           counts, metrics, fingerprint; written last: it means complete

The pipeline writes it, the data module reads it; `datasets` and pandas read it, too. Shards are written
under a temporary name and renamed, so a crash loses the shard being filled and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mstar_pl.data.images import image_digest
from mstar_pl.data.jsonl import write_json
from mstar_pl.types import Example, InputError, Prompt, Rollout, RolloutGroup, Score, ScoredGroup

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_FINGERPRINT = b"mstar_pl.fingerprint"

_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("task", _TEXT),
        ("prompt", pa.string()),  # its JSON object, images as absolute paths
        ("image_sha256", pa.list_(pa.string())),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("weight_version", pa.int64()),
        ("sample", pa.int32()),
        ("response", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish_reason", _TEXT),
        ("outcome", _TEXT),
        ("extraction", pa.string()),
        ("process", pa.float64()),
        ("reward", pa.float64()),
        ("selected", pa.bool_()),
    ]
)
"""Columns of a shard. Images are referenced by path and content, never copied."""


class RolloutStore:
    """Read and write the iterations of one run.

    Args:
        root: Folder of the store; made on the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, iteration: int) -> Path:
        """Return the folder of an iteration."""
        return self.root / f"iteration-{iteration:04d}"

    def manifest(self, iteration: int) -> dict[str, Any] | None:
        """Return the manifest of a complete iteration, or None.

        Raises:
            InputError: It was written by another version of the schema.
        """
        path = self.folder(iteration) / MANIFEST
        if not path.is_file():
            return None
        manifest = json.loads(path.read_text())
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema version {manifest['schema_version']}, this release reads {SCHEMA_VERSION}; "
                "give another folder for the rollouts"
            )
        return manifest

    def begin(self, iteration: int, fingerprint: str) -> set[str]:
        """Make an iteration ready to be filled and return the ids of the prompts that it already holds.

        What is there under another fingerprint was sampled from another policy or with other settings. It is
        set aside as `iteration-0003.stale-1`: not used, not deleted.
        """
        folder = self.folder(iteration)
        manifest = self.manifest(iteration)
        found = {manifest["fingerprint"]} if manifest else set()
        found |= {_fingerprint_of(shard) for shard in self._shards(iteration)}
        if found - {fingerprint}:
            number = 1
            while (stale := folder.with_name(f"{folder.name}.stale-{number}")).exists():
                number += 1
            folder.rename(stale)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        done: set[str] = set()
        for shard in self._shards(iteration):
            done |= set(pq.read_table(shard, columns=["prompt_id"])["prompt_id"].to_pylist())
        return done

    def append(self, iteration: int, groups: Sequence[ScoredGroup], fingerprint: str, rank: int = 0) -> Path:
        """Write groups as the next shard of a rank."""
        folder = self.folder(iteration)
        number = len(list(folder.glob(f"rank-{rank}-*.parquet")))
        path = folder / f"rank-{rank}-{number:05d}.parquet"
        rows = [row for group in groups for row in _rows(group)]
        table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({_FINGERPRINT: fingerprint}))
        temporary = folder / f".{path.name}.{os.getpid()}.tmp"
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
        return path

    def finish(self, iteration: int, fingerprint: str, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Write the manifest, which makes the iteration complete, and return it."""
        shards = {shard.name: pq.read_metadata(shard).num_rows for shard in self._shards(iteration)}
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "iteration": iteration,
            "fingerprint": fingerprint,
            "num_rollouts": sum(shards.values()),
            "shards": shards,
            "metrics": dict(metrics),
        }
        write_json(self.folder(iteration) / MANIFEST, manifest)
        return manifest

    def groups(self, iteration: int) -> Iterator[ScoredGroup]:
        """Yield the groups of an iteration, shard by shard, equal to those that were written."""
        for shard in self._shards(iteration):
            rows = pq.read_table(shard, schema=SCHEMA).to_pylist()
            for _, group in groupby(rows, key=lambda row: row["prompt_id"]):
                yield _group(list(group))

    def examples(self, iteration: int) -> list[Example]:
        """Return the selected rollouts of a complete iteration as training examples.

        They are ordered by prompt and sample, whatever the shards and ranks of the iteration.

        Raises:
            InputError: The iteration is not complete, or a shard is missing.
        """
        manifest = self.manifest(iteration)
        if manifest is None:
            raise InputError(f"{self.folder(iteration)}: no {MANIFEST}; this iteration was not finished")
        columns = ["prompt_id", "prompt", "sample", "response", "selected"]
        rows: list[dict[str, Any]] = []
        for name in manifest["shards"]:
            shard = self.folder(iteration) / name
            if not shard.is_file():
                raise InputError(f"{shard}: is missing; restore it, or remove its folder to sample again")
            table = pq.read_table(shard, columns=columns, filters=[("selected", "=", True)])
            rows += table.to_pylist()
        rows.sort(key=lambda row: (row["prompt_id"], row["sample"]))
        return [Example(prompt=_prompt(row["prompt"]), response=row["response"]) for row in rows]

    def _shards(self, iteration: int) -> list[Path]:
        return sorted(self.folder(iteration).glob("rank-*.parquet"))


def _fingerprint_of(shard: Path) -> str:
    return (pq.read_schema(shard).metadata or {}).get(_FINGERPRINT, b"").decode()


def _rows(scored: ScoredGroup) -> Iterator[dict[str, Any]]:
    group, prompt = scored.group, scored.group.prompt
    shared = {
        "prompt_id": prompt.id,
        "task": prompt.task,
        "prompt": json.dumps(prompt.to_json(), ensure_ascii=False),
        "image_sha256": [image_digest(image) for image in prompt.images],
        "prompt_token_ids": group.prompt_token_ids,
        "weight_version": group.weight_version,
    }
    for sample, (rollout, score) in enumerate(zip(group.rollouts, scored.scores, strict=True)):
        yield shared | {
            "sample": sample,
            "response": rollout.text,
            "token_ids": rollout.token_ids,
            "finish_reason": rollout.finish_reason,
            "outcome": score.outcome,
            "extraction": score.extraction,
            "process": score.process,
            "reward": score.reward,
            "selected": sample in scored.selected,
        }


def _group(rows: list[dict[str, Any]]) -> ScoredGroup:
    first = rows[0]
    rollouts = tuple(
        Rollout(text=row["response"], token_ids=tuple(row["token_ids"]), finish_reason=row["finish_reason"])
        for row in rows
    )
    return ScoredGroup(
        group=RolloutGroup(
            prompt=_prompt(first["prompt"]),
            prompt_token_ids=tuple(first["prompt_token_ids"]),
            rollouts=rollouts,
            weight_version=first["weight_version"],
        ),
        scores=tuple(
            Score(outcome=row["outcome"], extraction=row["extraction"], process=row["process"])
            for row in rows
        ),
        selected=tuple(row["sample"] for row in rows if row["selected"]),
    )


@lru_cache(maxsize=1024)
def _prompt(text: str) -> Prompt:
    return Prompt.from_json(json.loads(text))
