"""Grading a file of responses against a file of questions: the body of `mstar_pl grade`."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.rewards.answer import Grade, Outcome, grade, grade_extraction
from mstar_pl.types import InputError, Prompt

Use = Literal["response", "extraction"]
_MATHVISTA_KEYS = (
    "question",
    "answer",
    "choices",
    "question_type",
    "answer_type",
    "unit",
    "precision",
    "metadata",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCount:
    """Outcomes of one task; `accuracy` leaves undecided answers out, and is None if nothing was decided."""

    correct: int
    wrong: int
    undecided: int

    @property
    def accuracy(self) -> float | None:
        """Share of correct answers among those that were decided, in [0, 1]."""
        decided = self.correct + self.wrong
        return self.correct / decided if decided else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeReport:
    """Summary of a graded file.

    Attributes:
        rules: The rules that graded it; an accuracy without their name means little.
        total: Counts over all rows.
        tasks: Counts by `Prompt.task`, sorted by name.
        num_empty: Rows in which no answer was found; the official MathVista rules may still grade those
            correct.
        num_missing: Questions without a row; they count neither as wrong nor as graded.
        rules_used: How often each rule decided.
    """

    rules: str
    total: TaskCount
    tasks: Mapping[str, TaskCount]
    num_empty: int
    num_missing: int
    rules_used: Mapping[str, int]


def grade_file(
    questions: Path, responses: Path, rules: str = "default", out: Path | None = None, use: Use | None = None
) -> GradeReport:
    """Grade every row of a responses file and write the graded rows.

    Args:
        questions: Prompts as JSONL, or MathVista's JSON object from pid to question; either may be gzipped.
        responses: JSONL of `{"pid", "response"}` or `{"pid", "extraction"}` rows, which may be gzipped.
        rules: Rules as in `mstar_pl.rewards.answer.grade`.
        out: Where the rows `pid, extraction, prediction, outcome, rule` go, or None; written whole or not at
            all.
        use: What to grade in a row that has both; default: the extraction by official rules, else the
            response.

    Raises:
        InputError: A file is missing or a row malformed, unknown or repeated; names the file and the line.
    """
    prompts = read_questions(questions)
    wanted: Use = use or ("response" if rules == "default" else "extraction")
    grades: dict[str, Grade] = {}
    for number, row in _read_lines(responses):
        where = f"{responses}:{number}"
        pid = str(row.get("pid", row.get("id", "")))
        if pid not in prompts:
            raise InputError(f"{where}: pid {pid!r} is not in {questions}; give the matching questions")
        if pid in grades:
            raise InputError(f"{where}: pid {pid!r} was already graded; give one response each")
        grades[pid] = _grade_row(row, prompts[pid], rules, wanted, where)
    if not grades:
        raise InputError(f"{responses}: no rows; there is nothing to grade")
    if out is not None:
        write_jsonl(out, (_graded_row(pid, found) for pid, found in grades.items()))
    return _report(prompts, grades, rules)


def read_questions(path: Path) -> dict[str, Prompt]:
    """Read questions by id, from prompt JSONL, MathVista JSONL, or MathVista's JSON object; opens no image.

    Raises:
        InputError: The file is missing, empty or malformed; names the file and the line or pid.
    """
    text = _read_text(path)
    try:
        decoded = json.loads(text)
    except ValueError:
        decoded = None
    # One line of JSONL also decodes as an object, but then `question` is a string and not a row.
    if isinstance(decoded, dict) and all(isinstance(row, dict) for row in decoded.values()):
        rows = [(f"{path}: pid {pid}", {"pid": pid, **row}) for pid, row in decoded.items()]
    else:
        rows = [(f"{path}:{number}", row) for number, row in _read_lines(path)]
    prompts: dict[str, Prompt] = {}
    for where, row in rows:
        try:
            prompt = Prompt.from_json(_mathvista_row(row) if "pid" in row else row)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        if prompt.id in prompts:
            raise InputError(f"{where}: id {prompt.id!r} is used twice; ids must be unique")
        prompts[prompt.id] = prompt
    if not prompts:
        raise InputError(f"{path}: no questions; give a file with at least one")
    return prompts


def _mathvista_row(row: Mapping[str, Any]) -> dict[str, Any]:
    images = [row["image"]] if isinstance(row.get("image"), str) else []
    answer = {"answer": row.get("answer")}  # the test split has no answers: unlabelled
    return (
        {"id": str(row["pid"]), "images": images} | answer | {k: row[k] for k in _MATHVISTA_KEYS if k in row}
    )


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path}: cannot be read ({reason}); check the path and the file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not valid JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
        yield number, row


def _grade_row(row: Mapping[str, Any], prompt: Prompt, rules: str, wanted: Use, where: str) -> Grade:
    present = [key for key in ("response", "extraction") if row.get(key) is not None]
    if not present:
        raise InputError(f"{where}: neither 'response' nor 'extraction' is given; a row needs one of them")
    key = wanted if wanted in present else present[0]
    if not isinstance(row[key], str):
        raise InputError(f"{where}: field {key!r} must be a string, got {type(row[key]).__name__}")
    return (grade if key == "response" else grade_extraction)(row[key], prompt, rules)


def _graded_row(pid: str, found: Grade) -> dict[str, Any]:
    return {
        "pid": pid,
        "extraction": found.extraction,
        "prediction": found.prediction,
        "outcome": found.outcome.value,
        "rule": found.rule,
    }


def _report(prompts: Mapping[str, Prompt], grades: Mapping[str, Grade], rules: str) -> GradeReport:
    by_task: dict[str, Counter[Outcome]] = {}
    for pid, found in grades.items():
        by_task.setdefault(prompts[pid].task, Counter())[found.outcome] += 1
    return GradeReport(
        rules=rules,
        total=_count(Counter(found.outcome for found in grades.values())),
        tasks={task: _count(by_task[task]) for task in sorted(by_task)},
        num_empty=sum(not found.extraction for found in grades.values()),
        num_missing=len(prompts) - len(grades),
        rules_used=dict(Counter(found.rule for found in grades.values()).most_common()),
    )


def _count(outcomes: Counter[Outcome]) -> TaskCount:
    correct, wrong = outcomes[Outcome.CORRECT], outcomes[Outcome.WRONG]
    return TaskCount(correct=correct, wrong=wrong, undecided=outcomes[Outcome.UNDECIDED])
