"""Reasons to stop before an iteration is sampled or trained on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mstar_pl.rollouts.summary import FAULTS
from mstar_pl.types import InputError


def check_disk(folder: Path, num_bytes: int, what: str) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: A folder on the disk; it exists.
        num_bytes: How much will be written.
        what: What it is, for the message.

    Raises:
        InputError: There is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise InputError(
            f"{folder}: {what} need about {num_bytes / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; make "
            "room, then go on with --ckpt_path last"
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
