"""Low-rank updates as the files that an engine reads (peft's layout)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mstar_pl.types import InputError


def write_updates(updates: Mapping[str, Tensor], folder: Path, largest_rank: int) -> Path:
    """Write low-rank updates over those that the folder holds.

    Args:
        updates: Factors by the names of the training model, their scale in the second one of each pair.
        folder: The folder.
        largest_rank: Largest rank that the engine has room for.

    Returns:
        The folder.

    Raises:
        InputError: The rank of the updates is larger.
    """
    rank = max(len(factor) for name, factor in updates.items() if ".lora_A." in name)
    if rank > largest_rank:
        raise InputError(f"model.lora has rank {rank}, the engine lora_rank {largest_rank}; raise it")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": []}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    named = {f"base_model.model.{name}": one.cpu().contiguous() for name, one in updates.items()}
    save_file(named, folder / "adapter_model.safetensors")
    return folder
