"""Checks of the training side of an adapter, on Transformers alone."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from mstar_pl.data.collate import collate_examples, collate_prompts
from mstar_pl.models import adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.lora import has_updates, merged_weights
from mstar_pl.parity.subject import Subject, largest
from mstar_pl.rollouts.transformers_engine import pad_left


class Finding(NamedTuple):
    """What a check measured.

    Attributes:
        size: A difference, or a number of faults; zero is best.
        where: Where it was largest, or the faults, for the report.
    """

    size: float
    where: str = ""


def training_step(subject: Subject) -> Finding:
    """Train for a step; return nothing but that it went."""
    subject.train()
    return Finding(0)


@torch.no_grad()
def padded_loss(subject: Subject) -> Finding:
    """Return by how much an example's mean loss (nats) depends on the examples that are batched with it."""
    together = _mean_losses(subject, list(range(len(subject.examples))))
    alone = [_mean_losses(subject, [place])[0] for place in range(len(subject.examples))]
    return _largest((torch.stack(together) - torch.stack(alone)).abs(), subject)


@torch.no_grad()
def left_padding(subject: Subject) -> Finding:
    """Return by how much first-token logits differ between a batch padded on the left and single prompts.

    So `test`, `predict` and the engine on Transformers generate.
    """
    together_BV = _first_logits(subject, list(range(len(subject.prompts))))
    alone_BV = torch.cat([_first_logits(subject, [place]) for place in range(len(subject.prompts))])
    return _largest((together_BV - alone_BV).abs().amax(1), subject)


def gradients(subject: Subject) -> Finding:
    """Return how many parameters are trained but not reached, or reached though said to be never used."""
    unused = [
        (name, parameter)
        for name, parameter in subject.model.named_parameters()
        if re.search(subject.lmm.never_used, name) and parameter.is_floating_point()
    ]
    for _, parameter in unused:
        parameter.requires_grad_(True)
    losses_N, _, _ = subject.module.token_losses(
        subject.to_device(collate_examples(subject.lmm, subject.examples))
    )
    losses_N.mean().backward()
    faults = [f"{name} is reached though never_used names it" for name, one in unused if one.grad is not None]
    for _, parameter in unused:
        parameter.requires_grad_(False)
    for name, parameter in subject.model.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            faults.append(f"{name} is not reached")
        parameter.grad = None
    return Finding(len(faults), "; ".join(faults[:3]))


def prompt_lengths(subject: Subject) -> Finding:
    """Return how many prompts have another length than `num_prompt_tokens` reads off the images' headers."""
    faults = []
    for prompt in subject.prompts:
        said = subject.lmm.num_prompt_tokens(prompt)
        length = collate_prompts(subject.lmm, [prompt])["input_ids"].shape[1]
        if said != length:
            faults.append(f"{prompt.id} has {length} tokens, not {said}")
    return Finding(len(faults), "; ".join(faults[:3]))


def rotary_frequencies(subject: Subject) -> Finding:
    """Return how many buffers of rotary frequencies are not in float32 after the Trainer's set-up."""
    faults = [
        name
        for name, buffer in subject.model.named_buffers()
        if name.endswith("inv_freq") and buffer.dtype != torch.float32
    ]
    return Finding(len(faults), "; ".join(faults[:3]))


@torch.no_grad()
def save_and_load(subject: Subject) -> Finding:
    """Return by how much the logits change when the policy is exported and read again.

    Low-rank updates are merged first, which rounds in bfloat16.
    """
    folder = export_policy(subject.lmm, subject.model, subject.folder / "policy")
    lmm = adapter_for(str(folder), dtype=subject.lmm.dtype, attention=subject.lmm.attention)
    again, exported = lmm.load_model(subject.model.device), subject.model
    if has_updates(exported):
        with merged_weights(exported) as weights:
            exported = subject.lmm.load_model(subject.model.device)
            exported.load_state_dict(weights)
    differences = []
    for example in subject.examples:
        ours, theirs = (subject.to_device(collate_examples(one, [example])) for one in (subject.lmm, lmm))
        for batch in (ours, theirs):
            del batch["labels"]
        difference = exported(**ours).logits.float() - again(**theirs).logits.float()
        differences.append(float(difference.abs().max()))
    return Finding(largest(differences))


def _mean_losses(subject: Subject, places: list[int]) -> list[Tensor]:
    """Return the mean loss of each example when they are computed as one batch."""
    batch = collate_examples(subject.lmm, [subject.examples[place] for place in places])
    counts = (batch["labels"] >= 0).sum(1).tolist()
    losses_N, _, _ = subject.module.token_losses(subject.to_device(batch))
    return [losses.double().mean().cpu() for losses in losses_N.split(counts)]


def _first_logits(subject: Subject, places: list[int]) -> Tensor:
    inputs = pad_left(collate_prompts(subject.lmm, [subject.prompts[place] for place in places]))
    output = subject.model.generate(  # type: ignore[operator] # a method of both
        **subject.to_device(inputs),
        max_new_tokens=1,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=subject.lmm.pad_token_id,
    )
    return output.logits[0].float().cpu()


def _largest(differences: Tensor, subject: Subject) -> Finding:
    place = int(differences.argmax())
    return Finding(float(differences[place]), f"largest at {subject.prompts[place].id}")
