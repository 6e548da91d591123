"""Labelled prompts of a command: read and checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mstar_pl.data.images import verify_images
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.types import InputError, Prompt


def read_labelled(path: Path, limit: int | None = None) -> list[Prompt]:
    """Read the first `limit` prompts of a JSONL file and decode their images once.

    Raises:
        InputError: The file is malformed, an image cannot be read, or a prompt has no answer; names it.
    """
    prompts = read_prompts(path)[:limit]
    check_labelled(prompts, path)
    verify_images(prompts, str(path))
    return prompts


def check_labelled(prompts: Iterable[Prompt], path: str | Path) -> None:
    """Refuse prompts without an answer.

    Raises:
        InputError: There is one; names it.
    """
    if missing := next((prompt.id for prompt in prompts if prompt.answer is None), None):
        raise InputError(f"{path}: prompt {missing!r} has no answer to check responses against; remove it")
