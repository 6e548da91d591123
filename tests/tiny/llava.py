"""Tiny LLaVAs: one with a CLIP tower, one with a SigLIP tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipImageProcessor,
)

from tests.tiny.common import llama, llama_tokenizer, save_model, tower

LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}"
    "{% endif %}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}<image>\n"
    "{% endfor %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build_llava(folder: Path) -> Path:
    """A CLIP tower of three layers, of which the last is not used; the tokenizer is of Llama's kind."""
    images = CLIPImageProcessor(size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84})
    vision = tower(84, model_type="clip_vision_model", num_hidden_layers=3, projection_dim=64)
    return _build(folder, images, vision, "default", -2, num_additional_image_tokens=1)


def build_llava_siglip(folder: Path) -> Path:
    """A SigLIP tower of two layers, both used."""
    images = SiglipImageProcessor(size={"height": 84, "width": 84})
    vision = tower(84, model_type="siglip_vision_model")
    return _build(folder, images, vision, "full", -1, num_additional_image_tokens=0)


def _build(
    folder: Path, images: Any, vision: dict[str, Any], select: str, layer: int, **options: Any
) -> Path:
    fast = llama_tokenizer(("<image>", "<pad>"), pad_token="<pad>", model_max_length=1024)
    LlavaProcessor(
        image_processor=images,
        tokenizer=fast,
        patch_size=14,
        vision_feature_select_strategy=select,
        chat_template=LLAVA_TEMPLATE,
        **options,
    ).save_pretrained(folder)
    config = LlavaConfig(
        text_config=llama(fast),
        vision_config=vision,
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        image_seq_length=36,
        vision_feature_select_strategy=select,
        vision_feature_layer=layer,
    )
    return save_model(LlavaForConditionalGeneration(config), fast, folder, published_name)


def published_name(name: str) -> str:
    """Return the name of a weight as the folders on the hub have it."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")
