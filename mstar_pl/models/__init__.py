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
from mstar_pl.models.lmm import LMM
from mstar_pl.models.lora import GroupLoRA, LoRA
from mstar_pl.models.minicpmv.adapter import MiniCPMV
from mstar_pl.models.parts import GROUPS, Group
from mstar_pl.models.phi3_v.adapter import Phi3V
from mstar_pl.models.registration import register

__all__ = [
    "GROUPS",
    "LMM",
    "Gemma3",
    "Group",
    "GroupLoRA",
    "Idefics3",
    "InternVL",
    "Llava",
    "LlavaOnevision",
    "LoRA",
    "MiniCPMV",
    "MiniCPMV4_6",
    "Phi3V",
    "Qwen2_5_VL",
    "Qwen3_VL",
    "SmolVLM",
    "adapter_for",
    "register",
]

register()
