"""`mstar-pl grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mstar_pl.rewards.answer import Rules
from mstar_pl.types import InputError


def grade(
    responses: Path,
    questions: Path | None = None,
    benchmark: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    rules: Rules = "default",
    use: Literal["response", "extraction"] = "response",
    options: dict[str, Any] | None = None,
) -> None:
    """Grade a file of responses and print the accuracy by group; nothing is generated, no image is read.

    Args:
        responses: Rows of {"id", "response"} or {"pid", "extraction"}: responses.jsonl of an evaluation, or
            MathVista's published outputs; may be gzipped.
        questions: Prompt JSONL; may be gzipped.
        benchmark: A benchmark instead of questions, as in 'evaluate'.
        data: Its folder or file.
        out: Folder for what 'evaluate' writes. The settings of an evaluation whose results lie beside the
            responses are taken over.
        rules: How answers to questions are compared: the project's rules, or MathVista's official ones
            (current or of 2023).
        use: What to grade in rows that have both.
        options: Further options of the benchmark's class as JSON, e.g. '{"rules": "mathvista-2023"}'.
    """
    from mstar_pl.evaluation.benchmarks import BENCHMARKS, Benchmark, PromptFile, choose
    from mstar_pl.evaluation.benchmarks.regrade import grade_responses, write_regraded
    from mstar_pl.evaluation.table import accuracy_table

    if (questions is None) == (benchmark is None) or (benchmark is None) != (data is None):
        raise InputError("give --questions, or --benchmark and --data")
    if benchmark is not None and rules != "default":
        raise InputError("--rules is for --questions; a benchmark has its own, see its --options")
    if questions is not None:
        chosen: Benchmark = PromptFile(questions, rules)
    else:
        chosen = choose(BENCHMARKS, str(benchmark), Path(data or ""), options or {})
    chosen.with_images = False
    prompts = chosen.load()
    rows = grade_responses(chosen, prompts, responses, use)
    if out is not None:
        settings = {"rules": chosen.rules} | ({"options": options} if options else {})
        write_regraded(out, chosen, prompts, rows, responses, settings)
    print(accuracy_table({"accuracy (95 % interval)": chosen.summarise(rows)}))
    scored = chosen.scored(rows)
    undecided = sum(row["outcome"] == "undecided" for row in scored)
    empty = sum(not row["extraction"] for row in scored)
    print(f"rules: {chosen.rules}; undecided: {undecided}; no answer found in {empty}")
    print(f"not answered: {len(prompts) - len(rows)}")
