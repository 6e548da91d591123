"""From training examples to one padded batch, with labels on response tokens only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from PIL.Image import Image
from torch import Tensor

from mstar_pl.data.images import load_image
from mstar_pl.types import Example, InputError, Prompt

IGNORE = -100
"""Label of a position that carries no loss (the value that torch's cross entropy ignores)."""

TEXT_KEYS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
"""Model inputs with one value per token; all others belong to the images."""


class Encoder(Protocol):
    """What collation needs of an LMM adapter (`mstar_pl.models.LMM`)."""

    @property
    def pad_token_id(self) -> int:
        """Token that fills rows."""

    @property
    def banned_token_ids(self) -> Sequence[int]:
        """Special tokens that no response may contain."""

    def render(self, prompt: Prompt) -> str:
        """Return the prompt as unexpanded text, chat template and image placeholders included."""

    def encode(self, texts: Sequence[str], images: Sequence[Sequence[Image]]) -> dict[str, Tensor]:
        """Return model inputs of the prompts, padded on the right."""

    def encode_response(self, response: str) -> list[int]:
        """Return the tokens of a response and the token that ends the turn."""

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of the prompt, image tokens included."""


def collate_prompts(encoder: Encoder, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """Encode prompts alone, decoding their images.

    Returns:
        Model inputs: `input_ids_BP`, `attention_mask_BP` (padded on the right) and the images' tensors.
    """
    images = [[load_image(image) for image in prompt.images] for prompt in prompts]
    return encoder.encode([encoder.render(prompt) for prompt in prompts], images)


def collate_examples(encoder: Encoder, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Encode examples: each row is the prompt's tokens, then the response's, then padding.

    Prompt and response are tokenised apart, so a row's prompt is token by token what an engine is given, and
    no token spans the boundary.

    Returns:
        Model inputs with `input_ids_BT`, `attention_mask_BT`, and `labels_BT`, which is `IGNORE` except on
        the response and its end token.

    Raises:
        InputError: A response contains an image placeholder, which would be taken for an image.
    """
    batch = collate_prompts(encoder, [example.prompt for example in examples])
    responses = [_response_ids(encoder, example) for example in examples]
    mask_BP = batch["attention_mask"].bool()
    lengths = [int(row.sum()) + len(ids) for row, ids in zip(mask_BP, responses, strict=True)]
    aligned = [key for key in TEXT_KEYS if key in batch]
    fills = {"input_ids": encoder.pad_token_id}
    out = {key: value for key, value in batch.items() if key not in aligned}
    for key in aligned:
        out[key] = torch.full((len(examples), max(lengths)), fills.get(key, 0), dtype=batch[key].dtype)
    out["labels"] = torch.full((len(examples), max(lengths)), IGNORE)
    for row, (ids, length) in enumerate(zip(responses, lengths, strict=True)):
        start = length - len(ids)
        for key in aligned:
            out[key][row, :start] = batch[key][row, mask_BP[row]]
        out["input_ids"][row, start:length] = torch.tensor(ids)
        out["attention_mask"][row, start:length] = 1
        out["labels"][row, start:length] = torch.tensor(ids)
    return out


def _response_ids(encoder: Encoder, example: Example) -> list[int]:
    ids = encoder.encode_response(example.response)
    if banned := set(ids) & set(encoder.banned_token_ids):
        raise InputError(
            f"prompt {example.prompt.id!r}: the response contains the special token(s) {sorted(banned)} "
            "that stand for images; remove them from the text"
        )
    return ids


def example_lengths(encoder: Encoder, example: Example) -> Mapping[str, int]:
    """Return the tokens of an example without encoding its images: `total` and `response`."""
    response = len(encoder.encode_response(example.response))
    return {"total": encoder.num_prompt_tokens(example.prompt) + response, "response": response}
