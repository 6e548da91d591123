"""The probe that engine and training model are the same policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mstar_pl.data.collate import collate_prompts, join_responses
from mstar_pl.models import LMM
from mstar_pl.models.lora import TrainedModel
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.types import Prompt, RolloutGroup, SamplingConfig


def check_parity(
    engine: RolloutEngine,
    lmm: LMM,
    model: TrainedModel,
    prompts: Sequence[Prompt],
    max_tokens: int = 32,
    tolerance: float = 0.02,
) -> float:
    """Let the engine answer prompts greedily and compare with what the training model would have written.

    The training model reads the engine's own tokens, so a tie that rounding decided otherwise is not mistaken
    for wrong weights: at each token the engine's choice may fall short of the model's by no more than the
    tolerance.

    Args:
        engine: Engine with the model's weights.
        lmm: Adapter of the model.
        model: The training model.
        prompts: Prompts to compare, best with images.
        max_tokens: Most tokens of each response.
        tolerance: Largest allowed difference in logits (nats); in bfloat16 about 0.5.

    Returns:
        The largest difference found.

    Raises:
        RuntimeError: The two tokenise a prompt differently, or prefer different tokens.
    """
    worst = 0.0
    for group in engine.generate(prompts, SamplingConfig(max_tokens=max_tokens)):
        inputs = collate_prompts(lmm, [group.prompt])
        expected = tuple(inputs["input_ids"][0].tolist())
        if group.prompt_token_ids != expected:
            raise RuntimeError(
                f"prompt {group.prompt.id!r}: the engine sees {len(group.prompt_token_ids)} tokens "
                f"where training sees {len(expected)}; LMM.render and LMM.encode expand them differently"
            )
        gaps_R = shortfalls(lmm, *response_logits(lmm, model, group, inputs))
        if gaps_R.max() > tolerance:
            place = int(gaps_R.argmax())
            raise RuntimeError(
                f"prompt {group.prompt.id!r}: the engine's token {place} of the greedy response lies "
                f"{gaps_R[place]:.3f} nats below the training model's (tolerance {tolerance}); "
                "the weights did not arrive whole, or the two differ in precision (parity_tolerance)"
            )
        worst = max(worst, float(gaps_R.max()))
    return worst


@torch.no_grad()
def response_logits(
    lmm: LMM, model: TrainedModel, group: RolloutGroup, inputs: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return what the training model thinks of the tokens of a group's first response.

    Args:
        lmm: Adapter of the model.
        model: The training model.
        group: What an engine answered.
        inputs: The group's prompt as `collate_prompts` encodes it.

    Returns:
        The R response tokens, and the logits of shape (R, V) from which each was drawn, in float32.
    """
    response_R = torch.tensor(group.rollouts[0].token_ids)
    joined, _ = join_responses(lmm, inputs, [group.rollouts[0].token_ids])
    whole = {key: value.to(model.device) for key, value in joined.items()}
    training = model.training
    model.eval()
    logits = model(**whole, use_cache=False, logits_to_keep=len(response_R) + 1).logits
    model.train(training)
    return response_R, logits[0, -len(response_R) - 1 : -1].float().cpu()


def shortfalls(lmm: LMM, response_R: Tensor, logits_RV: Tensor) -> Tensor:
    """Return by how many nats each of R tokens falls short of the one that is preferred of those allowed."""
    allowed_RV = logits_RV.clone()
    allowed_RV[:, list(lmm.banned_token_ids)] = -torch.inf
    return allowed_RV.amax(-1) - allowed_RV.gather(-1, response_R[:, None])[:, 0]
