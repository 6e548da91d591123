"""Hard prompts in the loop: more samples, more weight."""

from collections import Counter

import pytest

from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.types import InputError
from tests.loops.evolving import evolve, rollouts, transformers

ONE = {"trainer": {"max_epochs": 1}}


def test_each_solved_prompt_is_trained_on_as_often_as_asked(files, tmp_path):
    _, trainer = evolve(tmp_path, files, transformers, data={"min_per_prompt": 3}, **ONE)
    selected = {one.group.prompt.id: len(one.selected) for one in rollouts(tmp_path, 0) if one.selected}
    assert min(selected.values()) < 3
    trained = Counter(one.prompt.id for one in trainer.datamodule.example_sets["train"].examples)
    assert trained == {key: max(3, count) for key, count in selected.items()}


def test_rollouts_depend_on_the_second_chance(files, tmp_path):
    evolve(tmp_path, files, transformers, **ONE)
    before = rollouts(tmp_path, 0)
    evolve(tmp_path, files, transformers, second_chance=SecondChance(rounds=1), **ONE)
    assert len(list((tmp_path / "rollouts").glob("*stale*"))) == 1
    after = rollouts(tmp_path, 0)
    assert sum(bool(one.selected) for one in after) >= sum(bool(one.selected) for one in before)
    assert {len(one.group.rollouts) for one in after} == {4, 8}


def test_a_restart_without_a_process_reward_is_refused(files, tmp_path):
    with pytest.raises(InputError, match=r"ProcessReward, not AnswerReward"):
        evolve(tmp_path, files, transformers, second_chance=SecondChance(rounds=1, restart=True))
