"""Tiny random models of true architectures, with the embedded LMM's vocabulary; one file a family."""

from tests.tiny.internvl import build_internvl
from tests.tiny.internvl2 import build_internvl2
from tests.tiny.minicpmv import build_minicpmv
from tests.tiny.phi3_v import build_phi3_v, small_vision_tower
from tests.tiny.qwen2_5_vl import build_qwen

__all__ = ["BUILDERS", "ENGINE_NEEDS", "build_internvl", "build_internvl2", "build_minicpmv", "build_qwen"]

BUILDERS = {
    "internvl": build_internvl,
    "internvl2": build_internvl2,
    "minicpmv": build_minicpmv,
    "phi3_v": build_phi3_v,
    "qwen2_5_vl": build_qwen,
}
"""Functions that write a tiny model folder, by `model_type`."""

ENGINE_NEEDS = {"phi3_v": small_vision_tower}
"""Contexts, of a model folder, in which an engine of a tiny model lives, where vLLM fixes sizes."""
