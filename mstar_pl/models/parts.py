"""The parts of an LMM, vision tower, projector and language model: what is trained, adapted and sharded."""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping
from functools import cached_property
from typing import Any, Literal
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mstar_pl.types import InputError

Group = Literal["vision", "projector", "language"]
GROUPS: tuple[Group, ...] = ("vision", "projector", "language")


class ModelParts:
    """What an adapter (`mstar_pl.models.LMM`) tells of the parts of its model."""

    path: str

    @cached_property
    def never_used(self) -> str:
        """Pattern, searched in names, of parameters that no loss reaches, e.g. a pooling head."""
        return "(?!)"

    def group(self, model: nn.Module, name: str) -> Group:
        """Return the group of a parameter: vision tower, projector, or language model with its head."""
        vision, language = _prefixes(model)
        if name.startswith(vision) and not self.is_projector(name):
            return "vision"
        return "language" if name.startswith(language) or name.startswith("lm_head") else "projector"

    def is_projector(self, name: str) -> bool:
        """Tell whether a parameter inside the vision tower belongs to the projector."""
        return False

    def freeze(self, model: PreTrainedModel, groups: Iterable[Group]) -> None:
        """Stop the gradients of the groups, and of what no loss reaches.

        Raises:
            InputError: A group is unknown, or nothing would be trained.
        """
        frozen = set(groups)
        check_groups(frozen)
        if frozen == set(GROUPS):
            raise InputError("all parameter groups are frozen; leave one out of 'freeze'")
        for name, parameter in model.named_parameters():
            if self.group(model, name) in frozen or not self.is_used(name):
                parameter.requires_grad_(False)

    def is_used(self, name: str) -> bool:
        """Tell whether a loss reaches a parameter."""
        return not re.search(self.never_used, name)

    def lora_targets(self, model: PreTrainedModel, group: Group) -> list[str]:
        """Return the names of the layers of a group that LoRA can adapt: all linear ones but the head.

        Raises:
            InputError: There are none.
        """
        found = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear)
            # PyTorch's multi-head attention reads its weight and never calls it: an update would be ignored.
            and not isinstance(module, NonDynamicallyQuantizableLinear)
            and module is not model.get_output_embeddings()
            and self.group(model, f"{name}.weight") == group
            and self.is_used(f"{name}.weight")
        ]
        if not found:
            raise InputError(f"model.lora: the {group} of {self.path} has no linear layer; set {group}: full")
        return found

    def shard_blocks(self, model: nn.Module) -> list[tuple[Group, nn.Module]]:
        """Return the blocks to shard one by one, with their groups: the layers of both towers."""
        return [
            (self.group(model, name), module)
            for name, module in model.named_modules()
            if isinstance(module, GradientCheckpointingLayer)
        ]


def check_groups(names: Iterable[str]) -> None:
    """Refuse what is no parameter group.

    Raises:
        InputError: A name is unknown.
    """
    if unknown := sorted(set(names) - set(GROUPS)):
        raise InputError(f"unknown parameter group {unknown[0]!r}; known are {', '.join(GROUPS)}")


_PREFIXES: MutableMapping[nn.Module, tuple[str, str]] = WeakKeyDictionary()


def _prefixes(model: Any) -> tuple[str, str]:
    """Return the name prefixes of vision tower and language model, with the closing dot; looked up once."""
    if model not in _PREFIXES:
        names = {id(module): name for name, module in model.named_modules()}
        parts = model.get_encoder(modality="image"), model.get_decoder()
        vision, language = (f"{names[id(part)]}." for part in parts)
        _PREFIXES[model] = vision, language
    return _PREFIXES[model]
