"""Grading kept responses again, without generating."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from mstar_pl.data.tables import Row, open_table
from mstar_pl.evaluation.benchmarks.benchmark import Benchmark
from mstar_pl.evaluation.evaluate import RESULTS, graded_row, write_results
from mstar_pl.types import InputError, Prompt

Use = Literal["response", "extraction"]


def grade_responses(
    benchmark: Benchmark, prompts: Sequence[Prompt], responses: Path, use: Use = "response"
) -> list[Row]:
    """Grade a file of responses by a benchmark.

    Args:
        benchmark: The benchmark.
        prompts: Its prompts.
        responses: Rows with `id` (or `pid`), and `response` or `extraction`: `responses.jsonl` of an
            evaluation, or MathVista's published outputs.
        use: What to grade in a row that has both: the response, or the answer that was taken from it.

    Returns:
        One row a prompt that has a response, in the order of the prompts.

    Raises:
        InputError: A row is malformed, unknown or repeated; names file and row.
    """
    by_id = {prompt.id: prompt for prompt in prompts}
    graded: dict[str, Row] = {}
    for name, row in open_table(responses):
        key = str(row.get("id", row.get("pid", "")))
        if key not in by_id:
            raise InputError(f"{name}: id {key!r} is not in {benchmark.data}; give the matching data")
        if key in graded:
            raise InputError(f"{name}: id {key!r} was already graded; give one response each")
        try:
            graded[key] = _graded(benchmark, by_id[key], row, use)
        except ValueError as error:
            raise InputError(f"{name}: {error}") from None
    if not graded:
        raise InputError(f"{responses}: no rows; there is nothing to grade")
    return [graded[prompt.id] for prompt in prompts if prompt.id in graded]


def write_regraded(
    out: Path,
    benchmark: Benchmark,
    prompts: Sequence[Prompt],
    rows: Sequence[Row],
    responses: Path,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Write what an evaluation writes, with the settings of the one that left the responses.

    Args:
        out: Folder of the results.
        benchmark: The benchmark.
        prompts: Its prompts.
        rows: The graded responses.
        responses: The file that they came from; results beside it say how they were made.
        settings: What is known of the grading; takes the place of what these results say.

    Raises:
        InputError: These results are of another benchmark.
    """
    results = responses.with_name(RESULTS)
    former = json.loads(results.read_text()) if results.is_file() else {}
    if former.get("benchmark", benchmark.name) != benchmark.name:
        raise InputError(
            f"{results}: of {former['benchmark']}, not of {benchmark.name}; give the matching data"
        )
    made = former.get("settings", {"responses": str(responses)})
    now = {key: value for key, value in made.items() if key not in ("rules", "options", "graded")}
    now |= {"data": str(benchmark.data), "num_prompts": len(rows)} | settings
    if any(row["graded"] == "extraction" for row in rows):
        now["graded"] = "extraction"
    same = all(now.get(key) == made.get(key) for key in ("data", "num_prompts", "graded"))
    return write_results(out, benchmark, prompts, rows, now, former.get("fingerprint") if same else None)


def _graded(benchmark: Benchmark, prompt: Prompt, row: Row, use: Use) -> Row:
    """Return the row of a response; a `ValueError` is the row's fault."""
    present = [key for key in ("response", "extraction") if row.get(key) is not None]
    if not present:
        raise ValueError("neither 'response' nor 'extraction' is given; a row needs one of them")
    key = use if use in present else present[0]
    if not isinstance(row[key], str):
        raise ValueError(f"field {key!r} must be a string, got {type(row[key]).__name__}")
    found = graded_row(
        benchmark, prompt, row.get("response") or "", row[key] if key == "extraction" else None
    )
    generated = {key: row[key] for key in ("finish_reason", "num_tokens") if key in row}
    return found | {"finish_reason": "stop"} | generated
