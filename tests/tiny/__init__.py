"""Tiny random models of true architectures, with the embedded LMM's vocabulary; one file a family."""

from tests.tiny.gemma3 import build_gemma3
from tests.tiny.idefics3 import build_idefics3
from tests.tiny.internvl import build_internvl
from tests.tiny.internvl2 import build_internvl2
from tests.tiny.llava import build_llava, build_llava_siglip
from tests.tiny.llava_onevision import build_llava_onevision
from tests.tiny.minicpmv import build_minicpmv
from tests.tiny.minicpmv4_6 import build_minicpmv4_6
from tests.tiny.phi3_v import build_phi3_v, small_vision_tower
from tests.tiny.qwen2_5_vl import build_qwen
from tests.tiny.qwen2_vl import build_qwen2_vl
from tests.tiny.qwen3_vl import build_qwen3_vl
from tests.tiny.smolvlm import build_smolvlm

__all__ = ["BUILDERS", "ENGINE_NEEDS", "build_internvl", "build_internvl2", "build_minicpmv", "build_qwen"]

BUILDERS = {
    "internvl": build_internvl,
    "internvl2": build_internvl2,
    "minicpmv": build_minicpmv,
    "phi3_v": build_phi3_v,
    "qwen2_5_vl": build_qwen,
    "qwen2_vl": build_qwen2_vl,
    "qwen3_vl": build_qwen3_vl,
    "idefics3": build_idefics3,
    "smolvlm": build_smolvlm,
    "llava": build_llava,
    "llava_siglip": build_llava_siglip,
    "llava_onevision": build_llava_onevision,
    "gemma3": build_gemma3,
    "minicpmv4_6": build_minicpmv4_6,
}
"""Functions that write a tiny model folder, by `model_type`."""

ENGINE_NEEDS = {"phi3_v": small_vision_tower}
"""Contexts, of a model folder, in which an engine of a tiny model lives, where vLLM fixes sizes."""
