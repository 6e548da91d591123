"""Hard prompts in the loop: more samples, more weight."""

from collections import Counter
from typing import ClassVar

import pytest

from mstar_pl.data.store import RolloutStore
from mstar_pl.loops import Validation
from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError
from tests.loops.evolving import evolve, rollouts, transformers

ONE = {"trainer": {"max_epochs": 1}}
CHANCE = SecondChance(rounds=1)


def test_each_solved_prompt_is_trained_on_as_often_as_asked(files, tmp_path):
    _, trainer = evolve(tmp_path, files, transformers, data={"min_per_prompt": 3}, **ONE)
    selected = {one.group.prompt.id: len(one.selected) for one in rollouts(tmp_path, 0) if one.selected}
    assert min(selected.values()) < 3
    trained = Counter(one.prompt.id for one in trainer.datamodule.example_sets["train"].examples)
    assert trained == {key: max(3, count) for key, count in selected.items()}


def test_what_does_not_fit_is_not_repeated(files, tmp_path):
    """The same rollouts with room for all of them, and for half."""
    _, roomy = evolve(tmp_path, files, transformers, data={"min_per_prompt": 3}, **ONE)
    whole = roomy.datamodule.example_sets["train"]
    room = sorted(whole.lengths)[len(whole) // 2]
    _, tight = evolve(tmp_path, files, transformers, data={"min_per_prompt": 3, "max_length": room}, **ONE)
    kept = tight.datamodule.example_sets["train"]
    lengths = dict(zip((one.prompt.id for one in whole.examples), whole.lengths, strict=True))
    assert Counter(one.prompt.id for one in kept.examples) == Counter(
        one.prompt.id for one in whole.examples if lengths[one.prompt.id] <= room
    )
    assert list(kept.lengths) == [lengths[one.prompt.id] for one in kept.examples]
    assert len(kept) < len(whole)


def test_measurements_have_no_second_chance(files, tmp_path):
    validation = Validation(num_samples=3)
    evolve(tmp_path, files, transformers, second_chance=CHANCE, validation=validation, **ONE)
    for store, count in (("validation", 1), ("dynamics", 3)):
        groups = list(RolloutStore(tmp_path / store).groups(0))
        assert {len(one.group.rollouts) for one in groups} == {count}
        assert any(score.outcome != "correct" for one in groups for score in one.scores)


def test_an_interrupted_iteration_goes_on_with_its_second_chances(files, tmp_path):
    class Crash(BaseException):
        pass

    class Failing(TransformersEngine):
        asked: ClassVar[list[int]] = []

        def submit(self, requests, progress=""):
            if requests[0].sampling.temperature > 0:
                Failing.asked.append(requests[0].first)
                if len(Failing.asked) == 4:
                    raise Crash
            return super().submit(requests, progress)

    with pytest.raises(Crash):
        evolve(tmp_path / "a", files, Failing, second_chance=CHANCE, **ONE)
    assert Failing.asked == [0, 4, 0, 4], "it crashed in the second chance of the second shard"
    evolve(tmp_path / "a", files, Failing, second_chance=CHANCE, **ONE)
    assert Failing.asked[4:] == [0, 4, 0, 4]
    evolve(tmp_path / "b", files, transformers, second_chance=CHANCE, **ONE)
    assert rollouts(tmp_path / "a", 0) == rollouts(tmp_path / "b", 0)


def test_rollouts_depend_on_the_second_chance(files, tmp_path):
    evolve(tmp_path, files, transformers, **ONE)
    before = rollouts(tmp_path, 0)
    evolve(tmp_path, files, transformers, second_chance=CHANCE, **ONE)
    assert len(list((tmp_path / "rollouts").glob("*stale*"))) == 1
    after = rollouts(tmp_path, 0)
    assert sum(bool(one.selected) for one in after) >= sum(bool(one.selected) for one in before)
    assert {len(one.group.rollouts) for one in after} == {4, 8}


def test_a_restart_without_a_process_reward_is_refused(files, tmp_path):
    with pytest.raises(InputError, match=r"ProcessReward, not AnswerReward"):
        evolve(tmp_path, files, transformers, second_chance=SecondChance(rounds=1, restart=True))
