"""Checks that the engine samples the policy that is trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mstar_pl.data.collate import collate_prompts
from mstar_pl.models import LoRA
from mstar_pl.models.lora import has_updates
from mstar_pl.parity.subject import Subject
from mstar_pl.parity.training import Finding
from mstar_pl.types import SamplingConfig

NOISE = {"float32": 0.02, "bfloat16": 0.2}
"""Noise that changes weights between two syncs, relative to their size; a group left behind must show."""


def first_sync(subject: Subject) -> Finding:
    """Start the engine and give it the weights; return nothing but that they arrived whole."""
    subject.sync()
    return Finding(0)


def prompt_tokens(subject: Subject) -> Finding:
    """Return how many prompts the engine sees as other tokens than training does."""
    faults = []
    for group in subject.engine.generate(subject.prompts, SamplingConfig(max_tokens=1)):
        trained = tuple(collate_prompts(subject.lmm, [group.prompt])["input_ids"][0].tolist())
        if trained != group.prompt_token_ids:
            faults.append(
                f"{group.prompt.id}: {len(group.prompt_token_ids)} tokens instead of {len(trained)}"
            )
    return Finding(len(faults), "; ".join(faults[:3]))


def log_probabilities(subject: Subject) -> Finding:
    """Return the largest difference (nats) in the log-probability of a token of the engine's answers."""
    return Finding(subject.compare()[0])


def greedy(subject: Subject) -> Finding:
    """Return by how much (nats) a greedy token falls short of what the training model would have written.

    A tie that rounding decided otherwise is not mistaken for another policy.
    """
    return Finding(subject.compare()[1])


def after_sync(subject: Subject) -> Finding:
    """Return the largest difference in log-probabilities after all weights that are synced changed."""
    changed = [
        parameter
        for name, parameter in subject.model.named_parameters()
        if "lora_" in name or not subject.engine.takes_updates
    ]
    perturb(changed, NOISE[subject.lmm.dtype])
    subject.sync()
    return Finding(subject.compare()[0])


@torch.no_grad()
def perturb(parameters: Iterable[Tensor], scale: float) -> None:
    """Add noise to weights, relative to their size; 4 bits stay as they are."""
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        if parameter.is_floating_point():
            size = float(parameter.float().square().mean().sqrt())
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter.add_(scale * (size or 1) * noise)  # biases are often zero: one that is lost must show


def placeholders(subject: Subject) -> Finding:
    """Return how many placeholders of images, or other banned tokens, are sampled at a high temperature."""
    hot = SamplingConfig(num_samples=16, temperature=2.0, max_tokens=subject.max_tokens)
    banned = set(subject.lmm.banned_token_ids)
    image_token = getattr(subject.model.config, "image_token_id", None)
    faults = [] if image_token in banned else [f"config.image_token_id {image_token} is not banned"]
    for group in subject.engine.generate(subject.prompts, hot):
        faults += [str(token) for rollout in group.rollouts for token in banned & {*rollout.token_ids}]
    return Finding(len(faults), "; ".join(faults[:3]))


def low_rank_updates(subject: Subject) -> Finding:
    """Return the largest difference in log-probabilities with low-rank updates, merged for the engine."""
    module = subject.module
    if not has_updates(module.model):
        module.model = LoRA(rank=4).apply(subject.lmm, module.model).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in module.model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    subject.sync()
    return Finding(subject.compare()[0])
