"""Low-rank adaptation of an LMM, and the merged weights that exports and engines get (arXiv 2106.09685)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mstar_pl.models.lmm import LMM
from mstar_pl.models.parts import Group, check_groups
from mstar_pl.types import InputError

# peft imports bitsandbytes wherever that is installed, which takes more than a second.
if TYPE_CHECKING:
    from peft import PeftModel
    from typing_extensions import TypeIs

TrainedModel: TypeAlias = "PreTrainedModel | PeftModel"
"""A model of Transformers, or one with low-rank updates around it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoRA:
    """Low-rank updates of one parameter group; what is None is as `LoRA` says.

    Attributes:
        rank: Rank of the updates.
        alpha: Scale; an update is multiplied by `alpha / rank`.
        targets: Names, or name endings, of linear layers of the group; None takes those of
            `LMM.lora_targets`.
    """

    rank: int | None = None
    alpha: int | None = None
    targets: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """Train low-rank updates instead of all weights: of the language model, or group by group.

    `groups: {language: {}, vision: {rank: 8}, projector: full}` trains updates of two groups, and all weights
    of the projector, which has few. A group that is not named is frozen. Updates are trained in float32;
    `full` trains weights in the dtype they are loaded in, and bfloat16 rounds small steps away.

    Attributes:
        rank: Rank of the updates.
        alpha: Scale; an update is multiplied by `alpha / rank`.
        dropout: Dropout in front of the updates.
        targets: Layers of the language model, where `groups` is None; see `GroupLoRA`.
        groups: What is trained of `language`, `projector` and `vision`: updates, or `full` for all weights.
            None trains updates of the language model.
        quantize: `nf4` holds the layers that have updates in 4 bits (QLoRA, arXiv 2305.14314); needs the
            extra `qlora`. Engines and exports get whole weights.
        seed: Seed of the updates' initial values.

    Raises:
        InputError: The settings contradict each other, or a number is out of its range.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None
    groups: dict[Group, GroupLoRA | Literal["full"]] | None = None
    quantize: Literal["nf4"] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        check_groups(self.groups or ())
        if self.groups is not None and self.targets is not None:
            raise InputError("model.lora: beside groups, write targets into them: language: {targets: [...]}")
        if not self.updates:
            raise InputError("model.lora.groups gives no group low-rank updates; name one, e.g. language: {}")
        ranks = [self.rank, *(own.rank for own in self.updates.values() if own.rank is not None)]
        if min(ranks) < 1:
            raise InputError("model.lora: a rank must be at least 1; leave a group out to freeze it")
        scales = [self.alpha, *(own.alpha for own in self.updates.values() if own.alpha is not None)]
        if any(own.targets == [] for own in self.updates.values()):
            raise InputError("model.lora: targets is empty; name layers, or leave it out for all")
        if min(scales) < 1:
            raise InputError("model.lora: alpha must be at least 1; it scales the updates")
        if not 0 <= self.dropout < 1:
            raise InputError(f"model.lora.dropout is {self.dropout:g}; give a share from 0 to below 1")

    @property
    def trained(self) -> dict[Group, GroupLoRA | Literal["full"]]:
        """The groups that are trained, and how."""
        return {"language": GroupLoRA(targets=self.targets)} if self.groups is None else self.groups

    @property
    def updates(self) -> dict[Group, GroupLoRA]:
        """The groups that have updates, and what is their own."""
        return {group: own for group, own in self.trained.items() if isinstance(own, GroupLoRA)}

    def apply(self, lmm: LMM, model: PreTrainedModel, device: str | torch.device = "cpu") -> PeftModel:
        """Wrap a model; only the updates and the groups trained in full are trained.

        Args:
            lmm: Adapter of the model.
            model: The model.
            device: Where layers go that are put into 4 bits.

        Raises:
            InputError: A target is no layer of its group, or 4 bits cannot be had.
        """
        from peft import LoraConfig, get_peft_model

        layers = {group: self._layers(lmm, model, group) for group in self.updates}
        names = [name for found in layers.values() for name in found]
        full = [
            parameter
            for name, parameter in model.named_parameters()
            if self.trained.get(lmm.group(model, name)) == "full" and lmm.is_used(name)
        ]
        if self.quantize:
            _quantize(lmm, model, names, device)
        # One pattern a group: its layers, however they are called.
        own = [("|".join(map(re.escape, layers[group])), one) for group, one in self.updates.items()]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=names,
            rank_pattern={pattern: one.rank for pattern, one in own if one.rank is not None},
            alpha_pattern={pattern: one.alpha for pattern, one in own if one.alpha is not None},
        )
        tuned = get_peft_model(model, config)
        for parameter in full:
            parameter.requires_grad_(True)
        self.restart(tuned)
        return tuned

    def restart(self, model: PeftModel) -> None:
        """Set the updates to their initial values, which depend on `seed` alone and change nothing yet."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for layer in _updated_layers(model).values():
                layer.reset_lora_parameters("default", init_lora_weights=True)

    def _layers(self, lmm: LMM, model: PreTrainedModel, group: Group) -> list[str]:
        """Return the layers of a group that its targets name, or all that can have updates."""
        possible, targets = lmm.lora_targets(model, group), self.updates[group].targets
        if targets is None:
            return possible
        chosen = {one: [name for name in possible if f".{name}".endswith(f".{one}")] for one in targets}
        if missing := [target for target, names in chosen.items() if not names]:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in possible}))
            raise InputError(f"model.lora: {group} has no linear layer {missing[0]!r}; it has {known}")
        return [name for name in possible if any(name in names for names in chosen.values())]


