"""SIGTERM in every phase of a run: it ends with the code that schedulers requeue, and goes on exactly."""

import os
import signal

import pytest
from lightning.pytorch import Callback

from mstar_pl.callbacks import BestPolicyExport, ResumeCheckpoint
from mstar_pl.data.store import RolloutStore
from mstar_pl.loops.interruption import Interrupted
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError
from tests.loops.evolving import evolve, rollouts
from tests.modules.test_policy import assert_same, state

TWO = {"trainer": {"max_epochs": 2}}


class Terminate(Callback):
    """Send SIGTERM at one point of training."""

    def __init__(self, hook, number=signal.SIGTERM):
        setattr(self, hook, lambda *_: self._send())
        self.left, self.number = 1, number

    def _send(self):
        if self.left:
            self.left = 0
            os.kill(os.getpid(), self.number)


def run(root, files, asked_of=None, number=signal.SIGTERM, callbacks=(), resume=None):
    """Two iterations; a signal comes while the engine answers its `asked_of`-th submission."""
    count = []

    class Asked(TransformersEngine):
        def submit(self, requests, progress=""):
            count.append(len(requests))
            if len(count) == asked_of:
                os.kill(os.getpid(), number)
            return super().submit(requests, progress)

    extra = [ResumeCheckpoint(), BestPolicyExport(), *callbacks]
    return evolve(root, files, Asked, callbacks=extra, resume=resume, **TWO)


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return root, *run(root, files)


def goes_on(root, files, whole):
    """Resume, and compare with the undisturbed run."""
    other, policy, trainer = whole
    resumed, second = run(root, files, resume="last")
    assert_same(state(resumed, second), state(policy, trainer))
    for iteration in range(2):
        assert rollouts(root, iteration) == rollouts(other, iteration)
    assert second.evaluation == trainer.evaluation
    exports = [(folder / "policy/model.safetensors").read_bytes() for folder in (root, other)]
    assert exports[0] == exports[1]


@pytest.mark.parametrize(
    ("when", "shards", "saved"),
    [
        ({"asked_of": 2}, 1, False),  # parity probe, then the first shard of the first measurement
        ({"asked_of": 4, "number": signal.SIGUSR1}, 2, False),
        ({"callbacks": [Terminate("on_train_batch_start")]}, 3, True),
        ({"callbacks": [Terminate("on_train_epoch_end")]}, 3, True),
    ],
    ids=["measurement", "rollouts", "training", "epoch end"],
)
def test_a_signal_ends_the_run_where_it_can_go_on(files, whole, tmp_path, when, shards, saved, capfd):
    with pytest.raises(Interrupted) as ended:
        run(tmp_path, files, **when)
    assert ended.value.code == 75
    assert "ending as soon as everything is saved" in capfd.readouterr().err
    assert (tmp_path / "checkpoints/last.ckpt").is_file() == saved
    store = RolloutStore(tmp_path / ("rollouts" if shards > 1 else "validation"))
    assert len(list(store.folder(0).glob("*.parquet"))) == shards
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, "put back"
    goes_on(tmp_path, files, whole)


def test_training_goes_on_between_two_optimizer_steps(files, whole, tmp_path):
    """Asked inside an accumulated step, it ends after it, not at the epoch's end."""
    with pytest.raises(Interrupted):
        run(tmp_path, files, callbacks=[Terminate("on_before_zero_grad")])
    import torch

    steps = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=False)["global_step"]
    assert steps == 1
    goes_on(tmp_path, files, whole)


def test_a_folder_belongs_to_one_run(files, tmp_path):
    from mstar_pl.data.durable import locked

    with locked(tmp_path), pytest.raises(InputError, match=rf"in use by process {os.getpid()} on"):
        run(tmp_path, files)
