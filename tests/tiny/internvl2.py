"""A tiny InternVL2 in the published layout, and converted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from mstar_pl.models.internvl2.conversion import convert_internvl2
from mstar_pl.models.internvl2.processing import SYSTEM

UNUSED, RENAMED = 9, 6
SPECIAL = (
    "<|plugin|>",
    "<|interpreter|>",
    "<|action_end|>",
    "<|action_start|>",
    "<|im_end|>",
    "<|im_start|>",
)
SPECIAL += ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")

LLM_2B = {
    "architectures": ["InternLM2ForCausalLM"],
    "model_type": "internlm2",
    "bias": False,
    "hidden_act": "silu",
    "vocab_size": 92553,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 2.0, "type": "dynamic"},
    "rope_theta": 1000000,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "tie_word_embeddings": False,
}
VISION_300M = {
    "architectures": ["InternVisionModel"],
    "model_type": "intern_vit_6b",
    "attention_dropout": 0.0,
    "drop_path_rate": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "image_size": 448,
    "initializer_factor": 1.0,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-06,
    "norm_type": "layer_norm",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "qk_normalization": False,
    "qkv_bias": True,
}
CONFIG_2B = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 448,
    "max_dynamic_patch": 12,
    "min_dynamic_patch": 1,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internlm2-chat",
    "torch_dtype": "bfloat16",
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
    "llm_config": LLM_2B,
    "vision_config": VISION_300M,
}
"""What matters of the published configuration of InternVL2-2B."""


def tiny_config(vocab_size: int) -> dict[str, Any]:
    """The same with two layers each, tiles of 28 pixels with a patch of 7, so four tokens a tile."""
    llm = {"vocab_size": vocab_size, "hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2}
    llm |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 96}
    vision |= {"image_size": 28, "patch_size": 7}
    tiny = {"llm_config": LLM_2B | llm, "vision_config": VISION_300M | vision}
    sizes = {"force_image_size": 28, "max_dynamic_patch": 4, "torch_dtype": "float32"}
    return CONFIG_2B | sizes | tiny


def published_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all published weights, by the published modelling code."""
    llm, vision = config["llm_config"], config["vision_config"]
    width, hidden = vision["hidden_size"], llm["hidden_size"]
    patch, positions = vision["patch_size"], (vision["image_size"] // vision["patch_size"]) ** 2 + 1
    packed = (
        (llm["num_attention_heads"] + 2 * llm["num_key_value_heads"]) * hidden // llm["num_attention_heads"]
    )
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, width),
        "vision_model.embeddings.position_embedding": (1, positions, width),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.patch_embedding.bias": (width,),
        "mlp1.0.weight": (4 * width,),
        "mlp1.0.bias": (4 * width,),
        "mlp1.1.weight": (hidden, 4 * width),
        "mlp1.1.bias": (hidden,),
        "mlp1.3.weight": (hidden, hidden),
        "mlp1.3.bias": (hidden,),
        "language_model.model.tok_embeddings.weight": (llm["vocab_size"], hidden),
        "language_model.model.norm.weight": (hidden,),
        "language_model.output.weight": (llm["vocab_size"], hidden),
    }
    for index in range(vision["num_hidden_layers"]):
        place = f"vision_model.encoder.layers.{index}."
        linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        linear |= {
            "mlp.fc1": (vision["intermediate_size"], width),
            "mlp.fc2": (width, vision["intermediate_size"]),
        }
        for name, shape in linear.items():
            shapes |= {f"{place}{name}.weight": shape, f"{place}{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1", "ls2"):
            shapes[place + name] = (width,)
    for index in range(llm["num_hidden_layers"]):
        place = f"language_model.model.layers.{index}."
        shapes |= {
            f"{place}attention.wqkv.weight": (packed, hidden),
            f"{place}attention.wo.weight": (hidden, hidden),
            f"{place}feed_forward.w1.weight": (llm["intermediate_size"], hidden),
            f"{place}feed_forward.w3.weight": (llm["intermediate_size"], hidden),
            f"{place}feed_forward.w2.weight": (hidden, llm["intermediate_size"]),
            f"{place}attention_norm.weight": (hidden,),
            f"{place}ffn_norm.weight": (hidden,),
        }
    return shapes


def random_weights(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights large enough that greedy responses differ between prompts."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * 0.1 + (len(shape) == 1)
        for name, shape in published_shapes(config).items()
    }


def write_tokenizer(folder: Path, prefix: bool = False) -> int:
    """Train a sentencepiece model with the settings of InternLM2; return the size of the vocabulary."""
    words = "Hint: Please answer the question and provide the final answer at the end. Question: "
    words += "How many bars are red? The answer is 12. What is the sum of the area of triangle ABC, in cm?"
    texts = [
        SYSTEM,
        words,
        "system user assistant",
        "  x = 3 +  45\n\n# Answer\n\n(B)",
        "-----  aaaa",
        "图中",
    ] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=600,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    return _name_tokens(folder)


def _name_tokens(folder: Path) -> int:
    """Append unused pieces, as InternLM2 has them, of which all but the first become special tokens."""
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    proto = SentencePieceExtractor(str(folder / "tokenizer.model")).proto
    for index in range(UNUSED):
        proto.pieces.add(piece=f"[UNUSED_TOKEN_{index}]", score=0.0, type=4)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    first = len(proto.pieces) - RENAMED
    names = {0: "<unk>", 1: "<s>", 2: "</s>"} | dict(enumerate(SPECIAL, start=first))
    settings = {
        "added_tokens_decoder": {str(i): {"content": name, "special": True} for i, name in names.items()},
        "model_max_length": 8192,
        "tokenizer_class": "InternLM2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return max(names) + 1


def build_published(folder: Path) -> Path:
    """Write the published layout: two shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    config = tiny_config(write_tokenizer(folder))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = random_weights(config)
    names = sorted(weights)
    files: dict[str, str] = {}
    for index, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{index:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    index_file = {"metadata": {}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index_file), encoding="utf-8")
    return folder


def build_internvl2(folder: Path) -> Path:
    """The converted folder."""
    published = build_published(folder.parent / f"{folder.name}-published")
    return convert_internvl2(published, folder)
