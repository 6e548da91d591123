"""Greedy evaluation of a policy: generate, grade, summarise, keep every response."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from mstar_pl.data.jsonl import read_rows, write_json, write_jsonl
from mstar_pl.evaluation.benchmarks.benchmark import Benchmark
from mstar_pl.evaluation.summary import Row
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig

T = TypeVar("T")
RESPONSES, RESULTS, PARTIAL = "responses.jsonl", "results.json", "responses.partial.jsonl"
CHUNK = 256


def run_fingerprint(settings: dict[str, Any], policy: Path, data: str) -> str:
    """Return a hash of what the responses depend on: settings, the policy's files, the digest of the data.

    Of the policy, names, sizes and times stand for the contents, which may be many gigabytes.
    """
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(policy.iterdir())]
    return hashlib.sha256(json.dumps([settings, stats, data]).encode()).hexdigest()[:16]


def answer_prompts(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    benchmark: Benchmark,
    out: Path,
    fingerprint: str,
) -> list[Row]:
    """Generate and grade one response a prompt, in chunks that survive an interruption.

    Args:
        engine: Engine with the policy loaded.
        prompts: Labelled prompts.
        sampling: How to generate.
        benchmark: What grades the responses.
        out: Folder; see `in_chunks`.
        fingerprint: What the responses depend on.

    Returns:
        One row a prompt, in the order of the prompts, as `responses.jsonl` holds them. Kept responses are
        graded anew: it may be that they were graded by other rules.
    """

    def answer(some: Sequence[Prompt]) -> list[Row]:
        return [_answered(group, benchmark) for group in engine.generate(some, sampling)]

    rows = in_chunks(prompts, lambda prompt: prompt.id, answer, out, fingerprint, "answering")
    pairs = zip(prompts, rows, strict=True)
    return [row | graded_row(benchmark, prompt, row["response"]) for prompt, row in pairs]


def in_chunks(
    items: Sequence[T],
    key: Callable[[T], str],
    work: Callable[[Sequence[T]], list[Row]],
    out: Path,
    fingerprint: str,
    title: str,
) -> list[Row]:
    """Make one row of each item, in chunks that survive an interruption.

    Args:
        items: What is to be worked on.
        key: Function to an item's identity, which its row holds as `id`.
        work: Function from a chunk to its rows.
        out: Folder; finished chunks are kept in a partial file there and used by the next call, as are the
            rows of a finished evaluation.
        fingerprint: What the rows depend on; a partial file with another one is set aside, not used.
        title: Label of the progress bar.

    Returns:
        The rows, in the order of the items.

    Raises:
        InputError: The folder holds a finished evaluation with another fingerprint.
    """
    partial = out / PARTIAL
    rows = finished_rows(out, fingerprint) or _resume(partial, fingerprint)
    todo = [item for item in items if key(item) not in rows]
    with tqdm(total=len(items), initial=len(rows), desc=title, delay=2) as bar:
        for start in range(0, len(todo), CHUNK):
            fresh = work(todo[start : start + CHUNK])
            rows |= {row["id"]: row for row in fresh}
            with partial.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in fresh)
            bar.update(len(fresh))
    return [rows[key(item)] for item in items]


def finished_rows(out: Path, fingerprint: str) -> dict[str, Row]:
    """Return the rows of a finished evaluation of the same by id, none where there is no finished one.

    Raises:
        InputError: There is one with other settings.
    """
    results = out / RESULTS
    if not results.is_file():
        return {}
    if json.loads(results.read_text()).get("fingerprint") != fingerprint:
        fault = f"holds a finished evaluation with other settings (see {RESULTS})"
        raise InputError(f"{out}: {fault}; give another --out")
    return {row["id"]: row for _, row in read_rows(out / RESPONSES)}


def check_same_prompts(folder: Path, ids: set[str], other: Path, others: set[str]) -> None:
    """Refuse two evaluations that each have prompts which the other one lacks.

    Args:
        folder: One evaluation.
        ids: Ids of its prompts; none if they are not known.
        other: The other one.
        others: Ids of its prompts.

    Raises:
        InputError: They have.
    """
    if others - ids and (strange := ids - others):
        raise InputError(
            f"{folder}: answers other prompts than {other} (e.g. {min(strange)!r}); "
            "evaluate the same prompts, or leave one out"
        )


def graded_row(benchmark: Benchmark, prompt: Prompt, response: str, extraction: str | None = None) -> Row:
    """Return what `responses.jsonl` says of a response, but for how it was generated.

    Args:
        benchmark: What grades it.
        prompt: Its prompt.
        response: The response.
        extraction: Its answer, if it was taken from it already; else the benchmark finds it.
    """
    if extraction is None:
        found = benchmark.grade(response, prompt)
    else:
        found = benchmark.grade_extraction(extraction, prompt)
    return {
        "id": prompt.id,
        "task": prompt.task,
        "groups": benchmark.groups(prompt),
        "question": prompt.question,
        "answer": prompt.answer,
        "response": response,
        "extraction": found.extraction,
        "prediction": found.prediction,
        "outcome": found.outcome.value,
        "rule": found.rule,
        "graded": "response" if extraction is None else "extraction",
    }


def write_results(
    out: Path,
    benchmark: Benchmark,
    prompts: Sequence[Prompt],
    rows: Sequence[Row],
    settings: dict[str, Any],
    fingerprint: str | None,
) -> dict[str, Any]:
    """Write `responses.jsonl` and `results.json`, remove the partial file, and return the results."""
    scores = {
        "accuracy": benchmark.summarise(rows),
        "num_empty": sum(not row["extraction"] for row in benchmark.scored(rows)),
        **benchmark.report(prompts, rows, out, settings.get("lmm", {})),
    }
    named = {"benchmark": benchmark.name, "rules": benchmark.rules, "headline": benchmark.headline}
    return write_scores(out, rows, named | scores, settings, fingerprint)


def write_scores(
    out: Path, rows: Sequence[Row], scores: dict[str, Any], settings: dict[str, Any], fingerprint: str | None
) -> dict[str, Any]:
    """Write rows, and scores with what they came from, remove the partial file, and return the results.

    Former results go first: a kill must not leave them beside rows that they are not of.
    """
    (out / RESULTS).unlink(missing_ok=True)
    write_jsonl(out / RESPONSES, rows)
    versions = {name: version(name) for name in ("torch", "transformers", "lightning")}
    results = scores | {"settings": settings, "fingerprint": fingerprint, "versions": versions}
    write_json(out / RESULTS, results)
    (out / PARTIAL).unlink(missing_ok=True)
    return results


def run_settings(sampling: SamplingConfig, **further: Any) -> dict[str, Any]:
    """Return the settings block of `results.json`."""
    return {**further, "sampling": asdict(sampling)}


def _resume(partial: Path, fingerprint: str) -> dict[str, Row]:
    """Read a partial file that fits, its last line cut off by a kill perhaps; set aside one that does not."""
    rows: dict[str, Row] = {}
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


def _answered(group: RolloutGroup, benchmark: Benchmark) -> Row:
    rollout = group.rollouts[0]
    row = graded_row(benchmark, group.prompt, rollout.text)
    return row | {"finish_reason": rollout.finish_reason, "num_tokens": len(rollout.token_ids)}
