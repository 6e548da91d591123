"""What a benchmark is: prompts with gold answers, the rule that grades responses, the score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from mstar_pl.data.format import final_answer, letter
from mstar_pl.data.images import verify_images
from mstar_pl.data.labelled import check_labelled
from mstar_pl.data.sources.fields import absent, gold_choice, text_of
from mstar_pl.data.sources.source import RowSource
from mstar_pl.evaluation.summary import Row, summarise
from mstar_pl.rewards.answer import Grade, Outcome
from mstar_pl.types import InputError, Prompt

PromptStyle = Literal["policy", "official"]
"""Who says how a question is written: the policy's own style, or the benchmark's authors."""

LETTER = "letter"
"""Key of the metadata that holds the gold letter: two choices may have the same text."""


class Benchmark(ABC):
    """Labelled prompts and their score.

    Attributes:
        name: Name of the benchmark, also that of its column in tables.
        rules: Name of the rule that grades.
        headline: Group of the summary that goes into the paper's table.
        data: File or folder of the data.
        with_images: Whether images are looked for; grading alone does without.
    """

    name: str
    rules: str
    headline: ClassVar[str] = "all"
    data: Path
    with_images: bool = True

    @abstractmethod
    def load(self) -> Sequence[Prompt]:
        """Return the prompts, in the order of the data.

        Raises:
            InputError: The data are malformed; names file, row and fix.
        """

    @abstractmethod
    def grade_extraction(self, extraction: str, prompt: Prompt) -> Grade:
        """Grade an answer that was taken from a response already."""

    def grade(self, response: str, prompt: Prompt) -> Grade:
        """Grade a response by its final answer, or as a whole where it marks none.

        The published rules were made for short answers: a letter in a chain of thought would mislead them.
        """
        return self.grade_extraction(final_answer(response), prompt)

    def groups(self, prompt: Prompt) -> list[str]:
        """Return the groups of the summary that a prompt counts in, from coarse to fine."""
        return [] if prompt.task == "all" else [prompt.task]

    def scored(self, rows: Sequence[Row]) -> list[Row]:
        """Return what is counted: the responses, or of several to a question one."""
        return list(rows)

    def summarise(self, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
        """Return the score by group, `all` first (`mstar_pl.evaluation.summary.summarise`)."""
        return summarise(rows)

    def report(
        self, prompts: Sequence[Prompt], rows: Sequence[Row], out: Path, lmm: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the files that the benchmark's authors want, and return further entries of `results.json`.

        Args:
            prompts: The prompts.
            rows: The graded responses.
            out: Folder of the files.
            lmm: Options of the adapter with which the policy was asked; empty if they are not known.
        """
        return {}


class PublishedBenchmark(RowSource[Prompt], Benchmark):
    """A benchmark in one of the forms in which it is published.

    Args:
        data: Folder with one of `files`, or with Parquet or Arrow files of the split; or such a file.
        prompts: Whether the policy's own style or the official prompt asks the question.

    Attributes:
        files: Names of the published files, in the order in which they are looked for.
        published_split: Name of the split in the Parquet form.
        columns: Columns that each row must have.
        group_keys: Keys of the metadata whose values are groups, from coarse to fine.

    Raises:
        InputError: The folder holds none of them.
    """

    files: ClassVar[tuple[str, ...]]
    published_split: ClassVar[str] = "test"
    columns: ClassVar[tuple[str, ...]]
    group_keys: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: str | Path, prompts: PromptStyle = "policy") -> None:
        self.data = Path(data)
        self.prompts: PromptStyle = prompts
        path = find_file(self.data, self.files, self.name)
        super().__init__(path, split=self.published_split if path.is_dir() else None)

    def load(self) -> Sequence[Prompt]:
        """Return the prompts; their number is small, so that all are read at once."""
        prompts = list(super().load())
        check_ids((prompt.id for prompt in prompts), self.path)
        return prompts

    def read(self, number: int, row: Row) -> Prompt:
        """Return the prompt of a row that has all columns, its fields of the right types, and an image."""
        with checked(row, self.columns):
            prompt = self.prompt_of(row, number)
            Prompt.from_json(prompt.to_json())
            groups = self.groups(prompt)
        if not all(isinstance(group, str) for group in groups):
            raise ValueError(f"groups {groups!r:.60} must be texts; fetch the data again")
        if self.with_images and not prompt.images:
            raise ValueError("has no image; fetch the data again, or remove the row")
        return prompt

    @abstractmethod
    def prompt_of(self, row: Row, number: int) -> Prompt:
        """Return the prompt of a row.

        Args:
            row: Its cells by column.
            number: Its number, counted from 0.

        Raises:
            ValueError: The row is at fault; says what is.
        """

    def image(self, cell: Any) -> tuple[str, ...]:
        """Return the images of a cell, none if they are not looked for."""
        return super().image(cell) if self.with_images else ()

    def groups(self, prompt: Prompt) -> list[str]:
        """Return the values of `group_keys` that the prompt's metadata hold."""
        values = [prompt.metadata[key] for key in self.group_keys if key in prompt.metadata]
        return [group for value in values for group in (value if isinstance(value, list) else [value])]


