"""Sweeps of the sampling temperature: the choice, interruptions, refusals."""

import json
from dataclasses import replace

import pytest

from mstar_pl.callbacks import AdaptiveTemperature, ResumeCheckpoint
from mstar_pl.data.evolving import SelfEvolvingDataModule
from mstar_pl.data.store import RolloutStore
from mstar_pl.loops import SelfEvolvingTrainer, Validation
from mstar_pl.models import InternVL
from mstar_pl.models.export import export_process_reward
from mstar_pl.models.process_reward import StepReadOut
from mstar_pl.modules import PolicyModule
from mstar_pl.rewards import AnswerReward, TopK
from mstar_pl.rewards.process import ProcessReward
from mstar_pl.rewards.pseudo import PseudoAnswerReward
from mstar_pl.types import InputError, Score
from tests.callbacks.sweeping import (
    CANDIDATES,
    CONFIGURED,
    SAMPLES,
    SETTINGS,
    Halt,
    K,
    Recording,
    any_right,
    by_hand,
    reward_pass,
    run,
    temperatures_of,
)
from tests.engines import running
from tests.loops.evolving import rollouts, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """20 prompts to sample from, in intervals of 5, and 8 to measure on."""
    return write_files(tmp_path_factory.mktemp("minivista"), 20, 8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, files):
    """An uninterrupted run of three iterations with a sweep after each."""
    root = tmp_path_factory.mktemp("whole")
    adaptive = AdaptiveTemperature(every_n_iterations=1, temperatures=CANDIDATES)
    run(root, files, adaptive, ResumeCheckpoint())
    return root, adaptive.chosen


def test_the_candidate_with_the_highest_reward_pass_is_chosen(whole):
    root, chosen = whole
    curves = {iteration: by_hand(root, iteration, reward_pass) for iteration in (1, 2)}
    assert chosen == {iteration: best for iteration, (_, best) in curves.items()}
    assert any(len(set(curve.values())) > 1 for curve, _ in curves.values()), "temperatures differ"
    assert any(curve != by_hand(root, number, any_right)[0] for number, (curve, _) in curves.items())


def test_a_sweep_rules_the_next_iteration_and_none_follows_the_last(whole):
    root, chosen = whole
    assert temperatures_of(root, 3) == [CONFIGURED, chosen[1], chosen[2]]
    for iteration, temperature in enumerate([CONFIGURED, chosen[1], chosen[2]]):
        assert {one.group.temperature for one in rollouts(root, iteration)} == {temperature}
    assert {folder.name for folder in (root / "sweep").iterdir()} == {"iteration-0001", "iteration-0002"}


def test_a_sweep_asks_for_each_prompt_at_all_candidates(whole):
    root, _ = whole
    manifest = RolloutStore(root / "sweep").manifest(1)
    assert manifest["num_rows"] == 8 * len(CANDIDATES) * SAMPLES
    samplings = json.loads(manifest["fingerprint"])["sampling"]
    assert [sampling["temperature"] for sampling in samplings] == sorted(CANDIDATES)
    for temperature in CANDIDATES:
        (mean,) = [v for n, v in manifest["metrics"].items() if n == f"T{temperature:g}/reward_pass@{K}"]
        assert mean == pytest.approx(by_hand(root, 1, reward_pass)[0][temperature])


def test_every_second_iteration_and_at_the_start(files, tmp_path):
    adaptive = AdaptiveTemperature(every_n_iterations=2, temperatures=CANDIDATES, at_start=True)
    run(tmp_path, files, adaptive)
    assert adaptive.chosen == {number: by_hand(tmp_path, number, reward_pass)[1] for number in (0, 2)}
    first, second = adaptive.chosen.values()
    assert temperatures_of(tmp_path, 3) == [first, first, second]


