"""Rewards of whole responses: the protocol and the answer check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from mstar_pl.rewards.answer import Rules, grade
from mstar_pl.types import Prompt, RolloutGroup, Score


class Reward(Protocol):
    """Say what each rollout of a group is worth."""

    def __call__(self, group: RolloutGroup) -> list[Score]:
        """Return one score a rollout, in their order."""


@runtime_checkable
class ModelReward(Protocol):
    """A reward with a model, which holds memory of the accelerator while it works."""

    answers: Reward
    """Its answer check alone, for responses of which only the outcome is asked."""

    def wake(self, device: str) -> None:
        """Go to the accelerator."""

    def sleep(self) -> None:
        """Leave it to others."""


@runtime_checkable
class StepReward(Protocol):
    """A reward that judges single steps, such as `mstar_pl.rewards.process.ProcessReward`."""

    def step_scores(self, prompt: Prompt, responses: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a score in [0, 1] for each step of each response."""


class AnswerReward:
    """Score by the final answer alone: the reward is 1 if it equals the gold answer (arXiv 2412.17451).

    Args:
        rules: How answers are compared: `default`, or MathVista's official rules (`mathvista`,
            `mathvista-2023`).
    """

    def __init__(self, rules: Rules = "default") -> None:
        self.rules = rules

    def __call__(self, group: RolloutGroup) -> list[Score]:
        r"""Grade each distinct response once.

        >>> from mstar_pl.types import Prompt, Rollout
        >>> said = [Rollout(text=f"# Answer\n\n{n}", token_ids=(1,), finish_reason="stop") for n in (2, 3)]
        >>> prompt = Prompt(id="1", question="1+1?", answer="2", answer_type="integer")
        >>> group = RolloutGroup(prompt=prompt, prompt_token_ids=(), rollouts=said, weight_version=0)
        >>> [score.reward for score in AnswerReward()(group)]
        [1.0, 0.0]
        """
        grades = {
            text: grade(text, group.prompt, self.rules)
            for text in dict.fromkeys(rollout.text for rollout in group.rollouts)
        }
        return [
            Score(outcome=grades[rollout.text].outcome.value, extraction=grades[rollout.text].extraction)
            for rollout in group.rollouts
        ]
