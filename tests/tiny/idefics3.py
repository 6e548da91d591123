"""A tiny Idefics3."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
)

from tests.tiny.common import extended_tokenizer, llama, save_model, tower

IDEFICS3_TEMPLATE = (
    "BOS{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}<image>{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
IMAGE_TOKENS = (
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)


def build_idefics3(folder: Path) -> Path:
    """Two layers each; images in up to 2 x 2 tiles of 9 tokens, and whole.

    The template begins with a token that the tokenizer would also add.
    """
    names = ("<|begin_of_text|>", "<|end_of_text|>", *IMAGE_TOKENS)
    ends = {"eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"}
    fast = extended_tokenizer(names, first="<|begin_of_text|>", **ends)
    Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 168}, max_image_size={"longest_edge": 84}
        ),
        tokenizer=fast,
        image_seq_len=9,
        chat_template=IDEFICS3_TEMPLATE.replace("BOS", "<|begin_of_text|>"),
    ).save_pretrained(folder)
    config = Idefics3Config(
        text_config=llama(fast),
        vision_config=tower(84),
        image_token_id=fast.convert_tokens_to_ids("<image>"),
        pad_token_id=fast.pad_token_id,
        scale_factor=2,
        tie_word_embeddings=False,
    )
    return save_model(Idefics3ForConditionalGeneration(config), fast, folder)