def has_updates(model: nn.Module) -> TypeIs[PeftModel]:
    """Tell whether a model has low-rank updates around it."""
    peft = sys.modules.get("peft")  # nothing is of a class that was never imported
    return peft is not None and isinstance(model, peft.PeftModel)


def plain_model(model: TrainedModel) -> PreTrainedModel:
    """Return the model of Transformers, its layers wrapped where they have updates."""
    return cast(PreTrainedModel, model.get_base_model()) if has_updates(model) else model


@contextmanager
def merged_weights(model: TrainedModel) -> Iterator[Mapping[str, Tensor]]:
    """Give the state dict with low-rank updates merged in, under the names of the model without them.

    The model is not changed: an update is added when its weight is read.
    """
    with torch.no_grad():
        yield _Merged(plain_model(model)) if has_updates(model) else model.state_dict()


@torch.no_grad()
def low_rank_updates(model: TrainedModel) -> dict[str, Tensor]:
    """Return the two factors of each layer's update, `LAYER.lora_A.weight` and `LAYER.lora_B.weight`.

    The second one is scaled by `alpha / rank`.
    """
    found: dict[str, Tensor] = {}
    for name, layer in _updated_layers(plain_model(model)).items():
        found[f"{name}.lora_A.weight"] = layer.lora_A["default"].weight
        found[f"{name}.lora_B.weight"] = layer.lora_B["default"].weight * layer.scaling["default"]
    return found


def _updated_layers(model: nn.Module) -> dict[str, Any]:
    """Return the layers that have updates, by name."""
    from peft.tuners.lora import LoraLayer

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


class _Merged(Mapping[str, Tensor]):
    """Weights of a model with low-rank updates, under the names that they have without."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._updated = {f"{name}.weight": layer for name, layer in _updated_layers(model).items()}
        state = {name: tensor for name, tensor in model.state_dict().items() if ".lora_" not in name}
        self._plain = {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}

    def __getitem__(self, name: str) -> Tensor:
        """Return a weight, its update added."""
        layer = self._updated.get(name)
        if layer is None:
            return self._plain[name]
        weight = self._plain[name] if name in self._plain else layer.get_base_layer().dequantized()
        return (weight + layer.get_delta_weight("default")).to(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        """Yield the names; weights in 4 bits are in no state dict."""
        return iter(self._plain | self._updated)

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self._plain | self._updated)


def _quantize(lmm: LMM, model: PreTrainedModel, names: list[str], device: str | torch.device) -> None:
    """Put layers into 4 bits.

    Raises:
        InputError: bitsandbytes is not installed, or the weights are not read.
    """
    if lmm.weightless:
        raise InputError(
            "model.lora.quantize: 4 bits are not reckoned; without it a plan says the most it takes"
        )
    try:
        from mstar_pl.models.quantized import quantize
    except ImportError:
        raise InputError("model.lora.quantize needs bitsandbytes: pip install 'mstar_pl[qlora]'") from None
    quantize(model, names, device)
