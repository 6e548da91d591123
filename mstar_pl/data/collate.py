"""From training examples to one padded batch, with labels on response tokens only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import PIL.Image
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

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

    def check_context(self, num_tokens: int, option: str) -> None:
        """Refuse sequences of a length that the family cannot train or sample."""

    def chat(self, text: str, num_images: int) -> str:
        """Return one user turn in the chat template, with unexpanded image placeholders."""

    def render(self, prompt: Prompt) -> str:
        """Return the prompt as unexpanded text, chat template and image placeholders included."""

    def begun(self, prompt: Prompt, prefix: str) -> str:
        """Return that text with the beginning of a response behind it."""

    def encode(self, texts: Sequence[str], images: Sequence[Sequence[PIL.Image.Image]]) -> dict[str, Tensor]:
        """Return model inputs of the prompts, padded on the right."""

    def encode_response(self, response: str) -> list[int]:
        """Return the tokens of a response and the token that ends the turn."""

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of the prompt, image tokens included."""


def collate_prompts(
    encoder: Encoder, prompts: Sequence[Prompt], prefixes: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Encode prompts alone, decoding their images.

    Args:
        encoder: LMM adapter.
        prompts: B prompts.
        prefixes: Beginning of the response to each prompt; default is none.

    Returns:
        Model inputs: `input_ids_BP`, `attention_mask_BP` (padded on the right) and the images' tensors.
    """
    images = [[load_image(image) for image in prompt.images] for prompt in prompts]
    begun = zip(prompts, prefixes or [""] * len(prompts), strict=True)
    return encoder.encode([encoder.begun(prompt, prefix) for prompt, prefix in begun], images)


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
    responses = [encoder.encode_response(example.response) for example in examples]
    for example, ids in zip(examples, responses, strict=True):
        check_plain(encoder, example.prompt, ids)
    prompts = collate_prompts(encoder, [example.prompt for example in examples])
    batch, starts = join_responses(encoder, prompts, responses)
    batch["labels"] = torch.full(batch["input_ids"].shape, IGNORE)
    for row, (ids, start) in enumerate(zip(responses, starts, strict=True)):
        batch["labels"][row, start : start + len(ids)] = torch.tensor(ids)
    return batch


def join_responses(
    encoder: Encoder, prompts: Mapping[str, Tensor], responses: Sequence[Sequence[int]]
) -> tuple[dict[str, Tensor], list[int]]:
    """Put the tokens of a response behind each prompt.

    Args:
        encoder: LMM adapter.
        prompts: What `collate_prompts` returns, B rows.
        responses: Tokens of B responses.

    Returns:
        Model inputs with `input_ids_BT` and `attention_mask_BT`, and where each response begins.
    """
    mask_BP = prompts["attention_mask"].bool()
    zeros, ones = ([[value] * len(ids) for ids in responses] for value in (0, 1))
    tails = {"input_ids": responses, "attention_mask": ones}
    fills = {"input_ids": encoder.pad_token_id}
    batch = dict(prompts)
    for key in prompts.keys() & {*TEXT_KEYS}:
        parts = zip(prompts[key], mask_BP, tails.get(key, zeros), strict=True)
        rows = [torch.cat([row_P[mask_P], row_P.new_tensor(tail)]) for row_P, mask_P, tail in parts]
        batch[key] = pad_sequence(rows, batch_first=True, padding_value=fills.get(key, 0))
    return batch, mask_BP.sum(1).tolist()


def with_blank_image(encoder: Encoder, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add a row with a blank image and no losses to a batch without images.

    So the vision tower runs, and gets gradients of zero, where the batch does not need it: other processes
    wait for its weights (FSDP2) or its gradients (DDP).

    Args:
        encoder: LMM adapter.
        batch: What a collation of this package returns, B rows without images.
    """
    blank = encoder.encode([encoder.chat("", 1)], [[PIL.Image.new("RGB", (32, 32))]])
    if "labels" in batch:
        blank["labels"] = torch.full_like(blank["input_ids"], IGNORE)
    fills = {"input_ids": encoder.pad_token_id, "labels": IGNORE}
    joined = {**blank, **batch}
    for key in blank.keys() & batch.keys():
        rows = [*batch[key], *blank[key]]
        joined[key] = pad_sequence(rows, batch_first=True, padding_value=fills.get(key, 0))
    return joined


def special_tokens(encoder: Encoder, ids: Sequence[int]) -> set[int]:
    """Return which of a response's tokens mean something else than text: an image, or the end of the turn.

    Text that spells such a token, written or sampled piece by piece, becomes the token itself.

    Args:
        encoder: LMM adapter.
        ids: Tokens of the response, the last one the token that ends the turn.
    """
    return {*ids[:-1]} & {*encoder.banned_token_ids, *ids[-1:]}


def is_plain(encoder: Encoder, example: Example) -> bool:
    """Tell whether the response of an example holds no special token."""
    return not special_tokens(encoder, encoder.encode_response(example.response))


def check_plain(encoder: Encoder, prompt: Prompt, ids: Sequence[int]) -> None:
    """Refuse a response with special tokens.

    Raises:
        InputError: There is one; names the prompt.
    """
    if special := special_tokens(encoder, ids):
        raise InputError(
            f"prompt {prompt.id!r}: the response contains the special token(s) {sorted(special)} "
            "that stand for images or end the turn; remove them from the text"
        )


def example_lengths(encoder: Encoder, example: Example) -> Mapping[str, int]:
    """Return the tokens of an example (`total`) and of its response (`losses`) without encoding images."""
    response = len(encoder.encode_response(example.response))
    return {"total": encoder.num_prompt_tokens(example.prompt) + response, "losses": response}
