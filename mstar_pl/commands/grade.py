"""`mstar-pl grade`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mstar_pl.rewards.answer import Rules


def grade(
    questions: Path,
    responses: Path,
    out: Path | None = None,
    rules: Rules = "default",
    use: Literal["response", "extraction"] | None = None,
) -> None:
    """Grade a file of responses and print the accuracy by task.

    Args:
        questions: Prompt JSONL, or MathVista's testmini.json; may be gzipped.
        responses: JSONL of {"pid", "response"} or {"pid", "extraction"} rows; may be gzipped.
        out: JSONL file for the graded rows.
        rules: How answers are compared: the project's rules, or MathVista's official ones (current or of
            2023).
        use: What to grade in rows that have both; default is the extraction for official rules, else the
            response.
    """
    from mstar_pl.evaluation.grading import grade_file
    from mstar_pl.evaluation.table import grade_table

    print(grade_table(grade_file(questions, responses, rules, out, use)))
