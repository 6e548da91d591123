"""A tiny SmolVLM."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tests.tiny.common import extended_tokenizer, llama, save_model, tower
from tests.tiny.idefics3 import IDEFICS3_TEMPLATE, IMAGE_TOKENS


def build_smolvlm(folder: Path) -> Path:
    """Two layers each; images in up to 2 x 2 tiles of 9 tokens, and whole; the head shares the embeddings."""
    ends = {"eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    fast = extended_tokenizer(IMAGE_TOKENS, **ends)
    sizes = {"size": {"longest_edge": 168}, "max_image_size": {"longest_edge": 84}}
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**sizes),
        tokenizer=fast,
        video_processor=SmolVLMVideoProcessor(**sizes),
        image_seq_len=9,
        chat_template=IDEFICS3_TEMPLATE.replace("BOS", "<|im_start|>"),
    ).save_pretrained(folder)
    config = SmolVLMConfig(
        text_config=llama(fast, tie_word_embeddings=True),
        vision_config=tower(84),
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        pad_token_id=fast.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=True,
    )
    return save_model(SmolVLMForConditionalGeneration(config), fast, folder)
