"""The configuration that a run was made with, for those who read what it left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mstar_pl.data.cards import listed
from mstar_pl.types import InputError

RECIPE = "recipe.yaml"
"""Its name in a published folder."""

_DATA = ("train", "prompts", "val", "val_prompts")
_SEEDS = ("seed", "seed_everything")


def recipe_sections(path: Path) -> dict[str, str]:
    """Return what a card says of a recipe: that it is there, the data files that it names, and its seeds.

    Raises:
        InputError: The file is missing, or holds no configuration.
    """
    config = read_recipe(path)
    sections = {"Recipe": f"`{RECIPE}` is the whole configuration that it was made with."}
    found = {"Data": settings(config, _DATA), "Seeds": settings(config, _SEEDS)}
    return sections | {title: listed(entries) for title, entries in found.items() if entries}


def find_recipe(run: Path) -> Path:
    """Return the configuration of a run: `config.yaml` of its last start.

    Raises:
        InputError: There is none.
    """
    found = [run / "config.yaml", *run.glob("lightning_logs/version_*/config.yaml")]
    there = [path for path in found if path.is_file()]
    if not there:
        raise InputError(
            f"{run}: no config.yaml of a training here or in lightning_logs; give it as --recipe"
        )
    return max(there, key=lambda path: path.stat().st_mtime)


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the configuration of a run.

    Raises:
        InputError: The file is missing, or holds none.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); give config.yaml of the run") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: is no configuration; give config.yaml of the run")
    return config


def settings(config: Mapping[str, Any], names: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Return the settings of some names that have a value, wherever they are in a configuration.

    >>> config = {"seed_everything": 0, "data": {"init_args": {"seed": 3, "train": "a.jsonl", "val": None}}}
    >>> settings(config, ("seed", "seed_everything", "val"))
    {'seed_everything': 0, 'data.init_args.seed': 3}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= settings(value, names, f"{prefix}{key}.")
        elif key in names and value is not None:
            found[f"{prefix}{key}"] = value
    return found
