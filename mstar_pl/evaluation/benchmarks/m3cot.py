"""M3CoT (arXiv 2405.16473; LightChen233/M3CoT)."""

from __future__ import annotations

from typing import ClassVar

from mstar_pl.data.sources.fields import absent, texts_of
from mstar_pl.data.tables import Row
from mstar_pl.evaluation.benchmarks.benchmark import ChoiceBenchmark, lettered
from mstar_pl.rewards.official import m3cot
from mstar_pl.types import Prompt


class M3CoT(ChoiceBenchmark):
    """M3CoT's test split, by domain and topic.

    Args:
        data: Folder with `data/test.jsonl` or `test.jsonl`, or with Parquet files of the split `test`.
        prompts: The official prompt is that of the zero-shot chain of thought, in one turn.
    """

    name = "m3cot"
    rules = "m3cot"
    files: ClassVar[tuple[str, ...]] = ("data/test.jsonl", "test.jsonl")
    columns: ClassVar[tuple[str, ...]] = ("id", "question", "choices", "answer", "domain", "topic")
    group_keys: ClassVar[tuple[str, ...]] = ("domain", "topic")

    def prompt_of(self, row: Row, number: int) -> Prompt:
        """Return the prompt of a row; its context comes before the question."""
        context = "" if absent(row.get("context")) else row["context"]
        choices = texts_of(row["choices"], "choices")
        options = "\n".join(f"({name}) {choice}" for name, choice in lettered(choices).items())
        query = f"[Question]\n{row['question']}\n[Choices]\n{options}\n\nLet's think step-by-step!"
        return self.prompt(
            id=row["id"],
            question=f"{context}\n{row['question']}" if context else row["question"],
            choices=choices,
            gold=row["answer"],
            image=row.get("image_path") or row.get("image"),
            query=f"[Context]\n{context}\n\n{query}" if context else query,
            metadata={key: row.get(key) for key in ("domain", "topic", "category")} | {"task": row["domain"]},
        )

    def chosen_letter(self, answer: str, prompt: Prompt) -> str | None:
        """Return the letter by `judge_answer`."""
        return m3cot.chosen_letter(answer, prompt.choices or ())
