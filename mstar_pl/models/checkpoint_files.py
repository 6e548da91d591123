"""Files of a model folder, read with care: what is not whole is refused by name."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mstar_pl.types import InputError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
"""The only file of weights; where there is one, Transformers reads no index."""

PROCESSOR_FILES = (
    ("processor_config.json", "preprocessor_config.json"),
    ("tokenizer_config.json",),
    ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json"),
)
"""Files of a processor; of each row there must be one."""


def read_settings(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    Raises:
        InputError: It does not exist, cannot be read, or holds something else.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: does not exist; give a whole model folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); download it again") from None
    if not isinstance(settings, dict):
        raise InputError(f"{file}: holds no JSON object; download it again")
    return settings


def stated_counts(settings: Mapping[str, Any], *names: str) -> dict[str, int]:
    """Return those of some settings that are stated.

    Raises:
        ValueError: One is no whole number above 0.

    >>> stated_counts({"patch_size": 14, "slice_mode": True}, "patch_size", "max_slice_nums")
    {'patch_size': 14}
    """
    stated = {name: settings[name] for name in names if name in settings}
    for name, value in stated.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}, no whole number above 0")
    return stated


_CONTRADICTIONS = (
    AttributeError,
    RuntimeError,
    TypeError,
    ValueError,
    ZeroDivisionError,
    StrictDataclassError,
)
"""What Transformers and PyTorch raise on sizes and types that do not fit."""


@contextmanager
def blamed_on(file: Path) -> Iterator[None]:
    """Refuse settings of a file from which Transformers cannot build what they describe.

    Args:
        file: Where the settings were read.

    Raises:
        InputError: One is missing, of a wrong type, or contradicts another.
    """
    try:
        yield
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{file}: does not say {error}; give the published folder") from error
    except _CONTRADICTIONS as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be used ({reason}); download it again") from error


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the file of each weight of a folder, from its index or its only file.

    The index says which files there are, the files say which weights.

    Raises:
        InputError: A file is not there or is cut off, two have a weight of the same name, or there is none.
    """
    found: dict[str, Path] = {}
    for file in sorted({folder / name for name in _listed(folder)}):
        for name in _names(file):
            if name in found:
                raise InputError(f"{file}: {name} is in {found[name].name}, too; download the folder again")
            found[name] = file
    if not found:
        raise InputError(f"{folder}: has no weights; download it again")
    return found


def _listed(folder: Path) -> list[str]:
    """Return the names of the files that have weights."""
    index = folder / INDEX
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if not index.is_file():
        raise InputError(
            f"{folder}: has neither {SINGLE} nor {INDEX}; download it, weights are read from safetensors"
        )
    files = read_settings(index).get("weight_map")
    if not isinstance(files, dict) or not all(_is_name(file) for file in files.values()):
        raise InputError(
            f"{index}: weight_map does not give a file's name for each weight; download it again"
        )
    return list(files.values())


def _is_name(file: Any) -> bool:
    return isinstance(file, str) and file == Path(file).name


def _names(file: Path) -> list[str]:
    if not file.is_file():
        raise InputError(f"{file}: does not exist; download it, weights are read from safetensors")
    try:
        with safe_open(file, "pt") as shard:
            return list(shard.keys())
    except SafetensorError as error:
        raise InputError(f"{file}: cannot be read ({error}); download it again") from None


def read_tensor(file: Path, name: str) -> Tensor:
    """Return a weight, mapped from its file."""
    with safe_open(file, "pt") as shard:
        return shard.get_tensor(name)


def check_processor_files(folder: Path) -> None:
    """Refuse a folder without a whole processor: Transformers makes up what is missing of a tokenizer.

    Raises:
        InputError: A file is missing, or cut off.
    """
    for names in PROCESSOR_FILES:
        found = [folder / name for name in names if (folder / name).is_file()]
        if not found:
            raise InputError(f"{folder}: no {' or '.join(names[:2])}; download all files of the model")
        for file in found:
            if file.suffix == ".json":
                read_settings(file)


def check_template(folder: str, processor: Any) -> None:
    """Refuse a processor that cannot write prompts.

    Raises:
        InputError: It has no chat template.
    """
    if processor.chat_template is None:
        raise InputError(
            f"{folder}: no chat template (chat_template.jinja); download all files of the model, or "
            "override LMM.chat (docs/new_lmm.md)"
        )


def check_weight_files(folder: Path) -> None:
    """Refuse a folder without whole weights; those of PyTorch's own format are not looked at.

    Raises:
        InputError: A file is missing, or cut off.
    """
    safe = any((folder / name).is_file() for name in (SINGLE, INDEX))
    if safe or not any(folder.glob("pytorch_model*.bin")):
        weight_files(folder)


def check_loaded(folder: str, lost: Collection[str]) -> None:
    """Refuse a model of whose weights Transformers has made some up.

    Args:
        folder: Where it was read.
        lost: Names of weights that are missing, or of another shape than the configuration's.

    Raises:
        InputError: There is one.
    """
    if lost:
        raise InputError(
            f"{folder}: {len(lost)} weights are missing, or not of the shape that config.json says "
            f"({', '.join(sorted(lost)[:3])}{', ...' * (len(lost) > 3)}); download all files of the model"
        )
