"""Configuration files that say only in what they differ from another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mstar_pl.types import InputError

KEY = "base"
_OPTIONS = ("--config", "-c")


def with_bases(argv: Sequence[str]) -> list[str]:
    """Put the file that a configuration file names under `base` before it, and so on.

    A recipe with the line `base: continuous.yaml` is the same as `--config continuous.yaml --config recipe`:
    later values win. The path is relative to the file that names it.

    Args:
        argv: Arguments of the command line.

    Raises:
        InputError: A base does not exist, or leads back to itself.
    """
    found: list[str] = []
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name not in _OPTIONS or not (equals or rest):
            found.append(argument)
            continue
        for part in _chain(value if equals else rest.pop(0), ()):
            found += [_OPTIONS[0], part]
    return found


def _chain(source: str, seen: tuple[Path, ...]) -> list[str]:
    """Return the configurations that make up one, first those below it."""
    path = Path(source)
    if not path.is_file():  # its absence, or a configuration given as text, is the parser's affair
        return [source]
    if path.resolve() in seen:
        raise InputError(f"{path}: is its own {KEY}; remove the line")
    content = _mapping(path)
    if KEY not in content:
        return [source]
    base = path.parent / str(content.pop(KEY))
    if not base.is_file():
        raise InputError(f"{path}: {KEY} {base} does not exist; the path is relative to this file")
    return [*_chain(str(base), (*seen, path.resolve())), yaml.safe_dump(content, sort_keys=False)]


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # the parser says what is wrong
    return content if isinstance(content, dict) else {}
