"""A tiny Qwen3-VL."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.tiny.common import extended_tokenizer, llama, save_model
from tests.tiny.qwen2_5_vl import QWEN_TEMPLATE


def build_qwen3_vl(folder: Path) -> Path:
    """Two layers each, interleaved M-RoPE, features of the first vision layer added to the first layer."""
    names = ("<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    fast = extended_tokenizer(names, pad_token="<|endoftext|>")
    options = {"patch_size": 16, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(
            size={"shortest_edge": 32 * 32 * 4, "longest_edge": 32 * 32 * 16}, **options
        ),
        tokenizer=fast,
        video_processor=Qwen3VLVideoProcessor(**options),
        chat_template=QWEN_TEMPLATE,
    ).save_pretrained(folder)
    token = fast.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=llama(fast, model_type="qwen3_vl_text", head_dim=32, rope_parameters=rope),
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    return save_model(Qwen3VLForConditionalGeneration(config), fast, folder)
