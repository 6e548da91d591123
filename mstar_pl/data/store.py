"""The rollout store: every response of every iteration on disk, with its scores and whether it was selected.

    root/iteration-0003/rank-0-00000.parquet    one row a rollout, a group's rows together
    root/iteration-0003/manifest.json           written last: it means complete
    root/iteration-0003/selected.jsonl          the selected rows as training examples, once they were read

The pipeline writes it, the data module reads it; `datasets` and pandas read it, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mstar_pl.data.images import image_digest
from mstar_pl.data.jsonl import open_records, write_jsonl
from mstar_pl.data.records import Lines, View
from mstar_pl.data.shards import ShardFolder
from mstar_pl.types import Example, Prompt, Rollout, RolloutGroup, Score, ScoredGroup

_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("task", _TEXT),
        ("prompt", pa.string()),  # its JSON object, images as absolute paths
        ("image_sha256", pa.list_(pa.string())),
        ("prompt_token_ids", pa.list_(pa.int32())),
        ("weight_version", pa.int64()),
        ("temperature", pa.float64()),
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

EXAMPLES = "selected.jsonl"
"""Parquet gives no row alone, and training asks for them in random order."""

_EXAMPLE = ["prompt", "response"]
_SELECTED = [("selected", "=", True)]


class RolloutStore:
    """Read and write the iterations of one run.

    Args:
        root: Folder of the store; made on the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def folder(self, iteration: int) -> Path:
        """Return the folder of an iteration."""
        return self.shards(iteration).folder

    def shards(self, iteration: int) -> ShardFolder:
        """Return the shards of an iteration; their key is the prompt's id."""
        return ShardFolder(self.root / f"iteration-{iteration:04d}", SCHEMA, key="prompt_id")

    def manifest(self, iteration: int) -> dict[str, Any] | None:
        """Return the manifest of a complete iteration, or None."""
        return self.shards(iteration).manifest()

    def begin(self, iteration: int, fingerprint: str) -> set[str]:
        """Make an iteration ready to be filled and return the ids of the prompts that it already holds."""
        return self.shards(iteration).begin(fingerprint)

    def append(self, iteration: int, groups: Sequence[ScoredGroup], fingerprint: str, rank: int = 0) -> Path:
        """Write groups as the next shard of a process; all groups of a prompt belong into one shard."""
        rows = [row for group in groups for row in _rows(group)]
        return self.shards(iteration).append(rows, fingerprint, rank)

    def finish(self, iteration: int, fingerprint: str, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Write the manifest, which makes the iteration complete, and return it."""
        return self.shards(iteration).finish(fingerprint, metrics, iteration=iteration)

    def groups(self, iteration: int) -> Iterator[ScoredGroup]:
        """Yield the groups of an iteration, shard by shard, equal to those that were written."""
        rows = self.shards(iteration).rows()
        for _, group in groupby(rows, key=lambda row: (row["prompt_id"], row["temperature"])):
            yield _group(list(group))

    def examples(self, iteration: int) -> Sequence[Example]:
        """Return the selected rollouts of a complete iteration as training examples, read when asked for.

        They are ordered by prompt and sample, whatever the shards and ranks of the iteration.

        Raises:
            InputError: The iteration is not complete, or a shard is missing.
        """
        shards = self.shards(iteration)
        shards.check_complete()
        keys = pa.concat_tables(shards.tables(["prompt_id", "sample"], _SELECTED))
        order = pc.sort_indices(keys, [("prompt_id", "ascending"), ("sample", "ascending")])
        path = shards.folder / EXAMPLES
        if not path.is_file():
            rows = chain.from_iterable(table.to_pylist() for table in shards.tables(_EXAMPLE, _SELECTED))
            write_jsonl(path, (json.loads(row["prompt"]) | {"response": row["response"]} for row in rows))
        return View(open_records(Lines(path), _example), order.to_pylist())


def _rows(scored: ScoredGroup) -> Iterator[dict[str, Any]]:
    group, prompt = scored.group, scored.group.prompt
    shared = {
        "prompt_id": prompt.id,
        "task": prompt.task,
        "prompt": json.dumps(prompt.to_json(), ensure_ascii=False),
        "image_sha256": [image_digest(image) for image in prompt.images],
        "prompt_token_ids": group.prompt_token_ids,
        "weight_version": group.weight_version,
        "temperature": group.temperature,
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
            temperature=first["temperature"],
        ),
        scores=tuple(
            Score(outcome=row["outcome"], extraction=row["extraction"], process=row["process"])
            for row in rows
        ),
        selected=tuple(row["sample"] for row in rows if row["selected"]),
    )


def _example(_: int, row: dict[str, Any]) -> Example:
    return Example(prompt=Prompt.from_json(row), response=row["response"])


@lru_cache(maxsize=1024)
def _prompt(text: str) -> Prompt:
    return Prompt.from_json(json.loads(text))
