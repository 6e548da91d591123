"""MMBench v1.1 and MMBench-R (arXiv 2307.06281)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mstar_pl.data.sources.fields import absent, text_of
from mstar_pl.data.tables import Row, open_table
from mstar_pl.evaluation.benchmarks.benchmark import ChoiceBenchmark, PromptStyle, lettered, options_of
from mstar_pl.evaluation.summary import summarise
from mstar_pl.rewards.official import vlmevalkit
from mstar_pl.types import Prompt

_INSTRUCTION = "Please select the correct answer from the options above. \n"
ROLL = 1_000_000
"""A copy of question `i` with its options rolled on by k places has the index `i + k ROLL`."""


class MMBench(ChoiceBenchmark):
    """MMBench's development split; MMBench-R is its group `reasoning` (attribute, relation, logic).

    The official score is circular: a question counts only if all copies with rolled options are right.
    `vanilla …` groups count the questions as they are, without the copies.

    Args:
        data: Folder with `MMBench_DEV_EN_V11.tsv`, or with Parquet files of the split `dev`.
        prompts: The official prompt is that of VLMEvalKit.
        rules: Version of VLMEvalKit's rule.
    """

    name = "mmbench"
    headline = "reasoning"
    files: ClassVar[tuple[str, ...]] = ("MMBench_DEV_EN_V11.tsv", "mmbench_dev_en_v11.jsonl", "dev.jsonl")
    published_split = "dev"
    columns: ClassVar[tuple[str, ...]] = ("index", "question", "A", "B", "answer", "category", "image")
    group_keys: ClassVar[tuple[str, ...]] = ("kind", "l2_category", "category")

    def __init__(
        self, data: str | Path, prompts: PromptStyle = "policy", rules: vlmevalkit.Era = "2024"
    ) -> None:
        super().__init__(data, prompts)
        self.era: vlmevalkit.Era = rules
        self.rules = f"vlmevalkit-{rules}"
        self._images: dict[str, Any] = {}

    def load(self) -> Sequence[Prompt]:
        """Return the prompts, copies with rolled options included."""
        table = open_table(self.path, self.split)
        self._images = {str(row.get("index")): row.get("image") for _, row in table}
        return super().load()

    def prompt_of(self, row: Row, number: int) -> Prompt:
        """Return the prompt of a row; its hint comes before the question."""
        hint = "" if absent(row.get("hint")) else str(row["hint"])
        options, question = options_of(row), row["question"]
        listed = "".join(f"{name}. {text}\n" for name, text in options.items())
        query = f"Question: {question}\nOptions:\n{listed}{_INSTRUCTION}"
        l2 = row.get("l2-category") or row.get("L2-category")  # copies spell it otherwise
        if not l2:
            raise ValueError("column 'l2-category' is missing; fetch the data again")
        kind = "perception" if "perception" in l2 else "reasoning"
        return self.prompt(
            id=str(int(text_of(row["index"], "index"))),
            question=f"{hint}\n{question}" if hint else question,
            choices=list(options.values()),
            gold=row["answer"],
            image=self._image_of(str(row["index"])),
            query=f"Hint: {hint}\n{query}" if hint else query,
            metadata={"task": l2, "kind": kind, "l2_category": l2, "category": row["category"]},
        )

    def chosen_letter(self, answer: str, prompt: Prompt) -> str | None:
        """Return the letter by VLMEvalKit's rule."""
        return vlmevalkit.chosen_letter(answer, lettered(prompt.choices or ()), self.era)

    def scored(self, rows: Sequence[Row]) -> list[Row]:
        """Return one row a question."""
        return circular(rows)

    def summarise(self, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Return the circular score by group, then the vanilla one."""
        vanilla = summarise([row for row in rows if int(row["id"]) < ROLL])
        return summarise(circular(rows)) | {f"vanilla {group}": found for group, found in vanilla.items()}

    def _image_of(self, index: str) -> Any:
        """Return the image cell of a row; a number in it is the index of the row that has the image."""
        cell, seen = self._images[index], {index}
        while str(cell).isdecimal():
            if str(cell) not in self._images or str(cell) in seen:
                raise ValueError(f"image is that of row {cell}, which has none; fetch the file again")
            seen.add(str(cell))
            cell = self._images[str(cell)]
        return cell


def circular(rows: Sequence[Row]) -> list[Row]:
    """Return one row a question, correct only if all of its copies are, with an answer only if all have one.

    >>> row = {"groups": [], "finish_reason": "stop"}
    >>> copies = [{"id": "7", "outcome": "correct"}, {"id": "1000007", "outcome": "wrong"}]
    >>> [(one["id"], one["outcome"]) for one in circular([row | copy for copy in copies])]
    [('7', 'wrong')]
    """
    questions: dict[int, Row] = {}
    for row in rows:
        question = questions.setdefault(int(row["id"]) % ROLL, dict(row))
        if row["outcome"] != "correct":
            question["outcome"] = row["outcome"]
        if not row.get("extraction"):
            question["extraction"] = None
        if row["finish_reason"] == "length":
            question["finish_reason"] = "length"
    return list(questions.values())
