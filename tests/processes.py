"""Runs of several processes: how they are started, killed and compared."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from lightning.pytorch import Callback
from safetensors.torch import load_file

from mstar_pl.data.store import RolloutStore

ROOT = Path(__file__).resolve().parent.parent
STORES = ("rollouts", "validation", "dynamics")
TIMES = ("seconds", "tokens_per_second")


class SignalAt(Callback):
    """Send a signal to a process of the run as soon as it is in a phase.

    Args:
        rank: The process.
        phase: How its phase begins (`mstar_pl.loops.heartbeat`).
        number: The signal.
    """

    def __init__(self, rank: int, phase: str, number: int = signal.SIGKILL) -> None:
        self.rank = rank
        self.phase = phase
        self.number = number

    def setup(self, trainer, pl_module, stage) -> None:
        if trainer.global_rank == self.rank:
            threading.Thread(target=self._wait, args=[trainer.heartbeat], daemon=True).start()

    def _wait(self, heartbeat) -> None:
        while not heartbeat.phase.startswith(self.phase):
            time.sleep(0.002)
        os.kill(os.getpid(), self.number)


def fit(data, out, *options, epochs=2):
    """Return the command of a small run with the real engine."""
    evolve = "--trainer.evolution.init_args"
    text = (
        "fit --config configs/experiments/continuous.yaml --trainer configs/trainer/cpu.yaml "
        f"--trainer.default_root_dir {out} --trainer.enable_progress_bar false --trainer.logger false "
        f"--trainer.max_epochs {epochs} --model.init_args.lmm.init_args.path embedded "
        f"--data.init_args.prompts {data}/train.jsonl --data.init_args.val_prompts {data}/val.jsonl "
        "--data.init_args.interval 50 --data.init_args.batch_size 4 --data.init_args.micro_batch_size 2 "
        f"{evolve}.validation.num_samples 4 {evolve}.sampling.num_samples 4 {evolve}.sampling.max_tokens 40 "
        f"{evolve}.shard_prompts 4 {evolve}.max_degenerate null {evolve}.engine.init_args.max_model_len 256 "
        "--trainer.callbacks=ResumeCheckpoint --trainer.callbacks.every_n_steps 1 "
        "--trainer.callbacks+=PolicyExport"
    )
    return ["-m", "mstar_pl", *text.split(), *options]


def signal_at(rank, phase, number):
    """Return the options by which `fit` gets a `SignalAt`."""
    callback = "--trainer.callbacks"
    options = [
        f"{callback}.rank",
        str(rank),
        f"{callback}.phase",
        phase,
        f"{callback}.number",
        str(int(number)),
    ]
    return [f"{callback}+=tests.processes.SignalAt", *options]


def start(command, log, launcher=(sys.executable,), **environment):
    """Start a command in a process group of its own."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | os.environ | environment
    with log.open("a") as file:
        return subprocess.Popen(
            [*launcher, *command],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def ended(process, log, timeout=150):
    """Wait for the end of a process and return its exit code; what it started must be gone soon."""
    try:
        code = process.wait(timeout)
        deadline = time.monotonic() + 20
        while _group_lives(process.pid):
            assert time.monotonic() < deadline, f"processes are left\n{log.read_text()[-3000:]}"
            time.sleep(0.1)
    finally:
        if _group_lives(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    return code


def _group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def run(command, log, launcher=(sys.executable,), **environment):
    """Run a command and return its exit code."""
    return ended(start(command, log, launcher, **environment), log)


def outcome(out):
    """Return all rollouts by store, iteration and prompt, the metrics that are no times, and the policy."""
    rollouts, metrics = {}, {}
    for name in STORES:
        store = RolloutStore(out / name)
        for folder in sorted(store.root.iterdir()):
            number = int(folder.name.removeprefix("iteration-"))
            for one in store.groups(number):
                rollouts[name, number, one.group.prompt.id] = one
            found = store.manifest(number)["metrics"]
            metrics[name, number] = {k: v for k, v in found.items() if not k.endswith(TIMES)}
    return rollouts, metrics, load_file(out / "policy/model.safetensors")
