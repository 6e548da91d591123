"""Phi-3.5-vision without the code in its published folder, under its published parameter names."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
)

from mstar_pl.models.phi3_v.adapter import Phi3V
from mstar_pl.models.phi3_v.configuration import Phi3VConfig
from mstar_pl.models.phi3_v.image_processing import Phi3VImageProcessor
from mstar_pl.models.phi3_v.modeling import Phi3VForCausalLM
from mstar_pl.models.phi3_v.processing import Phi3VProcessor

__all__ = [
    "Phi3V",
    "Phi3VConfig",
    "Phi3VForCausalLM",
    "Phi3VImageProcessor",
    "Phi3VProcessor",
    "register",
]


def register() -> None:
    """Register the port with Transformers; `auto_map` of a published folder is then not followed."""
    AutoConfig.register(Phi3VConfig.model_type, Phi3VConfig, exist_ok=True)
    AutoModelForImageTextToText.register(Phi3VConfig, Phi3VForCausalLM, exist_ok=True)
    AutoModelForCausalLM.register(Phi3VConfig, Phi3VForCausalLM, exist_ok=True)  # as the model card loads it
    # One class, whichever image backend is asked for.
    backends: dict[str, type] = {"pil": Phi3VImageProcessor, "torchvision": Phi3VImageProcessor}
    AutoImageProcessor.register(Phi3VConfig, image_processor_classes=backends, exist_ok=True)
    AutoProcessor.register(Phi3VConfig, Phi3VProcessor, exist_ok=True)
