"""The prompt JSONL format: one prompt (or example) a line, images relative to the file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mstar_pl.data.durable import refuse_folder, written_whole
from mstar_pl.data.records import Lines, Records
from mstar_pl.data.references import locate
from mstar_pl.types import Example, InputError, Prompt

Record = TypeVar("Record")


def read_prompts(path: str | Path) -> Sequence[Prompt]:
    """Check the prompts of a JSONL file; they are read again when they are asked for.

    Image paths come back absolute.

    Raises:
        InputError: The file is missing, empty, or a line is malformed or repeats an id; names file, line and
            reason.
    """
    path = Path(path)
    return read_records(path, partial(decode_prompt, path.parent), lambda prompt: prompt.id)


def read_examples(path: str | Path) -> Sequence[Example]:
    """Check the training examples (prompts with a `response`) of a JSONL file; see `read_prompts`.

    Raises:
        InputError: As `read_prompts`; also when a line has no response.
    """
    path = Path(path)
    # One prompt may have several responses, so ids may repeat here.
    return read_records(path, partial(decode_example, path.parent))


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write rows under a temporary name and rename: a half-written file is never taken for a whole one.

    Raises:
        InputError: A folder has the name; no row is asked for then.
    """
    path = Path(path)
    refuse_folder(path)
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def write_json(path: str | Path, value: Mapping[str, Any]) -> Path:
    """Write one indented JSON object, whole or not at all, as `write_jsonl` does."""
    path = Path(path)
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    return path


def read_records(
    path: Path,
    decode: Callable[[int, dict[str, Any]], Record],
    unique: Callable[[Record], str] | None = None,
) -> Records[Record]:
    """Check every line of a JSONL file as `scan` does, and return its records, which are read when asked for.

    Raises:
        InputError: The file is missing, empty, or a line is malformed; names file, line and reason.
    """
    lines = Lines(path)
    if not lines:
        raise InputError(f"{path}: no rows; the data set is empty")
    for _, record in scan(lines, decode, unique):
        if isinstance(record, InputError):
            raise InputError(f"{record} (mstar-pl data check lists all such lines)")
    return open_records(lines, decode)


def open_records(lines: Lines, decode: Callable[[int, dict[str, Any]], Record]) -> Records[Record]:
    """Return the records of a JSONL file that is known to be good.

    Args:
        lines: Its lines.
        decode: Function from line number and object to a record; a `ValueError` is the line's fault.
    """
    return Records(lines, partial(_decoded, lines.path, decode))  # unlike a closure it can be pickled


def _decoded(path: Path, decode: Callable[[int, dict[str, Any]], Record], number: int, line: bytes) -> Record:
    try:
        return decode(number, decode_object(line))
    except ValueError as error:
        raise InputError(f"{path}:{number}: {error}") from None


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield `(line number, object)` for each line that is not blank.

    Raises:
        InputError: The file is missing, or a line is not a JSON object in UTF-8; names file and line.
    """
    yield from open_records(Lines(path), lambda number, row: (number, row))


def scan(
    lines: Lines,
    decode: Callable[[int, dict[str, Any]], Record],
    unique: Callable[[Record], str | None] | None = None,
) -> Iterator[tuple[int, Record | InputError]]:
    """Decode a JSONL file line by line; a line that is at fault gives its error instead of a record.

    Args:
        lines: Its lines.
        decode: Function from line number and object to a record; a `ValueError` is the line's fault.
        unique: Function to what must not occur twice; None may.
    """
    decoded = open_records(lines, decode).decode
    seen: dict[str, int] = {}
    for number, line in lines:
        try:
            record = decoded(number, line)
        except InputError as error:
            yield number, error
            continue
        key = unique(record) if unique is not None else None
        if key is not None and (first := seen.setdefault(key, number)) != number:
            reason = f"id {key!r} was already used in line {first}; ids must be unique"
            yield number, InputError(f"{lines.path}:{number}: {reason}")
        else:
            yield number, record


def decode_object(line: bytes) -> dict[str, Any]:
    """Return the JSON object that a line holds.

    Raises:
        ValueError: It is not UTF-8, not JSON, or not an object.
    """
    try:
        row = json.loads(line.decode(), parse_constant=_finite, parse_float=_finite)
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no character
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error}); mend the row") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected a JSON object, got {type(row).__name__}")
    return row


def _finite(number: str) -> float:
    if not math.isfinite(value := float(number)):
        raise ValueError(f"{number} is not a finite number")
    return value


def decode_prompt(root: Path, number: int, row: dict[str, Any]) -> Prompt:
    """Read the prompt of a line and make its image paths absolute."""
    return anchor(Prompt.from_json(row), root)


def decode_example(root: Path, number: int, row: dict[str, Any]) -> Example:
    """Read the example of a line and make its image paths absolute."""
    example = Example.from_json(row)
    return replace(example, prompt=anchor(example.prompt, root))


def anchor(prompt: Prompt, root: Path) -> Prompt:
    """Make the image paths of a prompt absolute.

    Raises:
        ValueError: An image does not exist.
    """
    return replace(prompt, images=tuple(locate(image, root) for image in prompt.images))
