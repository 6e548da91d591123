"""Everything that is wrong with a file of prompts, examples or labelled steps, at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mstar_pl.data.collate import Encoder, check_plain, example_lengths
from mstar_pl.data.collate_steps import encode_steps, step_lengths
from mstar_pl.data.images import image_problems
from mstar_pl.data.jsonl import anchor, decode_example, scan
from mstar_pl.data.step_formats import holds_steps, step_decoder
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.types import Example, InputError, Prompt

Record = Prompt | Example | StepLabels


@dataclass(slots=True)
class Checked:
    """What was found.

    Attributes:
        num_rows: Lines that are not blank.
        good: The records without fault, as they were read.
        problems: By line number, what is wrong with it.
    """

    num_rows: int = 0
    good: list[Record] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


def check_file(
    path: Path, encoder: Encoder | None = None, max_length: int = 4096, within: str | None = None
) -> Checked:
    """Read a file of prompts, examples (rows with a `response`) or labelled steps; decode every image.

    Args:
        path: The JSONL file.
        encoder: LMM adapter; with it texts are searched for special tokens, and lengths measured.
        max_length: Most tokens of prompt and response together.
        within: Folder in which all images must lie; None allows any path.

    Raises:
        InputError: The file is missing.
    """
    checked, records, lines_of = Checked(), dict[int, Record](), defaultdict[str, list[int]](list)
    for number, record in scan(path, _decoder(path), _unique):
        checked.num_rows += 1
        if isinstance(record, InputError):
            checked.problems[number] = str(record).removeprefix(f"{path}:{number}: ")
            continue
        records[number] = record
        for image in _prompt(record).images:
            lines_of[image].append(number)
    for image, problem in image_problems(lines_of, within):
        for number in lines_of[image]:
            checked.problems.setdefault(number, problem)
    for number, record in records.items():
        if encoder is not None and number not in checked.problems:
            try:
                _measure(encoder, record, max_length)
            except InputError as error:
                checked.problems[number] = str(error)
        if number not in checked.problems:
            checked.good.append(record)
    return checked


def _measure(encoder: Encoder, record: Record, max_length: int) -> None:
    match record:
        case Prompt():
            length = encoder.num_prompt_tokens(record)
        case Example():
            check_plain(encoder, record.prompt, encoder.encode_response(record.response))
            length = example_lengths(encoder, record)["total"]
        case StepLabels():
            check_plain(encoder, record.prompt, encode_steps(encoder, record.steps)[0])
            length = step_lengths(encoder, record)["total"]
    if length > max_length:
        raise InputError(f"has {length} tokens, over max_length {max_length}")


def _decoder(path: Path) -> Callable[[int, dict[str, Any]], Record]:
    """Return a function that reads all rows as the first one looks: labelled steps, examples or prompts."""
    found: list[Callable[[int, dict[str, Any]], Record]] = []

    def decode(number: int, row: dict[str, Any]) -> Record:
        if not found and holds_steps(row):
            found.append(step_decoder(path))
        elif not found and "response" in row:
            found.append(lambda _, row: decode_example(row, path.parent))
        elif not found:
            found.append(lambda _, row: anchor(Prompt.from_json(row), path.parent))
        return found[0](number, row)

    return decode


def _unique(record: Record) -> str | None:
    return record.id if isinstance(record, Prompt) else None


def _prompt(record: Record) -> Prompt:
    return record if isinstance(record, Prompt) else record.prompt
