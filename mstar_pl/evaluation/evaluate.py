"""Greedy evaluation of a policy: generate, grade, summarise, keep every response."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mstar_pl.data.jsonl import read_rows, write_json, write_jsonl
from mstar_pl.metrics.accuracy import decided_accuracy
from mstar_pl.rewards.answer import grade
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig

RESPONSES, RESULTS, PARTIAL = "responses.jsonl", "results.json", "responses.partial.jsonl"
CHUNK = 256


def run_fingerprint(settings: dict[str, Any], policy: Path, data: Path) -> str:
    """Return a hash of what the responses depend on: settings, the policy's files, the prompts.

    Of the policy, names, sizes and times stand for the contents, which may be many gigabytes.
    """
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(policy.iterdir())]
    content = hashlib.sha256(data.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps([settings, stats, content]).encode()).hexdigest()[:16]


def answer_prompts(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    rules: str,
    out: Path,
    fingerprint: str,
) -> list[dict[str, Any]]:
    """Generate and grade one response a prompt, in chunks that survive an interruption.

    Args:
        engine: Engine with the policy loaded.
        prompts: Labelled prompts.
        sampling: How to generate.
        rules: Rules of `mstar_pl.rewards.answer.grade`.
        out: Folder; finished chunks are kept in a partial file there and used by the next call.
        fingerprint: What the responses depend on; a partial file with another one is set aside, not used.

    Returns:
        One row a prompt, in the order of the prompts, as `responses.jsonl` holds them.
    """
    partial = out / PARTIAL
    rows = _resume(partial, fingerprint)
    todo = [prompt for prompt in prompts if prompt.id not in rows]
    with tqdm(total=len(prompts), initial=len(rows), desc="answering", unit="prompt", delay=2) as bar:
        for start in range(0, len(todo), CHUNK):
            groups = engine.generate(todo[start : start + CHUNK], sampling)
            fresh = [_row(group, rules) for group in groups]
            rows |= {row["id"]: row for row in fresh}
            with partial.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in fresh)
            bar.update(len(fresh))
    return [rows[prompt.id] for prompt in prompts]


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return accuracy with 95 % bootstrap interval over all rows and by task, and the counts beside it.

    Undecided rows are left out of the accuracy and counted.
    """
    tasks: dict[str, list[dict[str, Any]]] = {"all": list(rows)}
    for row in rows:
        if row["task"] != "all":
            tasks.setdefault(row["task"], []).append(row)
    return {task: _summary(tasks[task]) for task in ["all", *sorted(set(tasks) - {"all"})]}


def write_results(out: Path, rows: Sequence[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Write `responses.jsonl` and `results.json`, remove the partial file, and return the results."""
    write_jsonl(out / RESPONSES, rows)
    versions = {name: version(name) for name in ("torch", "transformers", "lightning")}
    results = {"settings": settings, "accuracy": summarise(rows), "versions": versions}
    write_json(out / RESULTS, results)
    (out / PARTIAL).unlink(missing_ok=True)
    return results


def read_outcomes(folder: Path) -> dict[str, str]:
    """Return the outcome of each prompt of a finished evaluation.

    Raises:
        InputError: The folder holds no finished evaluation.
    """
    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder}: no {RESULTS}; give the folder of a finished evaluation")
    return {row["id"]: row["outcome"] for _, row in read_rows(folder / RESPONSES)}


def run_settings(sampling: SamplingConfig, **further: Any) -> dict[str, Any]:
    """Return the settings block of `results.json`."""
    return {**further, "sampling": asdict(sampling)}


def _resume(partial: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Read a partial file that fits, its last line cut off by a kill perhaps; set aside one that does not."""
    rows: dict[str, dict[str, Any]] = {}
    if partial.exists():
        lines = partial.read_text(encoding="utf-8").split("\n")
        if lines[0] == json.dumps({"fingerprint": fingerprint}):
            rows = {row["id"]: row for row in map(json.loads, lines[1:-1])}
        else:
            stale = partial.with_suffix(".stale.jsonl")
            partial.replace(stale)
            tqdm.write(f"{partial}: belongs to other settings; set aside as {stale.name}")
    head = [{"fingerprint": fingerprint}, *rows.values()]
    write_jsonl(partial, head)
    return rows


def _row(group: RolloutGroup, rules: str) -> dict[str, Any]:
    rollout = group.rollouts[0]
    graded = grade(rollout.text, group.prompt, rules)
    return {
        "id": group.prompt.id,
        "task": group.prompt.task,
        "question": group.prompt.question,
        "answer": group.prompt.answer,
        "response": rollout.text,
        "extraction": graded.extraction,
        "outcome": graded.outcome.value,
        "rule": graded.rule,
        "finish_reason": rollout.finish_reason,
        "num_tokens": len(rollout.token_ids),
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    outcomes = [row["outcome"] for row in rows]
    mean, low, high = decided_accuracy(outcomes) or (None, None, None)
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "num": len(rows),
        "undecided": outcomes.count("undecided"),
        "truncated": sum(row["finish_reason"] == "length" for row in rows),
    }
