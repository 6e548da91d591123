"""Prompts with answers, and prompts whose answers are hidden."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from mstar_pl.data.images import verify_images
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.types import InputError, Prompt

HIDDEN_ANSWER = "hidden_answer"
"""Key of an unlabelled prompt's metadata under which its true answer lies, for comparison only."""


def read_labelled(path: Path, limit: int | None = None) -> Sequence[Prompt]:
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


def reveal(prompt: Prompt) -> Prompt | None:
    """Return an unlabelled prompt with the answer that its metadata hide; None if they hide none."""
    answer = prompt.metadata.get(HIDDEN_ANSWER)
    return None if answer is None else replace(prompt, answer=str(answer))


def hide_answers(prompts: Sequence[Prompt], percent: float, seed: int) -> list[Prompt]:
    """Return the prompts in their order, a random share of them unlabelled, with the answer in the metadata.

    Args:
        prompts: Labelled prompts.
        percent: Share of the prompts, in (0, 100].
        seed: Seed of the choice.

    Raises:
        InputError: The percentage is out of range.

    >>> labelled = [Prompt(id=str(n), question="?", answer="4") for n in range(4)]
    >>> [prompt.answer for prompt in hide_answers(labelled, 50, seed=0)].count(None)
    2
    """
    if not 0 < percent <= 100:
        raise InputError(f"{percent} is not a percentage of the prompts in (0, 100]")
    order = sorted(prompt.id for prompt in prompts if prompt.answer is not None)
    chosen = set(Random(f"{seed}/hide").sample(order, round(len(order) * percent / 100)))
    return [hidden(prompt) if prompt.id in chosen else prompt for prompt in prompts]


def hidden(prompt: Prompt) -> Prompt:
    """Return a labelled prompt without its answer, which moves to its metadata; the inverse of `reveal`.

    >>> hidden(Prompt(id="1", question="?", answer="4")).metadata
    {'hidden_answer': '4'}
    """
    return replace(prompt, answer=None, metadata={**prompt.metadata, HIDDEN_ANSWER: prompt.answer})
