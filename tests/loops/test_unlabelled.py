"""Unlabelled prompts in the loop: when they join, what they are trained on, what is refused."""

import math

import pytest

from mstar_pl.data.jsonl import read_prompts, write_jsonl
from mstar_pl.data.labelled import hide_answers
from mstar_pl.data.store import RolloutStore
from mstar_pl.rewards import AnswerReward
from mstar_pl.rewards.pseudo import PseudoAnswerReward
from mstar_pl.types import InputError, SamplingConfig
from tests.loops.evolving import evolve, rollouts, transformers

EPOCHS = 3
SETTINGS = {
    "reward": PseudoAnswerReward(AnswerReward(), "majority"),
    "sampling": SamplingConfig(num_samples=4, temperature=1.0, max_tokens=12, seed=5),
    "trainer": {"max_epochs": EPOCHS},
}


@pytest.fixture(scope="module")
def half(files, tmp_path_factory):
    """16 prompts, the answers of 8 hidden."""
    path = tmp_path_factory.mktemp("half") / "half.jsonl"
    prompts = hide_answers(read_prompts(files["train"])[:16], 50, seed=0)
    return {"train": str(write_jsonl(path, (prompt.to_json() for prompt in prompts))), "val": None}


def run(root, files, t_mixin, **settings):
    return evolve(
        root, files, transformers, **SETTINGS | {"data": {"interval": 50, "t_mixin": t_mixin}} | settings
    )


@pytest.mark.parametrize("t_mixin", [0, 50])
def test_unlabelled_prompts_join_after_their_share_of_the_training(half, tmp_path, t_mixin):
    run(tmp_path, half, t_mixin)
    unlabelled = {prompt.id for prompt in read_prompts(half["train"]) if prompt.answer is None}
    first = math.ceil(EPOCHS * t_mixin / 100)
    asked = [
        [one.group.prompt.id in unlabelled for one in rollouts(tmp_path, iteration)]
        for iteration in range(EPOCHS)
    ]
    assert [(len(one), sum(one)) for one in asked] == [
        (4, 0) if iteration < first else (8, 4) for iteration in range(EPOCHS)
    ]
    last = RolloutStore(tmp_path / "rollouts")
    trained = [example.prompt for example in last.examples(EPOCHS - 1)]
    assert any(prompt.answer is None for prompt in trained), "pseudo answers are trained on"
    metrics = last.manifest(EPOCHS - 1)["metrics"]
    assert metrics["pseudo/prompts"] == 4
    assert metrics["pseudo/agreement"] == 0 or metrics["pseudo/compared"] > 0
    assert "pseudo/prompts" not in last.manifest(0)["metrics"] or first == 0


def test_the_vote_and_the_reward_inside_are_what_rollouts_depend_on(half, tmp_path):
    rewards = [
        PseudoAnswerReward(AnswerReward(rules), vote)
        for rules, vote in [("default", "majority"), ("default", "oracle"), ("mathvista", "oracle")]
    ]
    for reward in rewards:
        run(tmp_path, half, 0, trainer={"max_epochs": 1}, reward=reward)
    assert len(list((tmp_path / "rollouts").glob("*stale*"))) == 2
    run(tmp_path, half, 0, trainer={"max_epochs": 1}, reward=rewards[-1])
    assert len(list((tmp_path / "rollouts").glob("*stale*"))) == 2


def labelled_alone(half, tmp_path):
    prompts = [prompt for prompt in read_prompts(half["train"]) if prompt.answer is not None]
    return {**half, "train": str(write_jsonl(tmp_path / "a.jsonl", (one.to_json() for one in prompts)))}


def test_contradictions_are_refused_before_anything_is_sampled(half, tmp_path):
    with pytest.raises(InputError, match=r"half\.jsonl: prompt .* has no answer"):
        run(tmp_path, half, None)
    with pytest.raises(InputError, match=r"set trainer\.evolution\.reward to mstar_pl\.rewards\.pseudo"):
        run(tmp_path, half, 0, reward=AnswerReward())
    with pytest.raises(InputError, match=r"a\.jsonl: no unlabelled prompt"):
        run(tmp_path, labelled_alone(half, tmp_path), 0)
    with pytest.raises(InputError, match=r"data\.t_mixin 100 is not a percentage in \[0, 100\)"):
        run(tmp_path, half, 100)
    assert not (tmp_path / "rollouts").exists()
