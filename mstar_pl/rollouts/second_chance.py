"""A second chance for prompts of which nothing was selected: more samples, also from a good beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mstar_pl.data.collate import Encoder, is_plain
from mstar_pl.data.format import beginning, split_steps
from mstar_pl.rewards.reward import StepReward
from mstar_pl.rollouts.engine import Request
from mstar_pl.types import Example, InputError, RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondChance:
    """More samples for the prompts of an iteration of which no response was selected.

    Without them training learns ever more of what the policy can do already: easy prompts have many correct
    responses, hard ones none (arXiv 2510.26474). Which steps are good is judged by the process reward model.

    Attributes:
        rounds: How often such a prompt is given `num_samples` more; 0 never.
        restart: Continue the beginning of a response whose steps the process reward model likes, where there
            is one, instead of starting from nothing.
        threshold: Least process score of a step that is liked.
    """

    rounds: int = 0
    restart: bool = False
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.rounds < 0:
            raise InputError(f"second_chance.rounds {self.rounds} must be 0 or more")
        if self.restart and not self.rounds:
            raise InputError("second_chance.restart needs second_chance.rounds of at least 1")
        if not 0 < self.threshold < 1:
            raise InputError(f"second_chance.threshold {self.threshold} must be between 0 and 1")

    def request(self, group: RolloutGroup, first: Request, judge: object, encoder: Encoder) -> Request:
        """Return the request for the next samples of a prompt.

        Args:
            group: Its rollouts so far.
            first: The request that the first of them answered.
            judge: The reward; asked for step scores where `restart` is set.
            encoder: Adapter of the policy.
        """
        prefix = self._prefix(group, judge, encoder) if self.restart else ""
        return replace(first, prefix=prefix, first=len(group.rollouts))

    def _prefix(self, group: RolloutGroup, judge: object, encoder: Encoder) -> str:
        assert isinstance(judge, StepReward)
        texts = [
            text
            for text in dict.fromkeys(rollout.text for rollout in group.rollouts)
            if is_plain(encoder, Example(prompt=group.prompt, response=text))
        ]
        found = good_beginning(judge.step_scores(group.prompt, texts), self.threshold) if texts else None
        return beginning(split_steps(texts[found[0]]), found[1]) if found else ""


def good_beginning(scores: Sequence[Sequence[float]], threshold: float) -> tuple[int, int] | None:
    """Return which of some wrong responses begins with the most liked steps, and how many to keep.

    The answer, its last step, is not kept, nor is the step before it: where all others are liked, one of them
    is wrong nevertheless, and the one that leads to the answer is the likeliest. Of several responses it is
    the one whose least liked step scores highest, then the first.

    Args:
        scores: Scores of the steps, by response.
        threshold: Least score of a liked step.

    Returns:
        Index and number of steps, or None where no response begins with a liked step.

    >>> good_beginning([[0.9, 0.2, 0.9, 0.9], [0.9, 0.6, 0.9, 0.1], [0.7, 0.9, 0.9, 0.9]], 0.5)
    (2, 2)
    >>> good_beginning([[0.4, 0.9, 0.9], [0.9, 0.9]], 0.5) is None
    True
    """
    best: tuple[int, float, int] | None = None
    for index, steps in enumerate(scores):
        body = steps[:-2]
        count = next((place for place, score in enumerate(body) if score < threshold), len(body))
        if count:
            best = max(best or (0, 0.0, 0), (count, min(body[:count]), -index))
    return None if best is None else (-best[2], best[0])


def extended(group: RolloutGroup, more: RolloutGroup, prefix: str) -> RolloutGroup:
    """Return a group with further rollouts behind its own.

    Args:
        group: The group.
        more: The answer to a later request of the same prompt.
        prefix: Beginning of the response that the request gave; what was sampled lacks it.
    """
    length = len(group.prompt_token_ids)
    assert more.prompt_token_ids[:length] == group.prompt_token_ids, "the prefix changed the prompt's tokens"
    given = more.prompt_token_ids[length:]
    whole = tuple(
        replace(rollout, text=prefix + rollout.text, token_ids=given + rollout.token_ids)
        for rollout in more.rollouts
    )
    return replace(group, rollouts=group.rollouts + whole)
