"""MMStar and MMStar-R (arXiv 2403.20330; MMStar-Benchmark/MMStar)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from mstar_pl.data.format import letter
from mstar_pl.data.sources.fields import parse_question, text_of
from mstar_pl.data.tables import Row
from mstar_pl.evaluation.benchmarks.benchmark import ChoiceBenchmark, lettered, options_of
from mstar_pl.rewards.official import mmstar
from mstar_pl.types import Prompt

_LISTED = re.compile(r"\n(?:Options:|\(A\))")
_INSTRUCTION = "Answer with the option's letter from the given choices directly"


class MMStar(ChoiceBenchmark):
    """MMStar's split `val`; MMStar-R is its group `reasoning`, the four categories without `perception`.

    Args:
        data: Folder with `MMStar.tsv` or `mmstar.parquet`, or with Parquet files of the split `val`.
        prompts: The official prompt is that of lmms-eval, which asks for the letter alone.
    """

    name = "mmstar"
    rules = "mmstar"
    headline = "reasoning"
    files: ClassVar[tuple[str, ...]] = ("MMStar.tsv", "mmstar.parquet", "val.jsonl")
    published_split = "val"
    columns: ClassVar[tuple[str, ...]] = ("index", "question", "image", "answer", "category", "l2_category")
    group_keys: ClassVar[tuple[str, ...]] = ("kind", "category", "l2_category")

    def prompt_of(self, row: Row, number: int) -> Prompt:
        """Return the prompt of a row, whose options stand in the question or in columns of their own."""
        if (options := options_of(row)) and not _LISTED.search(row["question"]):
            question, choices = row["question"], tuple(options.values())
            asked = with_options(question, choices)
        else:
            (question, choices), asked = split_options(row["question"]), row["question"]
        category = row["category"]
        kind = "perception" if "perception" in category else "reasoning"
        return self.prompt(
            id=text_of(row["index"], "index"),
            question=question,
            choices=choices,
            gold=row["answer"].strip().upper(),
            image=row["image"],
            query=f"{asked}\n{_INSTRUCTION}",
            metadata={"task": category, "kind": kind} | {key: row[key] for key in self.group_keys[1:]},
        )

    def chosen_letter(self, answer: str, prompt: Prompt) -> str | None:
        """Return the first character."""
        return mmstar.chosen_letter(answer)


def with_options(question: str, choices: Sequence[str]) -> str:
    r"""Return a question with its options as MMStar writes them.

    >>> with_options("Which?", ("red", "blue"))
    'Which?\nOptions: A: red, B: blue'
    """
    listed = ", ".join(f"{name}: {text}" for name, text in lettered(choices).items())
    return f"{question}\nOptions: {listed}"


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    r"""Return a question of MMStar and its options, in either of the two forms that it has.

    Raises:
        ValueError: It has none that can be told apart.

    >>> split_options("Which?\nOptions: A: red, then, B: none of A: and B:")
    ('Which?', ('red, then', 'none of A: and B:'))
    >>> split_options("Hint: Give the letter.\nQuestion: Which?\nChoices:\n(A) red\n(B) blue")
    ('Which?', ('red', 'blue'))
    """
    question, found, listed = text.rpartition("\nOptions:")
    if not found:
        bare = "\nChoices:" not in text  # seven questions lack the line
        parsed = parse_question(text.replace("\n(A)", "\nChoices:\n(A)", 1) if bare else text)
        if not parsed.choices:
            raise ValueError("the question ends neither in 'Options: A: …, B: …' nor in lines '(A) …'")
        return parsed.question, parsed.choices
    choices: list[str] = []
    rest = listed.strip()
    while rest.startswith(start := f"{letter(len(choices))}:"):
        text, more, rest = rest.removeprefix(start).partition(f", {letter(len(choices) + 1)}:")
        choices.append(text.strip())
        rest = f"{letter(len(choices))}:{rest}" if more else ""
    return question.strip(), tuple(choices)
