"""The process reward: how well a multimodal process reward model thinks of a response's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from statistics import fmean
from typing import Literal

from mstar_pl.data.format import split_steps
from mstar_pl.models.process_reward import ProcessRewardModel
from mstar_pl.rewards.answer import Rules
from mstar_pl.rewards.reward import AnswerReward, Reward
from mstar_pl.types import Prompt, RolloutGroup, Score

Aggregate = Literal["min", "last", "mean", "product"]


def aggregate_steps(scores: Sequence[float], how: Aggregate = "min") -> float:
    """Return the score of a response from those of its steps; 0 for a response without steps.

    >>> [round(aggregate_steps([0.9, 0.5, 0.8], how), 3) for how in ("min", "last", "mean", "product")]
    [0.5, 0.8, 0.733, 0.36]
    """
    if not scores:
        return 0.0
    if how == "last":
        return scores[-1]
    return prod(scores) if how == "product" else fmean(scores) if how == "mean" else min(scores)


class ProcessReward:
    """Score by final answer and steps: answer check times process score (arXiv 2412.17451, section 3.2).

    Every distinct response is scored, wrong ones too: the dynamics rank them, and a look at the store shows
    whether the model tells them from correct ones. It is loaded once and leaves the accelerator when idle.

    Args:
        path: Folder of an exported process reward model.
        aggregate: Score of a response from those of its steps; the paper takes the least.
        dtype: Type of its weights, `float32` or `bfloat16`.
        rules: How answers are compared; see `AnswerReward`.

    Raises:
        InputError: The folder holds no process reward model.
    """

    def __init__(
        self,
        path: str,
        aggregate: Aggregate = "min",
        dtype: Literal["float32", "bfloat16"] = "float32",
        rules: Rules = "default",
    ) -> None:
        self.path = path
        self.aggregate: Aggregate = aggregate
        self.rules = rules
        self._model = ProcessRewardModel.load(path, dtype=dtype)
        self.answers: Reward = AnswerReward(rules)
        self.weights = self._model.digest()

    def __call__(self, group: RolloutGroup) -> list[Score]:
        """Grade and score each distinct response once."""
        texts = [rollout.text for rollout in group.rollouts]
        process = self.score(group.prompt, list(dict.fromkeys(texts)))
        return [
            replace(score, process=process[text])
            for score, text in zip(self.answers(group), texts, strict=True)
        ]

    def score(self, prompt: Prompt, responses: Sequence[str]) -> dict[str, float]:
        """Return the process score of each response of a prompt, whatever its answer."""
        steps = self.step_scores(prompt, responses)
        return {
            response: aggregate_steps(scores, self.aggregate)
            for response, scores in zip(responses, steps, strict=True)
        }

    def step_scores(self, prompt: Prompt, responses: Sequence[str]) -> list[tuple[float, ...]]:
        """Return the score of each step of each response."""
        return self._model.score(prompt, [split_steps(response) for response in responses])

    def wake(self, device: str) -> None:
        """Go to the accelerator."""
        self._model.to(device)

    def sleep(self) -> None:
        """Go to the host's memory."""
        self._model.to("cpu")
