"""The folders of a run: what it refuses to overwrite, finds again, and leaves alone."""

from types import SimpleNamespace

import pytest
from lightning.pytorch import Callback

from mstar_pl.callbacks import ResumeCheckpoint
from mstar_pl.data.store import RolloutStore
from mstar_pl.loops import Evolution, SelfEvolvingTrainer
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError
from tests.loops.evolving import evolve, rollouts

TWO = {"max_epochs": 2}


class EndsInside(Callback):
    """Stops inside the second epoch, as `max_time` does."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.current_epoch == 1 and batch_idx >= 2


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    policy, trainer = evolve(root, files, TransformersEngine, callbacks=[ResumeCheckpoint()], trainer=TWO)
    return root, policy.state_dict(), trainer.global_step


def test_a_run_is_not_overwritten_by_another(whole, files):
    root, *_ = whole
    before = (root / "checkpoints/last.ckpt").read_bytes()
    with pytest.raises(InputError, match=r"last\.ckpt: a run is in this folder.*--ckpt_path last"):
        evolve(root, files, TransformersEngine, callbacks=[ResumeCheckpoint()], trainer=TWO)
    assert (root / "checkpoints/last.ckpt").read_bytes() == before


def test_a_dry_run_leaves_the_run_in_its_folder_alone(whole, files):
    root, *_ = whole
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    store = {"store": str(root / "rollouts")}
    evolve(root, files, TransformersEngine, data=store, trainer={"fast_dev_run": True})
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (root / "fast_dev_run/rollouts/iteration-0000/manifest.json").is_file()


def test_a_run_that_is_stopped_inside_an_epoch_loses_no_step_of_it(whole, files, tmp_path):
    _, weights, steps = whole
    options = {"files": files, "engine": TransformersEngine, "trainer": TWO}
    _, stopped = evolve(tmp_path, callbacks=[EndsInside(), ResumeCheckpoint()], **options)
    assert stopped.global_step < steps
    policy, trainer = evolve(tmp_path, callbacks=[ResumeCheckpoint()], resume="last", **options)
    assert trainer.global_step == steps
    assert all((policy.state_dict()[name] == weight).all() for name, weight in weights.items())


def test_a_checkpoint_that_was_moved_aside_is_found(tmp_path):
    checkpoint, trainer = ResumeCheckpoint(), SimpleNamespace(default_root_dir=tmp_path)
    assert checkpoint._find_last_checkpoints(trainer) == set()
    aside = tmp_path / "checkpoints/.last.ckpt.all.old"
    aside.mkdir(parents=True)
    assert checkpoint._find_last_checkpoints(trainer) == {str(aside)}
    (tmp_path / "checkpoints/last.ckpt").mkdir()
    assert checkpoint._find_last_checkpoints(trainer) == {str(tmp_path / "checkpoints/last.ckpt")}


def test_runs_whose_stores_lie_side_by_side_measure_apart(files, tmp_path):
    for name in "ab":
        store = {"store": str(tmp_path / "big" / name), "interval": 10}
        evolve(tmp_path / name, files, TransformersEngine, data=store, trainer={"max_epochs": 1})
        assert RolloutStore(tmp_path / name / "validation").manifest(1) is not None
    assert not rollouts(tmp_path / "a", 0)
    assert [path.name for path in sorted((tmp_path / "big").iterdir())] == ["a", "b"]


@pytest.mark.parametrize(
    "options",
    [{"shard_prompts": 0}, {"shard_prompts": -1}, {"engine_timeout": 0.0}, {"engine_timeout": -1.0}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(InputError, match="shard_prompts must be at least 1, engine_timeout above 0"):
        Evolution(TransformersEngine, **options)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook_find_unused_parameters_true"])
def test_processes_that_are_forked_are_refused(strategy):
    with pytest.raises(InputError, match="set ddp"):
        SelfEvolvingTrainer(strategy=strategy, accelerator="cpu", devices=2)
