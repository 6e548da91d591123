"""Prompts of which nothing was selected: what they are given, and that it is part of the same draws."""

from dataclasses import replace

import pytest

from mstar_pl.data.format import split_steps
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.data.minivista import write_split
from mstar_pl.data.store import RolloutStore
from mstar_pl.rewards import AllCorrect, AnswerReward
from mstar_pl.rollouts.bootstrap import BootstrapConfig
from mstar_pl.rollouts.pipeline import RolloutPipeline
from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.types import InputError, SamplingConfig

SAMPLING = SamplingConfig(num_samples=2, temperature=1.0, max_tokens=48, seed=2)


class Liking(AnswerReward):
    """Likes the first steps that have an even number of letters."""

    def step_scores(self, prompt, responses):
        found = [split_steps(response) for response in responses]
        return [[0.9 * (len(step) % 2 == 0) if not n else 0.0 for n, step in enumerate(own)] for own in found]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return read_prompts(write_split(tmp_path_factory.mktemp("minivista"), "train", 16, solutions=False))


def sample(folder, engine, prompts, reward=None, sampling=SAMPLING, **chance):
    """Return the groups of a run by prompt, and the metrics."""
    store = RolloutStore(folder)
    pipeline = RolloutPipeline(store, reward or AnswerReward(), AllCorrect(), 8, SecondChance(**chance))
    metrics = pipeline.run(engine, prompts, [sampling], 0, "f")["metrics"]
    return {one.group.prompt.id: one for one in store.groups(0)}, metrics


def test_more_samples_are_the_next_ones_of_the_same_draws(engine, prompts, tmp_path):
    first, metrics = sample(tmp_path / "plain", engine, prompts)
    more, more_metrics = sample(tmp_path / "more", engine, prompts, rounds=2)
    six = SamplingConfig(num_samples=6, temperature=1.0, max_tokens=48, seed=2)
    all_at_once, _ = sample(tmp_path / "six", engine, prompts, sampling=six)
    assert {len(one.group.rollouts) for one in more.values()} == {2, 4, 6}
    for key, one in more.items():
        count = len(one.group.rollouts)
        assert one.group.rollouts == all_at_once[key].group.rollouts[:count]
        assert one.group.rollouts[:2] == first[key].group.rollouts
        assert (count == 2) == bool(first[key].selected)
        assert count == 6 or one.selected
    assert more_metrics["reward/solved_prompts"] > metrics["reward/solved_prompts"]
    assert more_metrics["rollout/samples"] == sum(len(one.group.rollouts) for one in more.values())
    for name in ("reward/pass@1", "reward/pass@2"):
        assert more_metrics[name] == metrics[name], "of the samples that all prompts had"


def test_a_restart_continues_a_liked_beginning(engine, prompts, tmp_path):
    explaining = BootstrapConfig(style="plain", instruction="Explain the answer.")  # in steps, unlike answers
    asked = [replace(explaining.condition(prompt), answer="zero", answer_type="text") for prompt in prompts]
    again, _ = sample(tmp_path, engine, asked, Liking(), rounds=1, restart=True)
    restarted = 0
    for one in again.values():
        rollouts = one.group.rollouts
        bodies = [split_steps(rollout.text) for rollout in rollouts]
        liked = [body[0] for body in bodies[:2] if len(body) > 2 and len(body[0]) % 2 == 0]
        if not liked:
            continue
        restarted += 1
        for rollout, body in zip(rollouts[2:], bodies[2:], strict=True):
            assert body[0] == liked[0]
            assert engine.lmm.decode(list(rollout.token_ids)).strip() == rollout.text.strip()
    assert restarted > 1


@pytest.mark.parametrize("wrong", [{"rounds": -1}, {"threshold": 1.0}, {"restart": True}])
def test_contradictions_are_refused(wrong):
    with pytest.raises(InputError, match=rf"second_chance\.{next(iter(wrong))}"):
        SecondChance(**wrong)
