"""Dynamics of self-evolving training: what the policy explores, and what the reward model finds of it.

Greedy accuracy, Pass@K, Reward-Pass@K and the gap between the first two on validation prompts
(arXiv 2412.17451, section 4). Each holds one value a prompt, so that the mean comes with an interval and
processes can be merged. Prompts that the answer check cannot decide are left out by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from mstar_pl.metrics.intervals import bootstrap_interval
from mstar_pl.metrics.pass_at_k import pass_at_k
from mstar_pl.metrics.reward_pass_at_k import reward_pass_at_k


class PromptMean(Metric):
    """Mean of one value a prompt with its 95 % bootstrap interval; what a value is, subclasses say.

    Args:
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    values: list[Tensor] | Tensor  # a tensor once processes have been merged

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values", [], dist_reduce_fx="cat")

    def compute(self) -> Tensor:
        """Return mean, low and high, of shape (3,); all NaN without a prompt."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.empty(0)
        if not values.numel():
            return torch.full((3,), torch.nan, dtype=self.dtype, device=self.device)
        # Sorted, since the bootstrap draws by position and the order depends on the number of processes.
        interval = bootstrap_interval(values.double().sort().values.cpu().numpy())
        return torch.tensor(interval, dtype=self.dtype, device=self.device)

    def _append(self, value: float) -> None:
        # torchmetrics fills in an empty tensor of `self.dtype` for a process without prompts: use the same.
        assert isinstance(self.values, list)
        self.values.append(torch.tensor([value], dtype=self.dtype, device=self.device))


class GreedyAccuracy(PromptMean):
    """Share of prompts whose greedy response is correct.

    >>> metric = GreedyAccuracy()
    >>> for correct in (True, False, True, True):
    ...     metric.update(correct)
    >>> metric.compute()
    tensor([0.7500, 0.2500, 1.0000])
    """

    def update(self, correct: bool) -> None:
        """Take in a prompt: is its greedy response correct?"""
        self._append(float(correct))


class PassAtK(PromptMean):
    """Pass@K: chance that one of k samples is correct (exploration).

    Args:
        k: Samples that a user would look at.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = _at_least(k, 1, "k")

    def update(self, num_samples: int, num_correct: int) -> None:
        """Take in a prompt: how many samples, at least k, and how many of them are correct?"""
        self._append(pass_at_k(num_samples, num_correct, self.k))


class RewardPassAtK(PromptMean):
    """Reward-Pass@K: chance that one of the k best-scored among N samples is correct (exploitation).

    Args:
        k: Samples looked at; the paper's is 2.
        num_ranked: N, the samples that are ranked, at least k; None for all that a prompt has.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    def __init__(self, k: int = 2, num_ranked: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = _at_least(k, 1, "k")
        self.num_ranked = None if num_ranked is None else _at_least(num_ranked, k, "num_ranked")

    def update(self, scores: Sequence[float], correct: Sequence[bool]) -> None:
        """Take in a prompt: the reward model's score of each sample, and whether the sample is correct."""
        self._append(reward_pass_at_k(scores, correct, self.k, self.num_ranked))


class PassGap(PromptMean):
    """Pass@K less greedy accuracy: what sampling can still mend; the interval is that of the paired prompts.

    Args:
        k: Samples that a user would look at.
        kwargs: Arguments of `torchmetrics.Metric`.
    """

    higher_is_better = None  # a gap also widens when greedy decoding gets worse

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = _at_least(k, 1, "k")

    def update(self, num_samples: int, num_correct: int, greedy_correct: bool) -> None:
        """Take in a prompt: its samples as for `PassAtK`, and its greedy response as for `GreedyAccuracy`."""
        self._append(pass_at_k(num_samples, num_correct, self.k) - greedy_correct)


def _at_least(number: int, least: int, name: str) -> int:
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number
