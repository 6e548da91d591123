"""Tiny random models of true architectures, with the embedded LMM's vocabulary; one file a family."""

from tests.tiny.internvl import build_internvl
from tests.tiny.phi3_v import build_phi3_v
from tests.tiny.qwen2_5_vl import build_qwen

__all__ = ["BUILDERS", "build_internvl", "build_qwen"]

BUILDERS = {"internvl": build_internvl, "qwen2_5_vl": build_qwen, "phi3_v": build_phi3_v}
"""Functions that write a tiny model folder, by `model_type`."""
