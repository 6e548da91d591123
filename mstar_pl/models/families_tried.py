"""What is known of models before they are loaded: which do not work, and which nobody has tried."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from mstar_pl.models.checkpoint_files import read_settings
from mstar_pl.types import InputError

log = logging.getLogger(__name__)

REFUSED: Mapping[str, str] = MappingProxyType(
    {
        "internvl_chat": "its published code does not run on Transformers 5; convert InternVL2-2B with "
        "`mstar-pl convert internvl2 SRC OUT`, and of InternVL3 take the folder whose name ends with -hf",
        "mllama": "vLLM has dropped it (after 0.10.2)",
        "minicpmo": "it needs published code, which is never run",
        "phi4_multimodal": "an image's features change with the images that are batched with it (by 2e-3 in "
        "the loss of a small random model), and vLLM has dropped it (after 0.12.0)",
        "phi4mm": "it needs published code, which is never run",
    }
)
"""Why models of a `model_type` do not work."""

CAUSAL_ON_CPU = (
    "vLLM on a CPU lets tokens of an image see only those before them, training the whole image; "
    "sample on a GPU, or with TransformersEngine"
)

BFLOAT16_ON_CPU = "vLLM on a CPU computes linear attention in bfloat16 only; give the engine dtype: bfloat16"

ON_CPU: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("gemma3", "float32"): CAUSAL_ON_CPU,
        ("gemma3", "bfloat16"): CAUSAL_ON_CPU,
        ("minicpmv4_6", "float32"): BFLOAT16_ON_CPU,
    }
)
"""What the engine cannot do without a GPU, for models of a `model_type` in a `dtype`."""


class Chosen(Protocol):
    """What the check needs of an adapter."""

    path: str
    dtype: Literal["float32", "bfloat16"]

    @property
    def model_types(self) -> tuple[str, ...]:
        """The `model_type`s that it is for; none means any."""


def model_type_of(path: str | Path) -> str | None:
    """Return the `model_type` of a model folder.

    Raises:
        InputError: It is not one.
    """
    config = Path(path) / "config.json"
    if not config.is_file():
        raise InputError(f"{path}: not a model folder (no config.json); give a local Hugging Face folder")
    return read_settings(config).get("model_type")


def check_choice(adapter: Chosen) -> None:
    """Refuse an adapter's folder if the two cannot work together; warn if nobody has tried them.

    Raises:
        InputError: The folder is not a model folder, or its model does not work, or needs another adapter.
    """
    model_type: Any = model_type_of(adapter.path)
    if model_type in adapter.model_types:
        if (gap := ON_CPU.get((model_type, adapter.dtype))) and not torch.cuda.is_available():
            log.warning("%s: %s", adapter.path, gap)
        return
    name = type(adapter).__name__
    if reason := REFUSED.get(model_type):
        raise InputError(f"{adapter.path}: model_type {model_type!r} does not work: {reason}")
    if adapter.model_types:
        raise InputError(
            f"{adapter.path}: the adapter {name} is for model_type {', '.join(adapter.model_types)}, not "
            f"{model_type!r}; docs/models.md names the adapter of each family"
        )
    known = model_type in CONFIG_MAPPING
    if not known or CONFIG_MAPPING[model_type] not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise InputError(
            f"{adapter.path}: Transformers has no image-text-to-text model of model_type {model_type!r}, and "
            "published code is never run; an adapter that names the model_type may load it (docs/new_lmm.md)"
        )
    log.warning(
        "%s: %s has not been tried with model_type %r; docs/models.md names the families that have, "
        "`mstar-pl check-lmm` tries it",
        adapter.path,
        name,
        model_type,
    )
