"""Rewards for unlabelled prompts: their own samples vote for the answer (arXiv 2412.17451, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mstar_pl.data.labelled import HIDDEN_ANSWER, reveal
from mstar_pl.rewards.reward import ModelReward, Reward
from mstar_pl.rewards.voting import answer_key, majority, weighted_vote
from mstar_pl.types import InputError, OutcomeName, Prompt, RolloutGroup, Score

Vote = Literal["weighted", "majority", "oracle"]


class PseudoAnswerReward:
    """Score responses to unlabelled prompts by the answer that most of them give.

    The responses whose answer wins the vote count as correct, the others as wrong, and keep their process
    scores, so that a selection operator chooses among the former. Where no response has an answer, all are
    undecided. Labelled prompts are scored by the inner reward alone.

    Args:
        reward: Reward of labelled prompts; for the weighted vote one with a process score.
        vote: `weighted`: each sample votes with its process score (the paper's); `majority`: all count the
            same; `oracle`: no vote, the answer that the data hide in `metadata` is taken.
    """

    def __init__(self, reward: Reward, vote: Vote = "weighted") -> None:
        self.reward = reward
        self.vote: Vote = vote

    @property
    def answers(self) -> Reward:
        """The answer check of labelled prompts alone."""
        return self.reward.answers if isinstance(self.reward, ModelReward) else self.reward

    def __call__(self, group: RolloutGroup) -> list[Score]:
        """Return one score a rollout."""
        if group.prompt.answer is not None:
            return self.reward(group)
        if self.vote == "oracle":
            return self.reward(replace(group, prompt=_revealed(group.prompt)))
        scores = self.reward(group)
        keys = [answer_key(score.extraction, group.prompt) for score in scores]
        winner = self._winner(keys, scores)
        return [
            replace(score, outcome=_outcome(key, winner)) for key, score in zip(keys, scores, strict=True)
        ]

    def wake(self, device: str) -> None:
        """Go to the accelerator, if the inner reward has a model."""
        if isinstance(self.reward, ModelReward):
            self.reward.wake(device)

    def sleep(self) -> None:
        """Leave it to others."""
        if isinstance(self.reward, ModelReward):
            self.reward.sleep()

    def _winner(self, keys: Sequence[str | None], scores: Sequence[Score]) -> str | None:
        if self.vote == "majority":
            return majority(keys)
        weights = [score.process for score in scores if score.process is not None]
        if len(weights) != len(scores):
            raise InputError(
                "PseudoAnswerReward weighs votes by process scores; give it a ProcessReward or vote: majority"
            )
        return weighted_vote(keys, weights)


def _outcome(key: str | None, winner: str | None) -> OutcomeName:
    if winner is None:
        return "undecided"
    return "correct" if key == winner else "wrong"


def _revealed(prompt: Prompt) -> Prompt:
    if (labelled := reveal(prompt)) is None:
        raise InputError(
            f"prompt {prompt.id!r} has no metadata.{HIDDEN_ANSWER} for the oracle; hide answers with "
            "mstar-pl data hide, or choose another vote"
        )
    return labelled
