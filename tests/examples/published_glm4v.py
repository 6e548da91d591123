"""A folder laid out as GLM-4.1V is published, without weights: its sizes, a small vocabulary."""

from __future__ import annotations

from pathlib import Path

from transformers import Glm4vConfig, Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor

from tests.tiny.common import extended_tokenizer

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
MEDIA = [f"<|{edge}_of_{kind}|>" for kind in ("image", "video") for edge in ("begin", "end")]

# As published: system and assistant contents are written as they stand; a turn ends where the next begins.
TEMPLATE = (
    "[gMASK]<sop>{% for turn in messages %}<|{{ turn['role'] }}|>\n"
    "{% if turn['role'] != 'user' or turn['content'] is string %}{{ turn['content'] }}{% else %}"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def publish_glm4v(folder: Path) -> Path:
    """Write configuration (of the 9B model), tokenizer and processor."""
    names = ("<|endoftext|>", "[gMASK]", "<sop>", *ROLES, *MEDIA, "<|image|>", "<|video|>")
    tokenizer = extended_tokenizer(names, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    Glm4vProcessor(
        image_processor=Glm4vImageProcessor(),
        tokenizer=tokenizer,
        video_processor=Glm4vVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    token = tokenizer.convert_tokens_to_ids
    edges = {
        f"{kind}_{edge}_token_id": token(f"<|{word}_of_{kind}|>")
        for kind in ("image", "video")
        for edge, word in (("start", "begin"), ("end", "end"))
    }
    text = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "partial_rotary_factor": 0.5,
            "mrope_section": [8, 12, 12],
        },
    }
    config = Glm4vConfig(
        text_config=text, image_token_id=token("<|image|>"), video_token_id=token("<|video|>"), **edges
    )
    config.architectures = ["Glm4vForConditionalGeneration"]
    config.save_pretrained(folder)
    return folder
