"""The configuration that a run was made with, for those who read what it left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mstar_pl.data.cards import listed
from mstar_pl.types import InputError

RECIPE, REPORT = "recipe.yaml", "report.json"
"""What a published folder calls the configuration of a training, and what `label` or `bootstrap` reports."""

_KEYS = {RECIPE: ("model", "data", "trainer"), REPORT: ("settings",)}
_ABOUT = {RECIPE: "the whole configuration that it was made with", REPORT: "the report of how it was made"}
_DATA = ("train", "prompts", "val", "val_prompts")
_SEEDS = ("seed", "seed_everything")


def recipe_sections(path: Path) -> dict[str, str]:
    """Return what a card says of a recipe: that it is there, the data files that it names, and its seeds.

    Raises:
        InputError: The file is missing, or holds no configuration.
    """
    config, name = read_recipe(path), published_name(path)
    sections = {"Recipe": f"`{name}` is {_ABOUT[name]}."}
    found = {"Data": settings(config, _DATA), "Seeds": settings(config, _SEEDS)}
    return sections | {title: listed(entries) for title, entries in found.items() if entries}


def find_recipe(run: Path) -> Path:
    """Return the configuration of a run: `config.yaml` of its last start.

    Raises:
        InputError: There is none, or a start without a logger and one with it left one each.
    """
    logged = [*run.glob("lightning_logs/version_*/config.yaml")]
    found = [max(logged, key=lambda path: (len(path.parent.name), path.parent.name))] if logged else []
    found += [path for path in [run / "config.yaml"] if path.is_file()]
    if len(found) != 1:
        there = " and ".join(map(str, found)) or "no config.yaml of a training here or in lightning_logs"
        raise InputError(f"{run}: {there}; give it as --recipe")
    return found[0]


def published_name(path: Path) -> str:
    """Return what a published folder calls a recipe, by the kind of its file.

    >>> published_name(Path("run/config.yaml")), published_name(Path("label/report.json"))
    ('recipe.yaml', 'report.json')
    """
    return REPORT if path.suffix == ".json" else RECIPE


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the configuration of a training, or what `label` or `bootstrap` reported.

    Raises:
        InputError: The file is missing, or holds none.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}); give config.yaml of the run") from None
    keys = _KEYS[published_name(path)]
    if not isinstance(config, dict) or not config.keys() >= {*keys}:
        raise InputError(f"{path}: is no configuration with {', '.join(keys)}; give config.yaml of the run")
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
