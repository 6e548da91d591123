"""Reasons to stop before an iteration is sampled or trained on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from mstar_pl.rollouts.summary import FAULTS
from mstar_pl.types import InputError, Prompt, SamplingConfig

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
