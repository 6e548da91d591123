"""LMM adapters, low-rank adaptation and export."""

from mstar_pl.models.families import (
    Gemma3,
    Idefics3,
    InternVL,
    Llava,
    LlavaOnevision,
    MiniCPMV4_6,
    Qwen2_5_VL,
    Qwen3_VL,
    SmolVLM,
    adapter_for,
)
from mstar_pl.models.lmm import GROUPS, LMM, Group
from mstar_pl.models.lora import LoRA
from mstar_pl.models.registration import register

__all__ = [
    "GROUPS",
    "LMM",
    "Gemma3",
    "Group",
    "Idefics3",
    "InternVL",
    "Llava",
    "LlavaOnevision",
    "LoRA",
    "MiniCPMV4_6",
    "Qwen2_5_VL",
    "Qwen3_VL",
    "SmolVLM",
    "adapter_for",
    "register",
]

register()
