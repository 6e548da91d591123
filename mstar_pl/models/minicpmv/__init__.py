"""MiniCPM-Llama3-V-2.5: the port of openbmb/MiniCPM-Llama3-V-2_5, which needs none of its remote code."""

from __future__ import annotations

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

from mstar_pl.models.minicpmv.configuration import MiniCPMVConfig
from mstar_pl.models.minicpmv.image_processing import MiniCPMVImageProcessor
from mstar_pl.models.minicpmv.modeling import MiniCPMV
from mstar_pl.models.minicpmv.processing import MiniCPMVProcessor


def register() -> None:
    """Make the port known to Transformers and vLLM; a second call changes nothing.

    Exports get copies of the port's files and name them in `auto_map`: vLLM insists on the image processor of
    the model folder, and with `trust_remote_code` a folder is whole where this package is not installed.
    """
    AutoConfig.register("minicpmv", MiniCPMVConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MiniCPMVConfig, MiniCPMV, exist_ok=True)
    # One class whichever backend is asked for: the rule is Pillow's pixels.
    backends: dict[str, type] = dict.fromkeys(("pil", "torchvision"), MiniCPMVImageProcessor)
    AutoImageProcessor.register(MiniCPMVConfig, image_processor_classes=backends, exist_ok=True)
    AutoProcessor.register(MiniCPMVConfig, MiniCPMVProcessor, exist_ok=True)
    MiniCPMVConfig.register_for_auto_class()
    MiniCPMV.register_for_auto_class("AutoModelForImageTextToText")
    MiniCPMVImageProcessor.register_for_auto_class()
    MiniCPMVProcessor.register_for_auto_class()
    if not torch.backends.cuda.is_built():
        # vLLM's resampler asks on every device, and a torch without CUDA raises instead of saying no.
        torch.cuda.is_current_stream_capturing = lambda: False
