"""LMM adapters, low-rank adaptation and export."""

from mstar_pl.models.families import InternVL, Qwen2_5_VL, adapter_for
from mstar_pl.models.lmm import GROUPS, LMM, Group
from mstar_pl.models.lora import GroupLoRA, LoRA
from mstar_pl.models.minicpmv.adapter import MiniCPMV
from mstar_pl.models.phi3_v.adapter import Phi3V
from mstar_pl.models.registration import register

__all__ = [
    "GROUPS",
    "LMM",
    "Group",
    "GroupLoRA",
    "InternVL",
    "LoRA",
    "MiniCPMV",
    "Phi3V",
    "Qwen2_5_VL",
    "adapter_for",
    "register",
]

register()