def test_a_sweep_cut_short_goes_on_with_the_missing_shard(whole, files, tmp_path):
    """A kill in the second sweep: the first choice comes from the checkpoint, the second is made again."""
    root, chosen = whole
    engines = []

    def crashing(lmm):
        engines.append(Recording(lmm, crash_at=6 if not engines else None))
        return engines[-1]

    adaptive = AdaptiveTemperature(every_n_iterations=1, temperatures=CANDIDATES)
    with pytest.raises(Recording.Crash):
        run(tmp_path, files, adaptive, ResumeCheckpoint(), engine=crashing, shard_prompts=3)
    assert adaptive.chosen == {1: chosen[1]}
    resumed = AdaptiveTemperature(every_n_iterations=1, temperatures=CANDIDATES)
    run(tmp_path, files, resumed, ResumeCheckpoint(), engine=crashing, resume="last", shard_prompts=3)
    assert [len(prompts) for prompts in engines[0].sweeps] == [3, 3, 2, 3, 3, 2]
    assert engines[1].sweeps == engines[0].sweeps[5:], "the shard that was lost, and nothing else"
    assert resumed.chosen == chosen
    assert temperatures_of(tmp_path, 3) == temperatures_of(root, 3)
    for name in ("sweep", "rollouts"):
        assert not list((tmp_path / name).glob("*stale*"))
    assert list(RolloutStore(tmp_path / "sweep").groups(2)) == list(RolloutStore(root / "sweep").groups(2))
    assert rollouts(tmp_path, 2) == rollouts(root, 2)


class AllRight:
    """A reward that likes every response the same."""

    def __call__(self, group):
        return [Score(outcome="correct", process=0.5) for _ in group.rollouts]


@pytest.mark.parametrize("metric", ["reward_pass", "pass"])
def test_of_equals_the_lower_temperature_is_chosen(files, tmp_path, metric):
    adaptive = AdaptiveTemperature(temperatures=CANDIDATES, metric=metric, at_start=True)
    with pytest.raises(Halt.Halted):
        run(tmp_path, files, adaptive, Halt(), reward=AllRight())
    assert adaptive.chosen == {0: 0.4}


def test_pass_at_k_needs_no_process_reward(files, tmp_path):
    adaptive = AdaptiveTemperature(temperatures=CANDIDATES, metric="pass", at_start=True)
    with pytest.raises(Halt.Halted):
        run(tmp_path, files, adaptive, Halt(), reward=AnswerReward())
    curve, best = by_hand(tmp_path, 0, any_right)
    assert adaptive.chosen == {0: best}
    assert max(curve.values()) > 0


def test_the_first_validation_prompts_are_enough(files, tmp_path):
    adaptive = AdaptiveTemperature(temperatures=CANDIDATES, metric="pass", at_start=True)
    few = replace(SETTINGS["validation"], num_prompts=2)
    with pytest.raises(Halt.Halted):
        run(tmp_path, files, adaptive, Halt(), reward=AllRight(), validation=few)
    asked = {one.group.prompt.id for one in RolloutStore(tmp_path / "sweep").groups(0)}
    assert asked == {"minivista-0-val-0", "minivista-0-val-1"}


class Unranked:
    """A reward without a process score."""

    def __call__(self, group):
        return [Score(outcome="correct") for _ in group.rollouts]


class Unsure:
    """A reward that cannot decide."""

    def __call__(self, group):
        return [Score(outcome="undecided", process=0.5) for _ in group.rollouts]


@pytest.mark.parametrize(
    ("reward", "metric", "name"),
    [
        (Unranked(), "reward_pass", r"reward_pass@2"),
        (Unsure(), "pass", r"pass@4"),
    ],
)
def test_a_sweep_that_measures_nothing_is_refused(files, tmp_path, reward, metric, name):
    adaptive = AdaptiveTemperature(temperatures=CANDIDATES, metric=metric, at_start=True)
    with pytest.raises(InputError, match=f"iteration 0: the sweep found no {name}"):
        run(tmp_path, files, adaptive, Halt(), reward=reward)
    assert adaptive.chosen == {}


