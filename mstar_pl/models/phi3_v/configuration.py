"""Configuration of Phi-3.5-vision: reads `config.json` of microsoft/Phi-3.5-vision-instruct as it is."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from transformers import CLIPVisionConfig, Phi3Config

CLIP_VIT_LARGE_PATCH14_336 = {
    "hidden_act": "quick_gelu",
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
"""Sizes of openai/clip-vit-large-patch14-336, which the published configuration names without giving them."""

_TOWER = {
    "name": "clip_vision_model",
    "model_name": "openai/clip-vit-large-patch14-336",
    "image_dim_out": 1024,
    "num_img_tokens": 144,
}
_PROJECTOR = {
    "embedding_cls": "image",
    "hd_transform_order": "sub_glb",
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "with_learnable_separator": True,
}


class Phi3VConfig(Phi3Config):
    """Configuration of Phi-3.5-vision: that of Phi-3, and its image parts as published.

    Args:
        img_processor: Vision tower. `clip_options`, which no published folder has, changes sizes of CLIP.
        embd_layer: Projector; only the published kind is known.
        image_token_id: Token of an image's places, `<|image|>`. The published file does not name it.

    Raises:
        ValueError: The folder asks for another vision tower or projector.
    """

    model_type = "phi3_v"

    img_processor: dict[str, Any] = field(default_factory=lambda: dict(_TOWER))
    embd_layer: dict[str, Any] = field(default_factory=lambda: dict(_PROJECTOR))
    image_token_id: int = 32044

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)  # an export does not carry the code that it names
        super().__post_init__(**kwargs)
        self.standardize_rope_params()  # notes the original length, now that `su` is called `longrope`
        known = {
            "img_processor": _TOWER
            | {"image_dim_out": self.clip.hidden_size, "layer_idx": -2, "type_feature": "patch"},
            "embd_layer": _PROJECTOR,
        }
        for name, part in known.items():
            given = getattr(self, name)
            for key in part.keys() & given.keys():
                if given[key] != part[key]:
                    raise ValueError(f"{name}.{key} {given[key]!r} is not supported, only {part[key]!r}")

    @property
    def clip(self) -> CLIPVisionConfig:
        """Configuration of the vision tower."""
        options = self.img_processor.get("clip_options", {})
        return CLIPVisionConfig(**(CLIP_VIT_LARGE_PATCH14_336 | options))
