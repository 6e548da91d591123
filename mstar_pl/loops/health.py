"""Reasons to stop before an iteration is sampled or trained on."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mstar_pl.rollouts.summary import FAULTS
from mstar_pl.types import InputError, Prompt, SamplingConfig

log = logging.getLogger(__name__)

BYTES_PER_TOKEN = 12
"""Of a sampled token, generously: compressed text and number in a shard (1.4 were measured), and its text
in the training set, if its response is selected."""


def check_disk(folder: Path, iteration: int, num_bytes: int) -> None:
    """Refuse to begin an iteration that the disk has no room for.

    Args:
        folder: A folder on the disk; it exists.
        iteration: Number of the iteration.
        num_bytes: How much it will write.

    Raises:
        InputError: There is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise InputError(
            f"{folder}: rollouts and checkpoint of iteration {iteration} need about "
            f"{num_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; make room, then go on with "
            "--ckpt_path last"
        )


def rollout_bytes(
    prompts: Sequence[Prompt], sampling: SamplingConfig, former: Mapping[str, Any] | None
) -> int:
    """Estimate what the rollouts of an iteration take in the store, if all of them are selected.

    Args:
        prompts: Prompts of the iteration; the first hundred tell the size of one, which each example repeats.
        sampling: How they are sampled.
        former: Manifest of the iteration before, whose responses tell the length of these.
    """
    length = former["metrics"]["rollout/response_length"] if former else sampling.max_tokens / 4
    prompt = fmean(len(json.dumps(one.to_json())) for one in prompts[:100])
    return int(len(prompts) * sampling.num_samples * (length * BYTES_PER_TOKEN + prompt))


def checkpoint_bytes(module: nn.Module) -> int:
    """Estimate what checkpoint (weights, two moments) and export (weights) take beside their forerunners."""
    return sum(
        weight.numel() * weight.element_size() * (4 if weight.requires_grad else 2)
        for weight in module.parameters()
    )


def check_memory(
    module: nn.Module, optimizers: Sequence[Optimizer], share: float, device_bytes: int, *, buckets: bool
) -> None:
    """Refuse a training whose weights and optimizer leave the engine, or gradients, no room on the GPU.

    These are sure. What a training step takes besides is not reckoned here, `mstar-pl plan` does; where less
    than a tenth of the GPU is left, there is a warning.

    Args:
        module: The module; of weights that are spread over processes the share of this one counts.
        optimizers: Its optimizers.
        share: Share of the GPU that the engine takes.
        device_bytes: Memory of the GPU.
        buckets: Whether gradients keep their memory between two steps, as DDP's buckets do.

    Raises:
        InputError: They are more than the GPU has.
    """
    weights = sum(_local(one).nbytes for one in module.parameters())
    gradients = sum(_local(one).nbytes for one in module.parameters() if one.requires_grad)
    state = sum(
        _state_bytes(optimizer, group) * sum(_local(one).numel() for one in group["params"])
        for optimizer in optimizers
        for group in optimizer.param_groups
    )
    held = weights + gradients * buckets + state
    needed = max(held + int(share * device_bytes), weights + gradients + state)
    text = (
        f"training holds {held / 2**30:.1f} GiB (weights, optimizer) beside the {share:.0%} of the engine, "
        f"and {gradients / 2**30:.1f} GiB of gradients, on a GPU of {device_bytes / 2**30:.1f} GiB"
    )
    advice = "lower the engine's gpu_memory_utilization, or take configs/trainer/fsdp2.yaml or model.lora"
    if needed > device_bytes:
        raise InputError(f"{text}, more than there is; {advice} (mstar-pl plan shows the parts)")
    if needed > 0.9 * device_bytes:
        log.warning("%s; %s if memory runs out (mstar-pl plan shows the parts)", text, advice)


def _local(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _state_bytes(optimizer: Optimizer, group: Mapping[str, Any]) -> float:
    """Return the bytes of state for each value of a weight, found out by a step of a copy on a small one."""
    probe = nn.Parameter(torch.zeros(256, 256, device=group["params"][0].device))
    probe.grad = torch.zeros_like(probe)
    twin = copy.copy(optimizer)
    twin.state, twin.param_groups = defaultdict(dict), [dict(group) | {"params": [probe]}]
    type(twin).step(twin)  # a schedule puts a step of its own on the object
    return sum(one.nbytes for one in twin.state[probe].values() if isinstance(one, Tensor)) / probe.numel()


def check_rollouts(
    iteration: int,
    manifest: Mapping[str, Any],
    folder: Path,
    temperature: float,
    max_degenerate: float | None,
) -> None:
    """Refuse rollouts from which nothing could be learnt, or only noise.

    Args:
        iteration: Number of the iteration.
        manifest: Its manifest, with the scalars of `mstar_pl.rollouts.summary.summarise`.
        folder: Where the rollouts are.
        temperature: At which they were sampled.
        max_degenerate: Largest share of degenerate responses; None allows all.

    Raises:
        InputError: The policy has collapsed, or nothing was selected.
    """
    metrics = manifest["metrics"]
    degenerate = metrics.get("rollout/degenerate", 0.0)
    if max_degenerate is not None and degenerate > max_degenerate:
        faults = ", ".join(f"{name} {metrics[f'rollout/{name}']:.0%}" for name in FAULTS)
        raise InputError(
            f"iteration {iteration}: {degenerate:.0%} of the responses are degenerate ({faults}); the policy "
            f"has collapsed, or sampling.max_tokens is too small. Read {folder}, or allow more with "
            "trainer.evolution.init_args.max_degenerate"
        )
    if not metrics["reward/selected"]:
        raise InputError(
            f"iteration {iteration}: none of {manifest['num_rows']} responses was selected at temperature "
            f"{temperature} (Pass@1 {metrics.get('reward/pass@1', 0):.3f}); warm the policy up first, lower "
            "the temperature, draw more samples, or loosen the selection"
        )
