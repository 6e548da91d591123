"""The warm-up's solutions: a base model explains answers that it is given (arXiv 2412.17451, section 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mstar_pl.data.format import (
    ANSWER_CONDITION,
    ANSWER_HEADING,
    STEP_SEPARATOR,
    QuestionStyle,
    render_answer_conditioned,
    split_answer,
    written_answer,
)
from mstar_pl.data.store import RolloutStore
from mstar_pl.rewards.answer import Rules
from mstar_pl.rewards.reward import AnswerReward, Reward
from mstar_pl.rewards.selection import candidates
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.rollouts.pipeline import RolloutPipeline
from mstar_pl.rollouts.summary import summarise
from mstar_pl.types import (
    Example,
    InputError,
    Prompt,
    RolloutGroup,
    SamplingConfig,
    Score,
    ScoredGroup,
)

_GIVEN = r"(?:given|provided|supplied|stated|known|reference|gold|ground[- ]truth|expected|hinted)"
_LEAK = re.compile(
    rf"\b(?:{_GIVEN}|given the) (?:final |correct |right )?answer\b"
    r"|\b(?:provided|supplied|reference|gold|ground[- ]truth) (?:solution|result)\b"
    r"|\b(?:told|said|mentioned|stated)\b[^.\n]{0,30}\bthe answer\b|\banswer (?:that )?you\b"
    rf"|\banswer\b[^.\n]{{0,20}}\b(?:is|was|were|has been|been|as) (?:already )?{_GIVEN}\b"
    rf"|\banswer (?:{_GIVEN}|above|in the (?:question|prompt))\b"
    r"|\b(?:already|do) know (?:that )?the (?:final |correct |right )?answer\b"
    r"|\b(?:since|because|given that|knowing that|as) the (?:final |correct |right )?answer (?:is|was)\b"
    r"|\b(?:match|agree|confirm|align|consistent|accord|correspond)\w*(?: (?:with|to))? "
    r"the (?:final |correct |right )?answer\b"
    r"|\b(?:according to|based on|from|per) the (?:final |correct |right )?answer\b",
    re.IGNORECASE,
)


def find_leak(response: str) -> str | None:
    """Return the words by which a response betrays that it was given the answer, None if it does not.

    A heuristic for English: it takes phrases that hardly occur in a solution found without the answer.

    >>> find_leak("4 + 2 = 6, which matches the given answer."), find_leak("So the correct answer is B.")
    ('given answer', None)
    """
    found = _LEAK.search(response)
    return found[0] if found else None


def with_answer_part(response: str, prompt: Prompt) -> str:
    r"""Return a correct response that ends as the format wants: with `# Answer` and the answer.

    >>> with_answer_part("4 red.\n\nSo it is 4.", Prompt(id="1", question="How many?", answer="4"))
    '4 red.\n\nSo it is 4.\n\n# Answer\n\n4'
    """
    if split_answer(response)[1] is not None:
        return response.strip()
    return STEP_SEPARATOR.join([response.strip(), ANSWER_HEADING, written_answer(prompt)])


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapConfig:
    """How explanations are asked for, and which are kept.

    Attributes:
        style: How a question is written.
        instruction: What follows question and answer.
        max_per_prompt: Most responses kept of a prompt.
        rules: How answers are compared; see `mstar_pl.rewards.AnswerReward`.
    """

    style: QuestionStyle = "mathvista"
    instruction: str = ANSWER_CONDITION
    max_per_prompt: int = 1
    rules: Rules = "default"

    def __post_init__(self) -> None:
        """Refuse what keeps nothing."""
        if self.max_per_prompt < 1:
            raise InputError("max_per_prompt must be at least 1")

    def condition(self, prompt: Prompt) -> Prompt:
        """Return a prompt whose question tells the answer and asks for the reasoning.

        Its question is the whole text of the user turn: write it with an adapter whose `question_style` is
        `plain`, which adds nothing.
        """
        text = render_answer_conditioned(prompt, self.style, self.instruction)
        plain: dict[str, Any] = {"choices": None, "unit": None, "query": None, "precision": None}
        return replace(prompt, question=text, question_type="free_form", answer_type="text", **plain)


@dataclass(frozen=True, slots=True)
class ConditionedReward:
    """Score responses to conditioned prompts against the labelled prompts that they were made of.

    Attributes:
        prompts: The labelled prompts by id.
        reward: What a response is worth.
    """

    prompts: Mapping[str, Prompt]
    reward: Reward

    def __call__(self, group: RolloutGroup) -> list[Score]:
        """Return one score a rollout."""
        return self.reward(replace(group, prompt=self.prompts[group.prompt.id]))


@dataclass(frozen=True, slots=True)
class Untold:
    """Keep the first correct, finished, distinct responses that do not betray the answer.

    Attributes:
        k: Most responses of a prompt.
    """

    k: int = 1

    def __call__(self, group: RolloutGroup, scores: Sequence[Score]) -> tuple[int, ...]:
        """Return their indices."""
        found = candidates(group, scores)
        return tuple(index for index in found if find_leak(group.rollouts[index].text) is None)[: self.k]


def summarise_bootstrap(groups: Iterable[ScoredGroup]) -> dict[str, float]:
    """Return the scalars of an iteration, and how many usable responses betrayed the answer."""
    kept = list(groups)
    leaks = sum(
        find_leak(one.group.rollouts[index].text) is not None
        for one in kept
        for index in candidates(one.group, one.scores)
    )
    return summarise(kept) | {"bootstrap/leaks": float(leaks)}


def explain(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    config: BootstrapConfig,
    folder: Path,
    fingerprint: str,
    shard: int = 256,
) -> tuple[dict[str, Any], list[Example]]:
    """Let a policy explain the answers of prompts, and return the manifest and the explanations to train on.

    Args:
        engine: Engine with the policy loaded; its adapter's `question_style` is `plain`.
        prompts: Labelled prompts.
        sampling: How to sample.
        config: How to ask, and what to keep.
        folder: Rollout store; an interrupted call goes on there.
        fingerprint: What the responses depend on.
        shard: Prompts of one shard.

    Raises:
        InputError: No response can be used.
    """
    labelled = {prompt.id: prompt for prompt in prompts}
    store = RolloutStore(folder)
    reward = ConditionedReward(labelled, AnswerReward(config.rules))
    pipeline = RolloutPipeline(store, reward, Untold(config.max_per_prompt), shard)
    asked = [config.condition(prompt) for prompt in prompts]
    manifest = pipeline.run(engine, asked, [sampling], 0, fingerprint, summarise_bootstrap, "explaining")
    if not manifest["metrics"]["reward/selected"]:
        raise InputError(
            f"none of {manifest['num_rows']} responses can be used (Pass@1 "
            f"{manifest['metrics'].get('reward/pass@1', 0):.3f}); read {folder}, and change the instruction"
        )
    told = ((labelled[one.prompt.id], one.response) for one in store.examples(0))
    return manifest, [
        Example(prompt=prompt, response=with_answer_part(response, prompt)) for prompt, response in told
    ]
