"""Fingerprints: what the rollouts of an iteration depend on, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import PurePath
from types import FunctionType
from typing import Any

from torch import Tensor

from mstar_pl.data.images import image_digest
from mstar_pl.models import LMM
from mstar_pl.models.digest import weights_digest
from mstar_pl.types import InputError, Prompt, SamplingConfig


def fingerprint(
    lmm: LMM,
    weights: Mapping[str, Tensor],
    step: int,
    prompts: Sequence[Prompt],
    samplings: Sequence[SamplingConfig],
    **parts: object,
) -> str:
    """Return what rollouts depend on.

    Args:
        lmm: Adapter of the policy.
        weights: The policy's weights.
        step: Optimizer steps behind them.
        prompts: The prompts; what the policy reads of them counts: rendered text and contents of the images.
        samplings: How they are sampled.
        parts: Reward, selection and the like, by name; their classes and public options count.
    """
    content = hashlib.sha256()
    for prompt in prompts:
        read = (prompt.to_json(), lmm.render(prompt), [image_digest(image) for image in prompt.images])
        content.update(json.dumps(read, sort_keys=True).encode() + b"\n")
    return json.dumps(
        {
            "lmm": [type(lmm).__qualname__, lmm.settings],
            "policy_step": step,
            "weights": weights_digest(weights.items()),
            "prompts": content.hexdigest()[:16],
            "sampling": [asdict(sampling) for sampling in samplings],
            **{name: _describe(part) for name, part in parts.items()},
        }
    )


def _describe(part: object) -> Any:
    """Return class and public options, those of its parts included.

    Raises:
        InputError: Its value cannot be told, so that another one would be taken for the same.
    """
    if part is None or isinstance(part, PurePath | Enum):
        return str(part)
    if isinstance(part, FunctionType | type):
        return f"{part.__module__}.{part.__qualname__}"
    names = {one.name for one in fields(part)} if is_dataclass(part) else set()
    names |= getattr(part, "__dict__", {}).keys()
    options = {name: getattr(part, name) for name in names if name[0] != "_"}
    if not names and type(part).__repr__ is not object.__repr__:
        raise InputError(
            f"trainer.evolution: an option that is a {type(part).__name__} ({part!r}) cannot be told from "
            "another; give a number, a text, a list or an object with public options"
        )
    values = json.dumps(options, sort_keys=True, default=_describe)
    return f"{type(part).__module__}.{type(part).__qualname__}({values})"
