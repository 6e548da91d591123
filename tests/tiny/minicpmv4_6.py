"""A tiny MiniCPM-V 4.6."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6ImageProcessor,
    MiniCPMV4_6Processor,
    MiniCPMV4_6VideoProcessor,
)

from tests.tiny.common import extended_tokenizer, llama, save_model, tower

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image_pad|>\n{% elif part['type'] == 'text' %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_minicpmv4_6(folder: Path) -> Path:
    """A layer of linear attention and one of full attention; images of 112 pixels, in up to four slices."""
    images = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "image_start_token": "<image>",
        "image_end_token": "</image>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    fast = extended_tokenizer(
        ("<|endoftext|>", *images.values()), pad_token="<|endoftext|>", extra_special_tokens=images
    )
    sizes = {"max_slice_nums": 4, "scale_resolution": 112}
    MiniCPMV4_6Processor(
        image_processor=MiniCPMV4_6ImageProcessor(**sizes),
        video_processor=MiniCPMV4_6VideoProcessor(**sizes),
        tokenizer=fast,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    token = fast.convert_tokens_to_ids
    config = MiniCPMV4_6Config(
        text_config=llama(
            fast,
            model_type="qwen3_5_text",
            head_dim=64,
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=1,
            linear_num_value_heads=2,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.25,
                "mrope_section": [3, 3, 2],
                "mrope_interleaved": True,
            },
        ),
        vision_config=tower(980),
        insert_layer_id=0,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
    )
    # With larger weights the rounding of bfloat16, in which alone it runs everywhere, is 0.07 nats.
    return save_model(MiniCPMV4_6ForConditionalGeneration(config), fast, folder, scale=0.06)
