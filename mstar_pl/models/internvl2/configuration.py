"""The published configuration of InternVL2, checked, as a native one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig

from mstar_pl.types import InputError

_ALIKE: tuple[tuple[str, Any, str], ...] = (
    ("model_type", "internvl_chat", "a published InternVL2 folder says so"),
    (
        "llm_config.model_type",
        "internlm2",
        "the 2B and the 8B have it; Qwen2, Phi-3 and Llama are not converted",
    ),
    ("vision_config.norm_type", "layer_norm", "InternViT-300M has it; InternViT-6B, of the 26B, has not"),
    ("vision_config.qk_normalization", False, "InternViT-300M has none; InternViT-6B, of the 26B, has"),
    ("select_layer", -1, "the native model takes the last layer before the projector"),
    ("ps_version", "v2", "the native pixel shuffle keeps height and width in place"),
    ("template", "internlm2-chat", "the chat template is that of InternVL2"),
    ("dynamic_image_size", True, "the native image processor tiles"),
    ("use_thumbnail", True, "the native image processor adds a thumbnail"),
)
"""What the conversion takes for granted: key of the published `config.json`, value, reason."""


def check_published(published: Mapping[str, Any], file: str) -> None:
    """Refuse a configuration that the native architecture does not cover.

    Args:
        published: Content of the published `config.json`.
        file: Its name in messages.

    Raises:
        InputError: A value differs, or is not there; says which, and why it matters.
    """
    for key, expected, reason in _ALIKE:
        value: Any = published
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value != expected:
            raise InputError(f"{file}: {key} is {value!r}; only {expected!r} is converted: {reason}")
    scaling = published["llm_config"].get("rope_scaling")
    if scaling is not None and scaling.get("type") != "dynamic":
        raise InputError(
            f"{file}: llm_config.rope_scaling is {scaling!r}; only 'dynamic' is converted: up to "
            "max_position_embeddings it has no effect"
        )
    forced, side = published.get("force_image_size"), published["vision_config"].get("image_size")
    if forced not in (None, side):
        raise InputError(
            f"{file}: force_image_size is {forced!r}; only vision_config.image_size, {side!r}, is converted: "
            "position embeddings are not resized"
        )
    if (dtype := published.get("torch_dtype")) not in (None, "float32", "float16", "bfloat16"):
        raise InputError(f"{file}: torch_dtype is {dtype!r}; give float32, float16 or bfloat16")


def native_config(published: Mapping[str, Any], image_token_id: int) -> InternVLConfig:
    """Return the native configuration of a checked published one.

    Dynamic scaling of the rotary base is dropped: the published code scales from the first position beyond
    `max_position_embeddings` on, and up to there changes nothing.

    Args:
        published: Content of the published `config.json`.
        image_token_id: Id of `<IMG_CONTEXT>`.

    Raises:
        KeyError: The published configuration does not say something.
    """
    vision, ratio = published["vision_config"], published["downsample_ratio"]
    side = vision["image_size"] // vision["patch_size"]
    config = InternVLConfig(
        text_config=_text(published["llm_config"]).to_dict(),
        vision_config=_vision(vision).to_dict(),
        image_token_id=image_token_id,
        image_seq_length=round((side * ratio) ** 2),
        downsample_ratio=ratio,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,  # their default is True
    )
    config.architectures = ["InternVLForConditionalGeneration"]
    config.dtype = published.get("torch_dtype")
    return config


def _text(llm: Mapping[str, Any]) -> LlamaConfig:
    """InternLM2 is Llama with packed attention weights."""
    same = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    same += ["num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act"]
    same += ["bos_token_id", "eos_token_id", "pad_token_id"]
    return LlamaConfig(
        **{key: llm[key] for key in same},
        attention_bias=False,
        mlp_bias=False,
        rope_parameters={"rope_type": "default", "rope_theta": float(llm["rope_theta"])},
        tie_word_embeddings=False,
    )


def _vision(vision: Mapping[str, Any]) -> InternVLVisionConfig:
    same = ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"]
    same += ["norm_type", "layer_norm_eps", "attention_dropout", "image_size", "patch_size"]
    return InternVLVisionConfig(
        **{key: vision[key] for key in same},
        attention_bias=vision["qkv_bias"],
        hidden_dropout_prob=vision["dropout"],
        layer_scale_init_value=vision["initializer_factor"],
        use_qk_norm=False,
        use_absolute_position_embeddings=True,
        use_mean_pooling=True,  # so that no norm follows the last layer
    )
