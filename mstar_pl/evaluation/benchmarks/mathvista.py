"""MathVista (arXiv 2310.02255; lupantech/MathVista)."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from mstar_pl.data.format import render_question
from mstar_pl.data.jsonl import write_json
from mstar_pl.data.sources import fields as cells
from mstar_pl.data.tables import Row
from mstar_pl.evaluation.benchmarks.benchmark import PromptStyle, PublishedBenchmark
from mstar_pl.evaluation.summary import summarise
from mstar_pl.rewards.answer import RULES, Grade, Rules, grade, grade_extraction
from mstar_pl.types import Prompt

LEADERBOARD = "leaderboard.json"
_METADATA = ("split", "language", "img_width", "img_height", "source", "category", "task", "context", "grade")


class MathVista(PublishedBenchmark):
    """MathVista's testmini, by task and skill.

    The official extractor is a language model. Here `extract_answer` takes its place, on the whole response,
    and where it finds nothing the response itself is compared, as happens to a refusal there; an empty one
    counts as the shortest choice, officially. `num_empty` counts them.

    Args:
        data: Folder with `data/testmini.json` or `testmini.json` and the images, with `MathVista_MINI.tsv`,
            or with Parquet files of the split `testmini`.
        prompts: The official prompt is the released `query`.
        rules: The official rules of today; those of the time before 2024-11-28, which differ in integers; or
            the project's own.
    """

    name = "mathvista"
    files: ClassVar[tuple[str, ...]] = ("data/testmini.json", "testmini.json", "MathVista_MINI.tsv")
    published_split = "testmini"
    columns: ClassVar[tuple[str, ...]] = ("question", "answer", "question_type", "answer_type", "image")
    group_keys: ClassVar[tuple[str, ...]] = ("task", "skills")

    def __init__(self, data: str | Path, prompts: PromptStyle = "policy", rules: Rules = "mathvista") -> None:
        super().__init__(data, prompts)
        self.rules: Rules = rules

    def prompt_of(self, row: Row, number: int) -> Prompt:
        """Return the prompt of a row; in a TSV its question is the released query and lists are texts."""
        choices, unit = row.get("choices"), cells.text_or_none(row.get("unit"), "unit")
        question, query, metadata = row["question"], row.get("query"), row.get("metadata")
        if metadata is None:
            question, query = cells.parse_question(row["question"]).question, row["question"]
            question = question.removesuffix(f" (Unit: {unit})")
            metadata = _flat_metadata(row)
            choices = None if cells.absent(choices) else _listed(cells.text_of(choices, "choices"))
        prompt = Prompt(
            id=cells.text_of(row["pid"] if "pid" in row else row["index"], "pid"),
            question=question,
            images=self.image(cells.find(row, ("decoded_image", "image"), "image")),
            answer=row["answer"],
            choices=cells.texts_of(choices, "choices") if choices else None,
            question_type=row["question_type"],
            answer_type=row["answer_type"],
            unit=unit,
            precision=cells.whole_or_none(row.get("precision"), "precision"),
            metadata=cells.mapping_of(metadata, "metadata"),
        )
        official = render_question(prompt) if cells.absent(query) else query
        return replace(prompt, query=official) if self.prompts == "official" else prompt

    def grade(self, response: str, prompt: Prompt) -> Grade:
        """Grade a response by the official comparison."""
        return grade(response, prompt, self.rules)

    def grade_extraction(self, extraction: str, prompt: Prompt) -> Grade:
        """Grade what the official extractor took from a response."""
        return grade_extraction(extraction, prompt, self.rules)

    def report(
        self, prompts: Sequence[Prompt], rows: Sequence[Row], out: Path, lmm: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the leaderboard's file; return the accuracy by all rules."""
        by_id = {prompt.id: prompt for prompt in prompts}
        asked = [(by_id[row["id"]], row) for row in rows]
        write_json(out / LEADERBOARD, {prompt.id: _submission(prompt, row, lmm) for prompt, row in asked})
        by_rules = {
            rules: summarise([_regraded(prompt, row, rules) for prompt, row in asked])["all"]
            for rules in RULES
        }
        return {"by_rules": by_rules}


def _regraded(prompt: Prompt, row: Row, rules: str) -> Row:
    """Return a graded row as other rules grade it."""
    if row["graded"] == "extraction":
        found = grade_extraction(row["extraction"], prompt, rules)
    else:
        found = grade(row["response"], prompt, rules)
    return row | {"outcome": found.outcome.value}


def _flat_metadata(row: Row) -> dict[str, Any]:
    """Return the metadata of a row that has a column for each."""
    metadata: dict[str, Any] = {key: row[key] for key in _METADATA if not cells.absent(row.get(key))}
    metadata |= {key: int(metadata[key]) for key in ("img_width", "img_height") if key in metadata}
    return metadata if cells.absent(row.get("skills")) else metadata | {"skills": _listed(row["skills"])}


def _listed(text: str) -> list[str]:
    """Return the list that a cell of a TSV spells as Python does."""
    try:
        return list(ast.literal_eval(text))
    except (SyntaxError, TypeError):
        raise ValueError(f"{text!r:.80} does not spell a list; fetch the file again") from None


def _submission(prompt: Prompt, row: Row, lmm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the leaderboard's template (`leaderboad_submission_template`, so spelt)."""
    query = render_question(prompt, lmm.get("question_style", "mathvista"))
    fields = ("question", "unit", "precision", "answer", "question_type", "answer_type")
    return {key: getattr(prompt, key) for key in fields} | {
        "pid": prompt.id,
        "image": f"images/{prompt.id}.jpg",
        "choices": None if prompt.choices is None else list(prompt.choices),
        "metadata": dict(prompt.metadata),
        "query": "\n".join([query, *filter(None, [lmm.get("instruction")])]),
        "response": row["response"],
        "extraction": row["extraction"] or "",
        "prediction": row["prediction"],
        "true_false": row["outcome"] == "correct",
    }