class UnsureOfValidation(AllRight):
    """A reward that cannot decide on the validation prompts."""

    def __call__(self, group):
        return Unsure()(group) if "-val-" in group.prompt.id else super().__call__(group)


def test_dynamics_of_undecided_prompts_are_left_out(files, tmp_path):
    run(tmp_path, files, reward=UnsureOfValidation(), epochs=1)
    assert len(rollouts(tmp_path, 0)) == 5
    assert RolloutStore(tmp_path / "dynamics").manifest(1)["metrics"].keys() == {
        "rollout/seconds",
        "reward/seconds",
        "rollout/tokens_per_second",
    }


def no_engine(lmm):
    raise AssertionError("refused before anything starts")


@pytest.mark.parametrize(
    ("paths", "settings", "message"),
    [
        ({"val": None}, {}, r"data\.val_prompts"),
        ({}, {"reward": AnswerReward()}, r"metric: pass"),
        ({}, {"reward": PseudoAnswerReward(AnswerReward(), vote="majority")}, r"metric: pass"),
        ({}, {"validation": Validation(num_samples=0)}, r"validation\.num_samples above 0"),
    ],
    ids=["no validation prompts", "no process reward", "no process votes", "no samples"],
)
def test_a_run_that_lacks_what_a_sweep_needs_is_refused(files, tmp_path, paths, settings, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path, files | paths, AdaptiveTemperature(), engine=no_engine, **settings)


def test_a_trainer_without_evolution_is_refused(files, tmp_path):
    trainer = SelfEvolvingTrainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=[AdaptiveTemperature(metric="pass")],
    )
    with pytest.raises(InputError, match=r"needs trainer\.evolution"):
        trainer.fit(
            PolicyModule(InternVL(question_style="plain")),
            SelfEvolvingDataModule(files["train"], files["val"]),
        )


@pytest.mark.parametrize(
    "options",
    [
        {"every_n_iterations": 0},
        {"temperatures": [0.0, 1.0]},
        {"temperatures": [-0.3]},
        {"temperatures": [1.0, 2.1]},
    ],
)
def test_values_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=r"at least 1, temperatures in \(0, 2\]"):
        AdaptiveTemperature(**options)


def test_the_candidates_are_those_of_the_paper_unless_given():
    assert AdaptiveTemperature().temperatures == [round(0.3 + 0.1 * n, 1) for n in range(14)]


@pytest.fixture
def vllm():
    with running(InternVL(question_style="plain"), loaded=False) as engine:
        yield engine


@pytest.mark.engine
def test_two_iterations_with_the_real_engine_and_a_process_reward_model(vllm, tmp_path):
    lmm = vllm.lmm
    model = lmm.load_model()
    path = str(export_process_reward(lmm, model, StepReadOut(lmm, model), tmp_path / "mprm"))
    adaptive = AdaptiveTemperature(every_n_iterations=1, temperatures=CANDIDATES)
    run(
        tmp_path,
        write_files(tmp_path, 32, 32),
        adaptive,
        engine=lambda _: vllm,
        epochs=2,
        reward=ProcessReward(path),
        selection=TopK(2),
        sampling=replace(SETTINGS["sampling"], num_samples=8, max_tokens=32),
        data={"interval": 50, "batch_size": 8, "micro_batch_size": 8, "max_length": 256},
    )
    curve, best = by_hand(tmp_path, 1, reward_pass)
    assert adaptive.chosen == {1: best}
    assert len(set(curve.values())) > 1
    assert temperatures_of(tmp_path, 2) == [CONFIGURED, best]
    judge = ProcessReward(path)
    for one in [*rollouts(tmp_path, 0), *RolloutStore(tmp_path / "sweep").groups(1)]:
        texts = [rollout.text for rollout in one.group.rollouts]
        expected = judge.score(one.group.prompt, list(dict.fromkeys(texts)))
        assert [score.process for score in one.scores] == pytest.approx([expected[text] for text in texts])
        assert len(one.selected) <= 2
