"""The largest micro-batch that training may meet, made up: what a plan of memory reckons with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from PIL import Image

from mstar_pl.data.batches import Batch
from mstar_pl.data.collate import Encoder
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.types import InputError, Prompt

_SIDES = (32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
_RATIOS = ((1, 1), (4, 3), (3, 4), (2, 1))


def largest_batch(
    data: PolicyDataModule,
    encoder: Encoder,
    folder: Path,
    *,
    num_rows: int,
    max_response: int | None = None,
    image_first: bool = False,
) -> Batch:
    """Return a micro-batch whose rows have `max_length` tokens and one image.

    Tokens of an image and of a response take memory in different places. As their sum is given, one of two
    extremes takes most: the largest image, or the longest response. The last of several rows is a little
    shorter than the others: as in most batches, attention then needs a mask for the padding.

    Args:
        data: Data module; its examples, collation and `max_length` count.
        encoder: LMM adapter.
        folder: Where the images are written.
        num_rows: Rows.
        max_response: Most tokens of a response; None sets no limit but the length of a row.
        image_first: Take the largest image that fits, then the longest response; else the reverse. What is
            left is question.

    Raises:
        InputError: Not even the smallest image fits.
    """
    prompts = _prompts(folder)
    sizes = {one.id: encoder.num_prompt_tokens(one) for one in prompts}
    least = min(sizes.values())
    longest = data.max_length if max_response is None else max_response
    # A response has a token at least, and one that ends it.
    num_response = 2 if image_first else min(longest, data.max_length - least)
    fitting = [one for one in prompts if sizes[one.id] <= data.max_length - max(2, num_response)]
    if not fitting:
        raise InputError(
            f"data.max_length {data.max_length}: the smallest image with a question of a word has {least} "
            "tokens; raise it"
        )
    prompt = max(fitting, key=lambda one: sizes[one.id])  # the first such, with the fewest pixels
    if image_first:
        num_response = min(longest, data.max_length - sizes[prompt.id])

    def prompt_tokens(text: str) -> int:
        return encoder.num_prompt_tokens(replace(prompt, question=text))

    prompt = replace(prompt, question=_text(prompt_tokens, data.max_length - num_response))
    response = _text(lambda text: len(encoder.encode_response(text)), num_response)
    rows = [response] * (num_rows - 1) + [response[: -2 if num_rows > 1 else None] or response]
    batch = data.collate(encoder, [data.compose(prompt, row) for row in rows])
    return batch | {"num_step_losses": torch.tensor(num_rows * num_response)}


def _prompts(folder: Path) -> list[Prompt]:
    """Return prompts with blank images of many sizes."""
    prompts = []
    for side, (wide, high) in product(_SIDES, _RATIOS):
        width, height = side, side * high // wide
        path = folder / f"{width}x{height}.png"
        Image.new("1", (width, height)).save(path)
        prompts.append(Prompt(id=path.stem, question="a", images=(str(path),)))
    return prompts


def _text(num_tokens: Callable[[str], int], wanted: int) -> str:
    """Return a text with as many tokens as wanted, or a few less.

    >>> len(_text(lambda text: 2 * len(text.split()) + 1, 12).split())
    5
    """
    num = max(1, wanted)
    while num > 1 and (found := num_tokens("a " * num)) > wanted:
        num = max(1, min(num - 1, num * wanted // found))
    return ("a " * num).strip()
