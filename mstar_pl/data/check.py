"""Everything that is wrong with a file of prompts, examples or labelled steps, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mstar_pl.data.collate import Encoder, check_plain, example_lengths
from mstar_pl.data.collate_steps import encode_steps, step_lengths
from mstar_pl.data.images import with_image_faults
from mstar_pl.data.jsonl import decode_example, decode_prompt, scan
from mstar_pl.data.records import Lines
from mstar_pl.data.sources.dataset import DatasetExamples, DatasetPrompts
from mstar_pl.data.sources.given import Given, is_jsonl, name_of
from mstar_pl.data.sources.source import RowSource, Source, prompt_of, read_all
from mstar_pl.data.sources.steps import Prm800k, StepRows
from mstar_pl.data.step_formats import format_of, step_decoder
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.tables import open_table
from mstar_pl.types import Example, InputError, Prompt

Record = Prompt | Example | StepLabels


def check_file(
    given: Given,
    encoder: Encoder | None = None,
    max_length: int = 4096,
    within: str | None = None,
) -> Iterator[tuple[str, Record | InputError]]:
    """Read a file of prompts, examples (rows with a `response`) or labelled steps; decode every image.

    Args:
        given: The JSONL file, another table with the field's column names, or a source.
        encoder: LMM adapter; with it texts are searched for special tokens, and lengths measured.
        max_length: Most tokens of prompt and response together.
        within: Folder in which all images must lie; None allows any path.

    Yields:
        Name of each row, blank lines left out, with its record or what is wrong with it.

    Raises:
        InputError: The file is missing, or a table is in no known form.
    """
    for (name, record), fault in with_image_faults(_rows(given), _images, within):
        if encoder is not None and not fault and not isinstance(record, InputError):
            fault = _misfit(encoder, record, max_length)
        yield name, InputError(f"{name}: {fault}") if fault else record


def _rows(given: Given) -> Iterator[tuple[str, Record | InputError]]:
    if not isinstance(given, Source) and is_jsonl(given):
        path = Path(given)
        for number, record in scan(Lines(path), _decoder(path), _unique):
            yield f"{path}:{number}", record
        return
    source = given if isinstance(given, Source) else _source_of(Path(given))
    records = source.records() if isinstance(source, RowSource | Prm800k) else source.load()
    for place, row in enumerate(read_all(records)):
        yield f"{name_of(source)}: row {place}", row


def _source_of(path: Path) -> Source:
    """Return what reads a table as its first row looks."""
    row = next((row for _, row in open_table(path)), {})
    if format_of(row) is not None:
        return StepRows(path)
    prompts = DatasetPrompts(path)
    return DatasetExamples(prompts) if "response" in row else prompts


def _misfit(encoder: Encoder, record: Record, max_length: int) -> str | None:
    """Return why a model cannot take a record: special tokens in its text, or its length."""
    try:
        match record:
            case Prompt():
                length = encoder.num_prompt_tokens(record)
            case Example():
                check_plain(encoder, record.prompt, encoder.encode_response(record.response))
                length = example_lengths(encoder, record)["total"]
            case StepLabels():
                check_plain(encoder, record.prompt, encode_steps(encoder, record.steps)[0])
                length = step_lengths(encoder, record)["total"]
    except InputError as error:
        return str(error)
    return f"has {length} tokens, over max_length {max_length}" if length > max_length else None


def _decoder(path: Path) -> Callable[[int, dict[str, Any]], Record]:
    """Return a function that reads all rows as the first one looks: labelled steps, examples or prompts."""
    chosen: Callable[[int, dict[str, Any]], Record] | None = None

    def decode(number: int, row: dict[str, Any]) -> Record:
        nonlocal chosen
        if chosen is None:
            chosen = _decoder_for(row, path)
        return chosen(number, row)

    return decode


def _decoder_for(row: dict[str, Any], path: Path) -> Callable[[int, dict[str, Any]], Record]:
    if (format := format_of(row)) is not None:
        return step_decoder(path, format)
    return partial(decode_example if "response" in row else decode_prompt, path.parent)


def _unique(record: Record) -> str | None:
    return record.id if isinstance(record, Prompt) else None


def _images(found: tuple[str, Record | InputError]) -> Sequence[str]:
    _, record = found
    return () if isinstance(record, InputError) else prompt_of(record).images
