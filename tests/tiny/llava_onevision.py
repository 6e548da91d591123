"""A tiny LLaVA-OneVision."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
)

from tests.tiny.common import extended_tokenizer, llama, save_model, tower
from tests.tiny.llava import published_name

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + content['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GRID = [[rows * 84, columns * 84] for rows, columns in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1))]


def build_llava_onevision(folder: Path) -> Path:
    """Two layers each, a SigLIP tower, images in up to four tiles of 36 tokens and whole."""
    fast = extended_tokenizer(("<|endoftext|>", "<image>"), pad_token="<|endoftext|>")
    size = {"size": {"height": 84, "width": 84}}
    LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=GRID, **size),
        tokenizer=fast,
        video_processor=LlavaOnevisionVideoProcessor(**size),
        num_image_tokens=36,
        vision_feature_select_strategy="full",
        chat_template=TEMPLATE,
        vision_aspect_ratio="anyres_max_9",
    ).save_pretrained(folder)
    config = LlavaOnevisionConfig(
        text_config=llama(fast, model_type="qwen2"),
        vision_config=tower(84, model_type="siglip_vision_model", vision_use_head=False),
        image_token_index=fast.convert_tokens_to_ids("<image>"),
        video_token_index=fast.convert_tokens_to_ids("<video>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_grid_pinpoints=GRID,
        tie_word_embeddings=False,
    )
    return save_model(LlavaOnevisionForConditionalGeneration(config), fast, folder, published_name)
