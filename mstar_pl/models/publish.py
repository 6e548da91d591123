"""Make an exported model ready for others: checked, with the recipe of its run and a full card."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from mstar_pl.data.cards import card, listed
from mstar_pl.data.durable import written_new
from mstar_pl.data.recipe import RECIPE, published_name, recipe_sections
from mstar_pl.models.checkpoint_files import read_settings
from mstar_pl.models.families import ADAPTER_FILE, adapter_for
from mstar_pl.models.process_reward import HEAD_FILE
from mstar_pl.types import InputError

CARD = "README.md"


def publish_model(
    source: Path, out: Path, recipe: Path, sections: Mapping[str, str], **front_matter: Any
) -> Path:
    """Write a policy or a process reward model that a training exported as a folder for others.

    Args:
        source: The exported folder.
        out: The new folder.
        recipe: `config.yaml` of the run; it is copied as it is.
        sections: Further sections of the card, Markdown by heading.
        front_matter: Fields of `huggingface_hub.ModelCardData`, e.g. `license` or `base_model`.

    Raises:
        InputError: The source was not exported by a training, its weights are not whole, or `out` exists.
    """
    exported = all((source / name).is_file() for name in (ADAPTER_FILE, CARD, "config.json"))
    if not exported or (source / RECIPE).exists():
        raise InputError(
            f"{source}: not what a training exported; give its folder, e.g. RUN/policy or RUN/mprm"
        )
    about = recipe_sections(recipe)
    known = ModelCard.load(source / CARD)
    data = ModelCardData(**(known.data.to_dict() | front_matter))
    saved_with = read_settings(source / "config.json").get("transformers_version")
    trained_with = re.findall(r"^# (\S+)==(\S+)$", recipe.read_text(encoding="utf-8"), re.MULTILINE)
    versions = {"transformers": saved_with, "published with mstar_pl": version("mstar_pl")}
    about["Versions"] = listed(dict(trained_with) | versions)
    with written_new(out) as temporary:
        shutil.copytree(source, temporary, ignore=shutil.ignore_patterns(".*"))
        check_model(temporary, str(source))
        shutil.copyfile(recipe, temporary / published_name(recipe))
        (temporary / CARD).write_text(card(data, known.text, {**about, **sections}), encoding="utf-8")
    return out


def check_model(folder: Path, name: str) -> None:
    """Load a model once as others will, on the CPU in the type of its weights, and look at every weight.

    Args:
        folder: Its folder.
        name: Name of the folder in messages.

    Raises:
        InputError: Weights are missing, cut off, surplus or not finite.
    """
    try:
        adapter = adapter_for(str(folder))
        assert adapter.tokenizer is not None
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype="auto", local_files_only=True, output_loading_info=True
        )
        read_out = read_settings(folder / ADAPTER_FILE).get("process_reward") or {}
        head = load_file(folder / HEAD_FILE) if read_out.get("kind") == "head" else {}
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{name}: cannot be loaded ({error}); export it again") from None
    model, report = loaded
    faults = {f"{key} is {kind.removesuffix('_keys')}" for kind in _REPORTED for key in report[kind]}
    weights = [*model.named_parameters(), *head.items()]
    faults |= {f"{key} is not finite" for key, weight in weights if not torch.isfinite(weight).all()}
    if faults:
        raise InputError(f"{name}: {len(faults)} faulty weights ({min(faults)}); export it again")


_REPORTED = ("missing_keys", "unexpected_keys", "mismatched_keys")
