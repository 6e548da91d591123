"""A prompt file as a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mstar_pl.data.jsonl import read_prompts, read_records
from mstar_pl.evaluation.benchmarks.benchmark import Benchmark
from mstar_pl.rewards.answer import Grade, Rules, grade, grade_extraction
from mstar_pl.types import Prompt


class PromptFile(Benchmark):
    """Any prompt JSONL file with answers.

    Args:
        data: The file.
        rules: How answers are compared (`mstar_pl.rewards.answer.grade`).
    """

    def __init__(self, data: str | Path, rules: Rules = "default") -> None:
        self.data = Path(data)
        self.name = self.data.stem
        self.rules: Rules = rules

    def load(self) -> Sequence[Prompt]:
        """Return the prompts."""
        if self.with_images:
            return read_prompts(self.data)
        return read_records(self.data, lambda _, row: Prompt.from_json(row), lambda prompt: prompt.id)

    def grade_extraction(self, extraction: str, prompt: Prompt) -> Grade:
        """Grade an answer that was taken from a response already."""
        return grade_extraction(extraction, prompt, self.rules)

    def grade(self, response: str, prompt: Prompt) -> Grade:
        """Grade a response; the rules find its answer themselves."""
        return grade(response, prompt, self.rules)
