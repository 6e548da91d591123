"""Everything that is wrong with a file of prompts or examples, at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mstar_pl.data.collate import Encoder, check_plain, example_lengths
from mstar_pl.data.images import image_problems
from mstar_pl.data.jsonl import anchor, decode_example, scan
from mstar_pl.types import Example, InputError, Prompt


@dataclass(slots=True)
class Checked:
    """What was found.

    Attributes:
        num_rows: Lines that are not blank.
        good: The records without fault, as they were read.
        problems: By line number, what is wrong with it.
    """

    num_rows: int = 0
    good: list[Prompt | Example] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)


def check_file(
    path: Path, encoder: Encoder | None = None, max_length: int = 4096, within: str | None = None
) -> Checked:
    """Read a file of prompts or of examples (rows with a `response`), and decode every image.

    Args:
        path: The JSONL file.
        encoder: LMM adapter; with it texts are searched for special tokens, and lengths measured.
        max_length: Most tokens of prompt and response.
        within: Folder in which all images must lie; None allows any path.

    Raises:
        InputError: The file is missing.
    """
    checked, records, lines_of = Checked(), dict[int, Prompt | Example](), defaultdict[str, list[int]](list)
    for number, record in scan(path, _decoder(), _unique):
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


def _measure(encoder: Encoder, record: Prompt | Example, max_length: int) -> None:
    if isinstance(record, Prompt):
        length = encoder.num_prompt_tokens(record)
    else:
        check_plain(encoder, record.prompt, encoder.encode_response(record.response))
        length = example_lengths(encoder, record)["total"]
    if length > max_length:
        raise InputError(f"has {length} tokens, over max_length {max_length}")


def _decoder() -> Callable[[dict[str, Any], Path], Prompt | Example]:
    """Return a function that reads all rows as the first one looks: with a response or without."""
    kinds: list[bool] = []

    def decode(row: dict[str, Any], root: Path) -> Prompt | Example:
        kinds.append("response" in row)
        return decode_example(row, root) if kinds[0] else anchor(Prompt.from_json(row), root)

    return decode


def _unique(record: Prompt | Example) -> str | None:
    return record.id if isinstance(record, Prompt) else None


def _prompt(record: Prompt | Example) -> Prompt:
    return record if isinstance(record, Prompt) else record.prompt
