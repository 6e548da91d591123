"""A tiny InternVL."""

from __future__ import annotations

from pathlib import Path

from transformers import InternVLConfig, InternVLForConditionalGeneration

from mstar_pl.models import InternVL
from tests.tiny.common import save_model


def build_internvl(folder: Path) -> Path:
    """Two layers each, and images cut into up to four tiles."""
    embedded = InternVL()
    processor = embedded.processor
    processor.image_processor.crop_to_patches = True
    processor.image_processor.max_patches = 4
    processor.save_pretrained(folder)
    config = InternVLConfig.from_pretrained(embedded.path)
    config.vision_config.num_hidden_layers = 2
    config.text_config.num_hidden_layers = 2
    config.text_config.layer_types = config.text_config.layer_types[:2]
    return save_model(InternVLForConditionalGeneration(config), processor.tokenizer, folder)
