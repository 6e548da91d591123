"""The processor of Phi-3.5-vision (published `processing_phi3_v.py`): images stand in for placeholders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from mstar_pl.models.phi3_v.image_processing import Phi3VImageProcessor, num_image_tokens, padded_size

PLACEHOLDER = re.compile(r"<\|image_(\d+)\|>")
"""Where an image stands in a prompt; they are numbered from 1."""

MAX_IMAGES = 1000
"""Most images that `img_tokens` names; far fewer fit into the context."""

CHAT_TEMPLATE = """\
{%- set images = namespace(count=0) -%}
{%- for message in messages -%}
    {{- '<|' + message['role'] + '|>\n' -}}
    {%- if message['content'] is string -%}
        {{- message['content'] -}}
    {%- else -%}
        {%- for part in message['content'] -%}
            {%- if part['type'] == 'image' -%}
                {%- set images.count = images.count + 1 -%}
                {{- '<|image_' + images.count|string + '|>\n' -}}
            {%- elif part['type'] == 'text' -%}
                {{- part['text'] -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\n' -}}{%- endif -%}
"""
"""Prompt of the model card; the tokenizer's own template, with images that are parts of a message."""


class Phi3VProcessor(ProcessorMixin):
    """Processor of Phi-3.5-vision, with all that vLLM asks of it.

    Args:
        image_processor: Image processor.
        tokenizer: Tokenizer, which puts a BOS before each text.
        chat_template: Chat template; a published folder has one in its tokenizer only, which knows no images.
    """

    def __init__(
        self, image_processor: Phi3VImageProcessor, tokenizer: Any, chat_template: str | None = None
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE)
        self.image_token = "<|image|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def img_tokens(self) -> list[str]:
        """Placeholders of the images of a prompt."""
        return [f"<|image_{number}|>" for number in range(1, MAX_IMAGES + 1)]

    def calc_num_image_tokens_from_image_size(
        self, width: int, height: int, num_crops: int | None = None
    ) -> int:
        """Return the tokens of an image of this size.

        Raises:
            ValueError: The image is too narrow.
        """
        most = self.image_processor.num_crops if num_crops is None else num_crops
        return num_image_tokens(*padded_size(width, height, most))

    def __call__(
        self,
        text: str | Sequence[str],
        images: Image | Sequence[Image | Sequence[Image]] | None = None,
        num_crops: int | None = None,
        padding_side: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return model inputs of B texts with N images, as padded tensors.

        Args:
            text: Texts with a placeholder an image, in each text numbered from 1.
            images: The images in the order of the placeholders, with or without a list for each text.
            num_crops: Most squares of an image's grid; default is the image processor's own.
            padding_side: `left` or `right`; default is the tokenizer's own.
            kwargs: Options of other processors; they have no effect.

        Returns:
            `input_ids` and `attention_mask` of shape (B, P), and what the image processor returns.

        Raises:
            ValueError: Placeholders and images do not match.
        """
        texts = [text] if isinstance(text, str) else list(text)
        pictures = _flat(images)
        encoded = self.image_processor(pictures, num_crops=num_crops) if pictures else BatchFeature()
        sizes = encoded["image_sizes"].tolist() if pictures else []
        counts = [num_image_tokens(width, height) for height, width in sizes]
        rows = []
        for one in texts:
            number = len(PLACEHOLDER.findall(one))
            rows.append(torch.tensor(self.tokenize(one, counts[:number])))
            counts = counts[number:]
        if counts:
            raise ValueError(f"{len(pictures)} images, but {len(counts)} of them have no placeholder")
        masks = [torch.ones_like(row) for row in rows]
        side = padding_side or self.tokenizer.padding_side
        ids_BP = pad_sequence(rows, True, self.tokenizer.pad_token_id, side)
        return BatchFeature(
            {"input_ids": ids_BP, "attention_mask": pad_sequence(masks, True, 0, side), **encoded}
        )

    def tokenize(self, text: str, counts: Sequence[int]) -> list[int]:
        """Return the tokens of a text, each piece around an image with a BOS of its own.

        Args:
            text: Text with placeholders.
            counts: Tokens of each image.

        Raises:
            ValueError: The placeholders are not numbered from 1 to the number of images.
        """
        pieces = PLACEHOLDER.split(text)  # texts and, between them, numbers
        numbers = [int(number) for number in pieces[1::2]]
        if numbers != list(range(1, len(counts) + 1)):
            raise ValueError(f"{len(counts)} images for the placeholders {numbers}; they count 1, 2, 3, ...")
        ids = list(self.tokenizer(pieces[0]).input_ids)
        for count, piece in zip(counts, pieces[2::2], strict=True):
            ids += [self.image_token_id] * count + self.tokenizer(piece).input_ids
        return ids


def _flat(images: Any) -> list[Image]:
    if images is None:
        return []
    if isinstance(images, Image):
        return [images]
    return [image for part in images for image in _flat(part)]
