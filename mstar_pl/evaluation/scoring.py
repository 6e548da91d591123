"""Scoring files of responses with a process reward model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from mstar_pl.data.format import split_steps
from mstar_pl.data.images import image_digest
from mstar_pl.data.jsonl import read_rows
from mstar_pl.data.shards import ShardFolder
from mstar_pl.models.process_reward import ProcessRewardModel
from mstar_pl.rewards.process import Aggregate, aggregate_steps
from mstar_pl.types import InputError, Prompt

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("response", pa.string()),
        ("steps", pa.list_(pa.string())),
        ("step_scores", pa.list_(pa.float64())),
        ("process", pa.float64()),
    ]
)
"""Columns of a shard: one row a response."""


def read_responses(path: Path, prompts: Mapping[str, Prompt]) -> dict[str, list[str]]:
    """Read the responses to each prompt.

    Raises:
        InputError: A row is malformed or belongs to no prompt; names the file and the line.
    """
    grouped: dict[str, list[str]] = {}
    for number, row in read_rows(path):
        key, response = str(row.get("id", row.get("pid", ""))), row.get("response")
        if not isinstance(response, str):
            raise InputError(f"{path}:{number}: field 'response' must be a string")
        if key not in prompts:
            raise InputError(
                f"{path}:{number}: id {key!r} is not among the questions; give the matching file"
            )
        grouped.setdefault(key, []).append(response)
    if not grouped:
        raise InputError(f"{path}: no rows; there is nothing to score")
    return grouped


def score_responses(
    model: ProcessRewardModel,
    prompts: Mapping[str, Prompt],
    grouped: Mapping[str, Sequence[str]],
    aggregate: Aggregate,
    folder: Path,
    settings: Sequence[Any],
    shard: int = 256,
) -> Iterator[dict[str, Any]]:
    """Score what the folder does not hold yet, and return the rows of all responses.

    Args:
        model: The process reward model.
        prompts: Prompts by id.
        grouped: Responses by prompt id.
        aggregate: Score of a response from those of its steps.
        folder: Where the shards go.
        settings: What the scores depend on besides prompts and responses, as JSON values.
        shard: Prompts of one shard; a crash loses at most one.
    """
    asked = {
        key: [prompts[key].to_json(), [image_digest(image) for image in prompts[key].images], list(texts)]
        for key, texts in grouped.items()
    }
    content = json.dumps([list(settings), asked])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
    shards = ShardFolder(folder, SCHEMA, key="id")
    done = shards.begin(fingerprint)
    todo = [key for key in grouped if key not in done]
    with tqdm(total=len(grouped), initial=len(grouped) - len(todo), desc="scoring", unit="prompt") as bar:
        for start in range(0, len(todo), shard):
            part = todo[start : start + shard]
            rows: list[dict[str, Any]] = []
            for key in part:
                steps = [split_steps(text) for text in grouped[key]]
                scores = model.score(prompts[key], steps)
                rows += [
                    {
                        "id": key,
                        "response": text,
                        "steps": own,
                        "step_scores": found,
                        "process": aggregate_steps(found, aggregate),
                    }
                    for text, own, found in zip(grouped[key], steps, scores, strict=True)
                ]
                bar.update()
            shards.append(rows, fingerprint)
    shards.finish(fingerprint, {})
    return shards.rows()
