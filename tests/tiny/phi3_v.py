"""A tiny Phi-3.5-vision, in a folder like the published one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from torch.nn.functional import pad
from transformers import PreTrainedTokenizerFast

from mstar_pl.models.phi3_v import Phi3VConfig, Phi3VForCausalLM
from tests.tiny.common import llama_tokenizer, save_model

SPECIAL = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>", "<|image|>")

# Of microsoft/Phi-3.5-vision-instruct: a message's content is a text, its placeholders written by hand.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}"
    "{{- '<|assistant|>\n' -}}{% endif %}"
)
# Side and patches of the tower are fixed in vLLM's code.
CLIP = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}


def build_phi3_v(folder: Path, num_crops: int = 2) -> Path:
    """Two layers of language model, two and an unused one of the tower, images of one square or two."""
    tokenizer = llama_tokenizer(
        SPECIAL,
        swallowing=("<|assistant|>", "<|end|>"),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=list(SPECIAL[1:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=131072,
    )
    image_token = tokenizer.convert_tokens_to_ids("<|image|>")
    rotation = {
        "type": "su",
        "short_factor": [1.0 + 0.01 * i for i in range(16)],
        "long_factor": [1.0 + i for i in range(16)],
    }
    config = Phi3VConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        sliding_window=262144,
        rope_scaling=dict(rotation),
        rope_theta=10000.0,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=tokenizer.pad_token_id,
        image_token_id=image_token,
    )
    config.img_processor |= {"clip_options": CLIP, "image_dim_out": CLIP["hidden_size"]}
    save_model(Phi3VForCausalLM(config), tokenizer, folder)
    _publish(folder, tokenizer, rotation, num_crops)
    return folder


def _publish(folder: Path, tokenizer: PreTrainedTokenizerFast, rotation: dict, num_crops: int) -> None:
    """Write the files as the published folder has them: code in `auto_map`, templates in the tokenizer."""
    saved = json.loads((folder / "config.json").read_text())
    del saved["rope_parameters"]
    saved |= {
        "auto_map": {
            "AutoConfig": "configuration_phi3_v.Phi3VConfig",
            "AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM",
        },
        "rope_scaling": rotation,
        "rope_theta": 10000.0,
    }
    (folder / "config.json").write_text(json.dumps(saved, indent=2))
    images = {
        "auto_map": {
            "AutoProcessor": "processing_phi3_v.Phi3VProcessor",
            "AutoImageProcessor": "processing_phi3_v.Phi3VImageProcessor",
        },
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Phi3VImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "num_crops": num_crops,
        "num_img_tokens": 144,
        "processor_class": "Phi3VProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images, indent=2))
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    options = json.loads(file.read_text()) | {
        "add_bos_token": True,
        "chat_template": CHAT_TEMPLATE,
        "legacy": False,
        "tokenizer_class": "LlamaTokenizer",
    }
    file.write_text(json.dumps(options, indent=2))


@contextmanager
def small_vision_tower(folder: str | Path) -> Iterator[None]:
    """Let vLLM build the tower of a tiny folder, whose sizes and image token are constants in its code.

    For engines in this process, from before they start to after their last answer.
    """
    from vllm.model_executor.models import phi3v

    config = Phi3VConfig.from_pretrained(folder)
    embedding = phi3v.Phi3HDImageEmbedding
    merge = embedding.reshape_hd_patches_2x2merge

    def merge_narrow(self, features, *grid):
        """Its own code takes 1,024 channels and no other number."""
        width = features.shape[-1]
        merged = merge(self, pad(features, (0, 1024 - width)), *grid)
        return merged.unflatten(-1, (4, 1024))[..., :width].flatten(-2)

    with (
        patch.object(phi3v, "CLIP_VIT_LARGE_PATCH14_336_CONFIG", config.clip),
        patch.object(phi3v, "_IMAGE_TOKEN_ID", config.image_token_id),
        patch.object(embedding, "reshape_hd_patches_2x2merge", merge_narrow),
    ):
        yield
