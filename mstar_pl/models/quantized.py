"""Linear layers in 4 bits (NF4 of arXiv 2305.14314, by bitsandbytes), under low-rank updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from bitsandbytes import functional
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor, nn


class QuantizedLinear(Linear4bit):
    """A frozen linear layer in 4 bits.

    Its weight is in no state dict: a checkpoint need not hold what the model folder has.

    Args:
        layer: The layer in full; bias and dtype of the arithmetic are its own.
        device: Where it goes.
    """

    def __init__(self, layer: nn.Linear, device: str | torch.device) -> None:
        dtype, weight = layer.weight.dtype, layer.weight.detach()
        size = layer.in_features, layer.out_features
        super().__init__(*size, layer.bias is not None, compute_dtype=dtype, quant_type="nf4", device="meta")
        held = Params4bit(weight, requires_grad=False, quant_type="nf4")
        self.weight = cast(nn.Parameter, held).to(device)
        self.bias = layer.bias
        # In evaluation, and then for good, it would pack weights for a CPU kernel that rounds otherwise.
        self.support_avx512bf16_for_cpu = False

    def dequantized(self) -> Tensor:
        """Return the weight as the layer uses it, in the dtype it was loaded in."""
        return functional.dequantize_4bit(self.weight.data, cast(Params4bit, self.weight).quant_state)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        nn.Module._save_to_state_dict(self, destination, prefix, keep_vars)
        del destination[f"{prefix}weight"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        mine = {f"{prefix}weight": self.weight.data}
        super()._load_from_state_dict(state_dict | mine, prefix, *args)


def quantize(model: nn.Module, names: Sequence[str], device: str | torch.device) -> None:
    """Replace linear layers by layers in 4 bits, one by one.

    Args:
        model: The model.
        names: Names of the layers.
        device: Where the new layers go.
    """
    for name in names:
        model.set_submodule(name, QuantizedLinear(cast(nn.Linear, model.get_submodule(name)), device))
    model.is_loaded_in_4bit = True  # type: ignore[assignment] # by which peft chooses its layers
