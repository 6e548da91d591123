"""What a configuration gives as data: the path of a file, or a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from mstar_pl.data.jsonl import read_examples, read_prompts
from mstar_pl.data.sources.dataset import DatasetExamples, DatasetPrompts
from mstar_pl.data.sources.source import Source, validated
from mstar_pl.data.sources.steps import StepRows
from mstar_pl.data.step_formats import StepFormat, read_steps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.types import Example, InputError, Prompt

T = TypeVar("T", Prompt, Example, StepLabels)
# With `Path` among them the command line takes a path for one, else it reads the file as a configuration; it
# comes last, since it would write any of the others as a text when a configuration is saved.
Given = str | Source | Path
"""The path of a file, or a source."""


def is_jsonl(path: str | Path) -> bool:
    """Return whether a path names a JSONL file, which is read in our own formats; others are tables.

    >>> is_jsonl("a/train.jsonl.gz"), is_jsonl("train.parquet"), is_jsonl("folder/")
    (True, False, False)
    """
    return str(path).removesuffix(".gz").endswith(".jsonl")


def name_of(given: Given) -> str:
    """Return the name of what is given, for messages."""
    return given.origin if isinstance(given, Source) else str(given)


def load_prompts(given: Given) -> Sequence[Prompt]:
    """Return the prompts of a prompt JSONL file, a table (`DatasetPrompts`) or a source, every row checked.

    Raises:
        InputError: Something in it is wrong, or it gives something else than prompts.
    """
    if isinstance(given, Source):
        return _of(Prompt, given)
    return read_prompts(given) if is_jsonl(given) else _of(Prompt, DatasetPrompts(given))


def load_examples(given: Given) -> Sequence[Example]:
    """Return the examples of a JSONL file, a table (`DatasetExamples`) or a source; see `load_prompts`."""
    if isinstance(given, Source):
        return _of(Example, given)
    return read_examples(given) if is_jsonl(given) else _of(Example, DatasetExamples(DatasetPrompts(given)))


def load_steps(
    given: Given, format: StepFormat | None = None, root: str | Path | None = None
) -> Sequence[StepLabels]:
    """Return the labelled steps of a JSONL file, a table (`StepRows`) or a source; see `load_prompts`."""
    if isinstance(given, Source):
        return _of(StepLabels, given)
    if is_jsonl(given):
        return read_steps(given, format, root)
    return _of(StepLabels, StepRows(given, format, images=root))


def _of(kind: type[T], source: Source) -> Sequence[T]:
    records = source.load()
    if not isinstance(records[0], kind):
        raise InputError(
            f"{name_of(source)}: {type(source).__name__} gives a {type(records[0]).__name__}, "
            f"needed is a {kind.__name__}; choose another source"
        )
    return validated(records, name_of(source))
