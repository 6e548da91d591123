"""Processor of MiniCPM-Llama3-V-2.5: Llama-3 chat format, and images as slices."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import ProcessorMixin
from transformers.processing_utils import ProcessingKwargs

from .image_processing import MiniCPMVImagesKwargs, Size

CHAT_TEMPLATE = (
    "<|begin_of_text|>"
    "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}{% if not loop.first %}{{ '\n' }}{% endif %}"
    "{% if part['type'] == 'image' %}(<image>./</image>){% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Llama 3's turns, with the parts of a message on lines of their own (`chat` of the published model)."""


class MiniCPMVProcessorKwargs(ProcessingKwargs, total=False):
    """Options of the processor's call."""

    images_kwargs: MiniCPMVImagesKwargs  # type: ignore[misc]
    _defaults = {}  # type: ignore[misc] # noqa: RUF012 # as Transformers declares it


class MiniCPMVProcessor(ProcessorMixin):
    """Turn prompts with images into model inputs.

    Args:
        image_processor: A `MiniCPMVImageProcessor`.
        tokenizer: Tokenizer whose `<unk>` stands for a feature of an image.
        chat_template: Chat template; the published format by default.
        **kwargs: What Transformers passes on.
    """

    valid_processor_kwargs = MiniCPMVProcessorKwargs  # type: ignore[assignment]
    image_token = "(<image>./</image>)"

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template or CHAT_TEMPLATE, **kwargs)
        self._image_token_ids = [tokenizer.convert_tokens_to_ids(image_processor.unk_token)]

    def _process_images(
        self, images: Any, max_slice_nums: int | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the strips of all slices of a batch, padded to the longest, and the texts of its images."""
        found = self.image_processor(images, max_slice_nums=max_slice_nums)
        strips = [strip for row in found["pixel_values"] for strip in row]
        if not strips:
            return {}, []
        texts = self.replacements([size for row in found["image_sizes"] for size in row], max_slice_nums)
        width = max(strip.shape[-1] for strip in strips)
        padded = [torch.nn.functional.pad(strip, (0, width - strip.shape[-1])) for strip in strips]
        return {"pixel_values": torch.stack(padded), "tgt_sizes": torch.cat(found["tgt_sizes"])}, texts

    def replacements(self, sizes: Sequence[Size], max_slice_nums: int | None = None) -> list[str]:
        """Return the texts that stand for images of these sizes."""
        return [self.image_processor.get_slice_image_placeholder(size, max_slice_nums) for size in sizes]
