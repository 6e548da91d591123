"""AI2D's test split, with masked and with readable labels (arXiv 1603.07396)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from mstar_pl.data.format import letter
from mstar_pl.data.sources.fields import text_of, texts_of
from mstar_pl.data.tables import Row
from mstar_pl.evaluation.benchmarks.benchmark import ChoiceBenchmark, PromptStyle, lettered, options_of
from mstar_pl.rewards.official import ai2d, vlmevalkit
from mstar_pl.types import InputError, Prompt

AI2DRules = Literal["vlmevalkit-2024", "vlmevalkit-head", "lmms-eval"]


class AI2D(ChoiceBenchmark):
    """AI2D with masked labels: letters in boxes stand for the texts in the diagram.

    Args:
        data: Folder with `AI2D_TEST.tsv`, or with Parquet files of the split `test`.
        prompts: The official prompt is that of lmms-eval.
        rules: Whose rule grades; AI2D itself has none for free text.

    Raises:
        InputError: The data are, by their name, those of the other variant.
    """

    name = "ai2d"
    files: ClassVar[tuple[str, ...]] = ("AI2D_TEST.tsv", "ai2d_test.jsonl", "test.jsonl")
    columns: ClassVar[tuple[str, ...]] = ("question", "answer", "image")
    group_keys: ClassVar[tuple[str, ...]] = ("category",)
    masked: ClassVar[bool] = True

    def __init__(
        self, data: str | Path, prompts: PromptStyle = "policy", rules: AI2DRules = "vlmevalkit-2024"
    ) -> None:
        super().__init__(data, prompts)
        self.rules = rules
        paths = (self.path.resolve(), self.data.resolve())
        names = [path.name.lower().replace("_", "").replace("-", "") for path in paths]
        name = next((name for name in names if "ai2d" in name), "")
        if self.masked and "nomask" in name:
            raise InputError(f"{self.path}: its labels are readable; use the benchmark {AI2DNoMask.name}")
        if not self.masked and name in ("ai2d", "ai2dtest.jsonl", "ai2dtest.tsv"):
            raise InputError(f"{self.path}: its labels are masked; use the benchmark {AI2D.name}")

    def prompt_of(self, row: Row, number: int) -> Prompt:
        """Return the prompt of a row: a list of options and an index, or a column an option and a letter."""
        if "options" in row:
            choices = texts_of(row["options"], "options")
            gold = letter(int(text_of(row["answer"], "answer")))
        else:
            choices, gold = tuple(options_of(row).values()), row["answer"]
        listed = "".join(f"{name}. {choice}\n" for name, choice in lettered(choices).items())
        instruction = "Answer with the option's letter from the given choices directly."
        return self.prompt(
            id=text_of(row.get("index", number), "index"),
            question=row["question"],
            choices=choices,
            gold=gold,
            image=row["image"],
            query=f"{row['question']}\n{listed}{instruction}",
            metadata={"category": row.get("category"), "labels": "masked" if self.masked else "readable"},
        )

    def chosen_letter(self, answer: str, prompt: Prompt) -> str | None:
        """Return the letter by the rule."""
        if self.rules == "lmms-eval":
            return ai2d.chosen_letter(answer)
        era: vlmevalkit.Era = "head" if self.rules.endswith("head") else "2024"
        return vlmevalkit.chosen_letter(answer, lettered(prompt.choices or ()), era)


class AI2DNoMask(AI2D):
    """AI2D with readable labels, about five points easier; never to be mixed with the masked variant."""

    name = "ai2d_no_mask"
    files: ClassVar[tuple[str, ...]] = ("AI2D_TEST_NO_MASK.tsv", "ai2d_test_no_mask.jsonl", "test.jsonl")
    masked = False
