"""The native processor of InternVL2: tiles, and the prompt format of the published `chat`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from mstar_pl.models.checkpoint_files import stated_counts

SYSTEM = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，"  # noqa: RUF001 - their comma
    "英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
"""System prompt of the template `internlm2-chat` in the published `conversation.py`."""

CHAT_TEMPLATE = (
    "<s>{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""The published prompt: no line break after a turn, images before the text, each on a line of its own."""


def native_processor(
    published: Mapping[str, Any], config: InternVLConfig, tokenizer: PreTrainedTokenizerFast
) -> InternVLProcessor:
    """Return the processor of a published configuration.

    Args:
        published: Content of the published `config.json`, checked.
        config: The native configuration.
        tokenizer: The native tokenizer.

    Raises:
        ValueError: A limit of tiles is no whole number above 0.
    """
    side = published["vision_config"]["image_size"]
    size = {"height": side, "width": side}
    norm = {"image_mean": list(IMAGENET_DEFAULT_MEAN), "image_std": list(IMAGENET_DEFAULT_STD)}
    tiles = stated_counts(published, "min_dynamic_patch", "max_dynamic_patch")
    images = GotOcr2ImageProcessorPil(
        size=size,
        crop_to_patches=True,
        min_patches=tiles.get("min_dynamic_patch", 1),
        max_patches=tiles.get("max_dynamic_patch", 12),
        **norm,
    )
    return InternVLProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size, **norm),
        image_seq_length=config.image_seq_length,
        chat_template=CHAT_TEMPLATE,
    )
