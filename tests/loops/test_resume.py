"""The loop with the real engine: what an iteration leaves behind, and resumption from every checkpoint."""

import json
import shutil
from collections import Counter

import pytest
import torch

from mstar_pl.callbacks import BestPolicyExport
from mstar_pl.data.store import RolloutStore
from mstar_pl.models import InternVL, adapter_for
from tests.loops.evolving import (
    ITERATIONS,
    KeepAll,
    evolve,
    rollouts,
)
from tests.modules.test_policy import assert_same, state


@pytest.fixture(scope="module")
def engine():
    """One real engine for all runs."""
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    started = VLLMEngine(InternVL(question_style="plain"), max_model_len=256, max_num_seqs=64)
    return lambda lmm: started


@pytest.fixture(scope="module")
def whole(tmp_path_factory, files, engine):
    """An uninterrupted run of four iterations that keeps every checkpoint."""
    root = tmp_path_factory.mktemp("whole")
    policy, trainer = evolve(root, files, engine, callbacks=[KeepAll(every_n_steps=1), BestPolicyExport()])
    return root, policy, trainer


@pytest.mark.engine
def test_iterations_differ_in_length_and_use_the_latest_weights(whole):
    root, _, trainer = whole
    store = RolloutStore(root / "rollouts")
    manifests = [store.manifest(iteration) for iteration in range(ITERATIONS)]
    assert len({manifest["metrics"]["reward/selected"] for manifest in manifests}) > 1, "unequal epochs"
    steps = [json.loads(manifest["fingerprint"])["policy_step"] for manifest in manifests]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    for iteration, step in enumerate(steps):
        groups = rollouts(root, iteration)
        assert {group.group.weight_version for group in groups} == {step}
        assert len(groups) == 24
        selected = [
            (one.scores[k].outcome, one.group.rollouts[k].finish_reason)
            for one in groups
            for k in one.selected
        ]
        assert set(selected) == {("correct", "stop")}
    ids = [{one.group.prompt.id for one in rollouts(root, iteration)} for iteration in range(ITERATIONS)]
    assert len(set.union(*ids)) == 96, "four intervals of 25 % are the whole set"
    examples = [len(store.examples(iteration)) for iteration in range(ITERATIONS)]
    assert trainer.global_step == sum(-(-number // 4) for number in examples)


@pytest.mark.engine
def test_resuming_any_checkpoint_equals_the_uninterrupted_run(whole, files, engine, tmp_path):
    root, policy, trainer = whole
    checkpoints = sorted(path.name for path in (root / "checkpoints").glob("*-*.ckpt"))
    epochs = Counter(name.partition("-")[0] for name in checkpoints)
    assert len(epochs) == ITERATIONS, "at the end of each epoch"
    assert len(checkpoints) >= 2 * ITERATIONS, "inside of epochs, too"
    for name in checkpoints:
        copy = tmp_path / name
        shutil.copytree(root, copy)
        # What came after the checkpoint must be made again, not found.
        loops = torch.load(copy / "checkpoints" / name, weights_only=False)["loops"]["fit_loop"]
        progress = loops["epoch_progress"]["current"]
        kept = progress["ready"] if progress["ready"] > progress["processed"] else progress["processed"]
        for iteration in range(kept, ITERATIONS):
            shutil.rmtree(copy / "rollouts" / f"iteration-{iteration:04d}")
        resumed, second = evolve(
            copy,
            files,
            engine,
            callbacks=[KeepAll(every_n_steps=1), BestPolicyExport()],
            resume=str(copy / "checkpoints" / name),
        )
        assert_same(state(resumed, second), state(policy, trainer))
        loop, other = trainer.fit_loop, second.fit_loop
        assert loop.generation.temperature == other.generation.temperature
        schedules = [run.lr_scheduler_configs[0].scheduler.state_dict() for run in (trainer, second)]
        assert schedules[0] == schedules[1]
        for iteration in range(ITERATIONS):
            assert rollouts(copy, iteration) == rollouts(root, iteration), (name, iteration)


@pytest.mark.engine
def test_the_best_policy_is_exported(whole):
    root, _, trainer = whole
    best = next(callback for callback in trainer.callbacks if isinstance(callback, BestPolicyExport))
    assert 0 < best.best_step <= trainer.global_step
    assert best.best_correct >= trainer.evaluation.num_correct
    exported = adapter_for(str(root / "policy")).load_model().state_dict()
    (checkpoint,) = (root / "checkpoints").glob(f"*-{best.best_step}.ckpt")
    weights = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert all(torch.equal(value, weights[f"model.{name}"]) for name, value in exported.items())
    assert f"Optimizer steps: {best.best_step}." in (root / "policy" / "README.md").read_text()


@pytest.mark.engine
def test_rollouts_of_another_policy_are_set_aside(whole, files, engine, tmp_path):
    """From an older checkpoint with other batches: iteration 2 samples the same policy, 3 another one."""
    root, _, _ = whole
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    step = json.loads(RolloutStore(root / "rollouts").manifest(2)["fingerprint"])["policy_step"]
    (end,) = (copy / "checkpoints").glob(f"*-{step}.ckpt")
    data = {"batch_size": 8, "micro_batch_size": 8}
    evolve(copy, files, engine, callbacks=[KeepAll(), BestPolicyExport()], resume=str(end), data=data)
    assert rollouts(copy, 2) == rollouts(root, 2)
    assert {folder.name for folder in (copy / "rollouts").glob("*stale*")} == {"iteration-0003.stale-1"}
    assert rollouts(copy, 3) != rollouts(root, 3)
