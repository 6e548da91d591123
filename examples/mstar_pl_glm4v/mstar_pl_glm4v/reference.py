"""Training that stays near the policy it began with."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from torch.nn.functional import kl_div

from mstar_pl.data.batches import Batch
from mstar_pl.models import LMM
from mstar_pl.modules import PolicyModule
from mstar_pl.types import InputError


class ReferencePolicyModule(PolicyModule):
    """Add to each response token's loss its divergence KL(policy || reference) over the vocabulary.

    The reference policy is the model below the low-rank updates, so it takes no memory of its own.

    Args:
        lmm: Adapter of the LMM family and its weights.
        kl_weight: Weight of the divergence (nats) beside the cross entropy.
        options: Further ones of `PolicyModule`; `lora` must be among them.

    Raises:
        InputError: There are no low-rank updates, or the weight is negative.
    """

    def __init__(self, lmm: LMM, kl_weight: float = 0.1, **options: Any) -> None:
        super().__init__(lmm, **options)
        if self.lora is None:
            raise InputError("model.kl_weight needs model.lora: the reference is the model below the updates")
        if kl_weight < 0:
            raise InputError(f"model.kl_weight is {kl_weight}; give 0 or more")
        self.kl_weight = kl_weight

    def configure_model(self) -> None:
        """Load the model.

        Raises:
            InputError: Other weights than low-rank updates are trained, with which the reference would move.
        """
        super().configure_model()
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                raise InputError(
                    f"model.kl_weight: {name} is trained itself, and the reference would change with it; "
                    "train low-rank updates only"
                )

    def training_losses(self, logits_NV: Tensor, labels_N: Tensor, batch: Batch) -> Tensor:
        """Return cross entropy and weighted divergence of each of the N response tokens."""
        assert isinstance(self.model, PeftModel)
        with torch.no_grad(), self.model.disable_adapter():
            reference_NV, _ = self.token_logits(batch)
        divergence_N = kl_div(
            reference_NV.log_softmax(-1), logits_NV.log_softmax(-1), reduction="none", log_target=True
        ).sum(-1)
        self.log("train/kl", divergence_N.detach().mean(), batch_size=len(divergence_N))
        return super().training_losses(logits_NV, labels_N, batch) + self.kl_weight * divergence_N
