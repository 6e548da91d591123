"""Low-rank adaptation of an LMM, and the merged weights that exports and engines get (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from mstar_pl.models.lmm import LMM


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA:
    """Train low-rank updates of the language model instead of all its weights.

    Attributes:
        rank: Rank of the updates.
        alpha: Scale; an update is multiplied by `alpha / rank`.
        dropout: Dropout in front of the updates.
        targets: Names (or name endings) of the layers; None takes those that the adapter proposes.
        seed: Seed of their initial values.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: list[str] | None = None
    seed: int = 0

    def apply(self, lmm: LMM, model: PreTrainedModel) -> PeftModel:
        """Wrap a model; only the updates are trained."""
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets or lmm.lora_targets(model),
        )
        tuned = get_peft_model(model, config)
        self.restart(tuned)
        return tuned

    def restart(self, model: PeftModel) -> None:
        """Set the updates to their initial values, which depend on `seed` alone and change nothing yet."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for layer in model.modules():
                if isinstance(layer, LoraLayer):
                    layer.reset_lora_parameters("default", init_lora_weights=True)


@contextmanager
def merged_weights(model: PreTrainedModel | PeftModel) -> Iterator[dict[str, Tensor]]:
    """Give the state dict with low-rank updates merged in, under the names of the model without them.

    The model is unchanged afterwards, bit for bit: the plain weights are put back, not computed back.
    """
    if not isinstance(model, PeftModel):
        yield model.state_dict()
        return
    kept = {
        name: tensor.detach().clone() for name, tensor in model.state_dict().items() if ".base_layer." in name
    }
    model.merge_adapter()
    try:
        state = model.get_base_model().state_dict()
        yield {
            name.replace(".base_layer.", "."): tensor for name, tensor in state.items() if "lora_" not in name
        }
    finally:
        model.unmerge_adapter()
        model.load_state_dict(kept, strict=False)