class ChoiceBenchmark(PublishedBenchmark):
    """A benchmark whose every question has options, one of them right, graded by the letter."""

    @abstractmethod
    def chosen_letter(self, answer: str, prompt: Prompt) -> str | None:
        """Return the letter that the benchmark's rule takes an answer to name, or None."""

    def grade_extraction(self, extraction: str, prompt: Prompt) -> Grade:
        """Compare the letter of an answer with the gold one."""
        chosen = self.chosen_letter(extraction, prompt)
        outcome = Outcome.CORRECT if chosen == prompt.metadata[LETTER] else Outcome.WRONG
        found = extraction if chosen in lettered(prompt.choices or ()) else None
        return Grade(outcome=outcome, extraction=found, prediction=chosen, rule=self.rules)

    def prompt(
        self,
        id: str,
        question: str,
        choices: Sequence[str],
        gold: str,
        image: Any,
        query: str,
        metadata: Mapping[str, Any],
    ) -> Prompt:
        """Return the prompt of a row.

        Args:
            id: Its id.
            question: The question with what belongs to it, without the options.
            choices: The texts of the options.
            gold: Letter of the right one.
            image: The cell with the image or images.
            query: The official prompt.
            metadata: What else is known; empty cells are left out.

        Raises:
            ValueError: There is no such option.
        """
        known = {key: value for key, value in metadata.items() if not absent(value)}
        return Prompt(
            id=id,
            question=question,
            images=self.image(image),
            choices=tuple(choices),
            answer=gold_choice(gold, choices, "letter"),
            question_type="multi_choice",
            query=query if self.prompts == "official" else None,
            metadata=known | {LETTER: gold.strip().strip("().:")},
        )


def find_file(data: Path, files: Sequence[str], name: str) -> Path:
    """Return the file of a benchmark in a folder, the folder itself if it holds Parquet or Arrow files.

    Raises:
        InputError: It holds neither; names what was looked for.
    """
    if data.is_file():
        return data
    if found := next((data / file for file in files if (data / file).is_file()), None):
        return found
    if any(path.suffix in (".parquet", ".arrow") for path in data.rglob("*")):
        return data
    raise InputError(f"{data}: no {name} here; looked for {', '.join(files)}, and Parquet or Arrow files")


def require(row: Row, columns: Sequence[str]) -> None:
    """Refuse a row that lacks a column.

    Raises:
        ValueError: It lacks one; names it and those that are there.
    """
    if missing := next((column for column in columns if column not in row), None):
        raise ValueError(f"column {missing!r} is missing (there are {', '.join(row)}); fetch the data again")


@contextmanager
def checked(row: Row, columns: Sequence[str]) -> Iterator[None]:
    """Refuse a row that lacks a column, or whose reading fails at a cell.

    Raises:
        ValueError: It does; says why.
    """
    require(row, columns)
    try:
        yield
    except (TypeError, AttributeError, LookupError, OverflowError) as error:
        raise ValueError(f"a cell is empty or of another type ({error}); fetch the data again") from None


def check_ids(ids: Iterable[str], data: Path) -> None:
    """Refuse an id that comes twice.

    Raises:
        InputError: There is one; names it.
    """
    if repeated := [id for id, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{data}: id {repeated[0]!r} is used twice; fetch the data again")


def load_checked(benchmark: Benchmark, limit: int | None = None) -> Sequence[Prompt]:
    """Return the first `limit` prompts of a benchmark, their images decoded once.

    Raises:
        InputError: The data are malformed, an image cannot be read, or a prompt has no answer; names it.
    """
    prompts = benchmark.load()[:limit]
    check_labelled(prompts, benchmark.data)
    verify_images(prompts, str(benchmark.data))
    return prompts


def lettered(choices: Sequence[str]) -> dict[str, str]:
    """Return options by their letters.

    >>> lettered(["left", "right"])
    {'A': 'left', 'B': 'right'}
    """
    return {letter(place): text for place, text in enumerate(choices)}


def options_of(row: Row) -> dict[str, str]:
    """Return the options of a row with a column for each, by their letters; an empty cell is none.

    Raises:
        ValueError: An option comes after an empty one, so that the letters would shift.

    >>> options_of({"A": "left", "B": "right", "C": "nan", "D": None, "answer": "B"})
    {'A': 'left', 'B': 'right'}
    """
    options = {name: text_of(row[name], name) for name in "ABCDEFGH" if not absent(row.get(name))}
    if shifted := [name for place, name in enumerate(options) if name != letter(place)]:
        raise ValueError(f"option {shifted[0]} comes after an empty one; fill it, or remove the row")
    return options
