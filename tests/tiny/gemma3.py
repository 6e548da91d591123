"""A tiny Gemma3."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
)

from tests.tiny.common import extended_tokenizer, llama, save_model, tower
from tests.tiny.llava import published_name

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}<start_of_image>"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def build_gemma3(folder: Path) -> Path:
    """A layer with a sliding window and one without; 9 tokens an image; runs of newlines are one token."""
    images = {
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "image_token": "<image_soft_token>",
    }
    names = ("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>", *images.values())
    fast = extended_tokenizer(
        names,
        first="<bos>",
        spellings=["\n" * length for length in range(1, 5)],
        eos_token="<eos>",
        pad_token="<pad>",
        extra_special_tokens=images,
    )
    Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 84, "width": 84}, image_seq_length=9),
        tokenizer=fast,
        image_seq_length=9,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    token = fast.convert_tokens_to_ids
    config = Gemma3Config(
        text_config=llama(
            fast,
            model_type="gemma3_text",
            head_dim=32,
            query_pre_attn_scalar=32,
            sliding_window=32,
            layer_types=["sliding_attention", "full_attention"],
            tie_word_embeddings=True,
        ),
        vision_config=tower(84, model_type="siglip_vision_model", vision_use_head=False),
        mm_tokens_per_image=9,
        boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"),
        image_token_index=token("<image_soft_token>"),
    )
    return save_model(Gemma3ForConditionalGeneration(config), fast, folder, published_name)
