"""What is checked of models: which do not work, or were never tried; a folder that is whole; its options."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

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

BFLOAT16_ON_CPU = (
    "vLLM on a CPU computes linear attention in bfloat16 only, its engine will not start; set dtype: bfloat16"
)

ON_CPU: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("gemma3", "float32"): CAUSAL_ON_CPU,
        ("gemma3", "bfloat16"): CAUSAL_ON_CPU,
        ("minicpmv4_6", "float32"): BFLOAT16_ON_CPU,
    }
)
"""What the engine cannot do without a GPU, for models of a `model_type` in a `dtype`."""


PROCESSOR_FILES = (
    ("processor_config.json", "preprocessor_config.json"),
    ("tokenizer_config.json",),
    ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json"),
)
"""Files of a processor; of each row there must be one."""

COUNTS = ("max_patches", "max_pixels", "max_slice_nums", "min_patches", "min_pixels", "num_crops")
"""Processor options that are numbers of something."""

FORM_OF_TENSORS = ("data_format", "device", "disable_grouping", "input_data_format", "return_tensors")
"""Options of image processors that belong to the caller."""


class Chosen(Protocol):
    """What the checks need of an adapter."""

    path: str
    dtype: Literal["float32", "bfloat16"]
    processor_options: dict[str, Any]

    @property
    def known_options(self) -> tuple[str, ...] | None:
        """The processor options that training and engine heed alike; None means the image processor's."""

    def is_used(self, name: str) -> bool:
        """Tell whether a loss reaches a parameter."""

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


def read_settings(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file of a model folder.

    Raises:
        InputError: It is not a JSON object.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error}); copy the model folder again") from None
    if not isinstance(settings, dict):
        raise InputError(f"{file}: not a JSON object; copy the model folder again")
    return settings


def check_processor_files(path: str) -> None:
    """Refuse a folder without a whole processor: Transformers makes up what is missing of a tokenizer.

    Raises:
        InputError: A file is missing, or cut off.
    """
    for names in PROCESSOR_FILES:
        found = [Path(path) / name for name in names if (Path(path) / name).is_file()]
        if not found:
            raise InputError(f"{path}: no {' or '.join(names[:2])}; copy all files of the model folder")
        for file in found:
            if file.suffix == ".json":
                read_settings(file)


def check_template(path: str, processor: Any) -> None:
    """Refuse a processor that cannot write prompts.

    Raises:
        InputError: It has no chat template.
    """
    if processor.chat_template is None:
        raise InputError(
            f"{path}: no chat template (chat_template.jinja); copy all files of the model folder, or "
            "override LMM.chat (docs/new_lmm.md)"
        )


def check_options(adapter: Chosen, known: Collection[str]) -> None:
    """Refuse processor options that would be ignored, and numbers of nothing.

    Raises:
        InputError: There is one.
    """
    for option, value in adapter.processor_options.items():
        if option not in known:
            name = type(adapter).__name__
            raise InputError(f"unknown processor option {option!r}; {name} has {', '.join(sorted(known))}")
        if option in COUNTS and not (isinstance(value, int) and value >= 1):
            raise InputError(f"processor option {option} is {value!r}; give a whole number from 1 on")


def check_image_options(adapter: Chosen, processor: Any) -> None:
    """Refuse options that a processor, now that it is loaded, does not know.

    Raises:
        InputError: There is one.
    """
    if adapter.known_options is None and adapter.processor_options:
        known = processor.image_processor.valid_kwargs.__annotations__
        check_options(adapter, known.keys() - set(FORM_OF_TENSORS))


def check_weight_files(path: str) -> None:
    """Refuse a folder without whole weights.

    Raises:
        InputError: A file is missing, or cut off.
    """
    folder = Path(path)
    index = folder / "model.safetensors.index.json"
    names: Collection[str] = ("model.safetensors",)
    if not (folder / "model.safetensors").is_file():
        if not index.is_file() and any(folder.glob("pytorch_model*.bin")):
            return
        names = sorted(set(read_settings(index).get("weight_map", {}).values())) if index.is_file() else ()
    if not names:
        raise InputError(f"{path}: no weights (model.safetensors); copy all files of the model folder")
    for name in names:
        try:
            with safe_open(folder / name, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise InputError(f"{folder / name}: cannot be read ({error}); copy it again") from None


def check_loaded(adapter: Chosen, info: Mapping[str, Collection[Any]]) -> None:
    """Refuse a model of whose weights Transformers has made some up.

    Args:
        adapter: Its adapter.
        info: What Transformers tells of the loading.

    Raises:
        InputError: A weight that a loss reaches was not in the folder, or one has another shape.
    """
    lost = [name for name in info["missing_keys"] if adapter.is_used(name)]
    if missing := sorted([*lost, *(name for name, *_ in info["mismatched_keys"])]):
        raise InputError(
            f"{adapter.path}: {len(missing)} weights are missing, or not of the shape that config.json says "
            f"({', '.join(missing[:3])}{', ...' * (len(missing) > 3)}); copy all files of the model folder"
        )


def check_choice(adapter: Chosen) -> None:
    """Refuse an adapter's folder if the two cannot work together; warn if nobody has tried them.

    Raises:
        InputError: The folder is not a model folder, or its model does not work, or needs another adapter.
    """
    if adapter.known_options is not None:
        check_options(adapter, adapter.known_options)
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
