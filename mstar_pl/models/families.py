"""The LMM families that differ from the generic adapter, and the choice of an adapter for a model folder."""

from __future__ import annotations

import importlib
import json
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from torch import nn
from transformers import AutoImageProcessor

from mstar_pl.models.lmm import LMM
from mstar_pl.models.minicpmv.adapter import MiniCPMV
from mstar_pl.models.phi3_v.adapter import Phi3V
from mstar_pl.types import InputError

ADAPTER_FILE = "mstar_pl.json"
"""File of an exported policy that names its adapter; `transformers` and `vllm` do not need it."""


class InternVL(LMM):
    """InternVL in the native Transformers architecture (`*-hf` folders; also the embedded LMM).

    Images are tiled with Pillow, in training and in the engine: bit-exact with the published rule, from which
    the torchvision processor, the default of both, is a grey level off.
    """

    model_types = ("internvl",)
    engine_args = MappingProxyType({"mm_processor_kwargs": {"use_fast": False}})

    @cached_property
    def processor(self) -> Any:
        """Processor with the Pillow image backend."""
        processor = super().processor
        processor.image_processor = AutoImageProcessor.from_pretrained(
            self.path, backend="pil", local_files_only=True
        )
        return processor


class Qwen2_5_VL(LMM):
    """Qwen2.5-VL.

    The merger, its projector, sits inside the vision tower.
    """

    model_types = ("qwen2_5_vl",)

    def is_projector(self, name: str) -> bool:
        """Tell whether a parameter of the vision tower belongs to the merger."""
        return ".merger." in name

    def forget_positions(self, body: nn.Module) -> None:
        """Drop the offset of the last prompt's images, which would shift a prompt without images."""
        cast(Any, body).rope_deltas = None


FAMILIES: tuple[type[LMM], ...] = (InternVL, Qwen2_5_VL, MiniCPMV, Phi3V)


def adapter_for(path: str, **options: Any) -> LMM:
    """Return the adapter of a model folder: the one its export names, else the family of its `model_type`.

    Raises:
        InputError: The folder is not a model folder, or its export names an adapter that cannot be imported.
    """
    generic = LMM(path, **options)
    folder = Path(generic.path)
    if (folder / ADAPTER_FILE).is_file():
        saved = json.loads((folder / ADAPTER_FILE).read_text())
        return _import(saved["class_path"], folder)(path, **(saved["init_args"] | options))
    model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    family = next((family for family in FAMILIES if model_type in family.model_types), LMM)
    return family(path, **options)


def _import(class_path: str, folder: Path) -> type[LMM]:
    module, _, name = class_path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{folder / ADAPTER_FILE}: cannot import {class_path} ({error}); install its package"
        ) from None
