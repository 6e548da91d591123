"""Several processes do what one does: same rollouts, same training, also after kills and in other numbers."""

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from mstar_pl.cli import main
from tests.processes import ROOT, ended, fit, outcome, run, signal_at, start

pytestmark = [pytest.mark.engine, pytest.mark.processes]
DDP = ("--trainer.strategy", "ddp", "--trainer.devices", "2")
FSDP2 = ("--trainer.strategy", "fsdp2", "--trainer.devices", "2")
LAST = ("--ckpt_path", "last")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "minivista"
    assert (
        main(["data", "minivista", "--out", str(folder), "--train", "32", "--val", "8", "--test", "1"]) == 0
    )
    return folder


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """What one undisturbed process ends with."""
    out = tmp_path_factory.mktemp("alone")
    assert run(fit(data, out), out / "log.txt") == 0, (out / "log.txt").read_text()[-3000:]
    return outcome(out)


def assert_like(out, expected):
    rollouts, metrics, weights = outcome(out)
    assert rollouts == expected[0]
    assert metrics == expected[1]
    for name, weight in weights.items():
        assert torch.allclose(weight, expected[2][name], rtol=0, atol=1e-4), name
    assert weights.keys() == expected[2].keys()


def test_ddp(data, tmp_path, alone):
    """Two processes, one asked by Slurm to end inside an epoch; they go on, and one is killed."""
    log = tmp_path / "log.txt"
    asked = signal_at(1, "training", signal.SIGUSR1)
    batch = fit(data, tmp_path, *DDP[:2], *asked)[2:]
    assert run(batch, log, [str(ROOT / "bin/slurm.sbatch")], **slurm(tmp_path)) == os.EX_TEMPFAIL
    assert "nothing is lost" in log.read_text(), log.read_text()[-3000:]
    assert (tmp_path / "bin/asked").read_text() == "requeue 4711\n"
    assert_names(1, "sampling, rollouts 1", fit(data, tmp_path, *DDP, *LAST), log)
    assert run(fit(data, tmp_path, *DDP, *LAST), log) == 0, log.read_text()[-3000:]
    assert_like(tmp_path, alone)


def test_fsdp2(data, tmp_path, alone):
    """Two processes, of which one is killed in training; one goes on; two, of which the first is killed."""
    log = tmp_path / "log.txt"
    assert_names(1, "training, epoch 0", fit(data, tmp_path, *FSDP2), log)
    assert run(fit(data, tmp_path, *FSDP2[:2], *LAST, epochs=1), log) == 0, log.read_text()[-3000:]
    assert_names(0, "saving a checkpoint, epoch 1", fit(data, tmp_path, *FSDP2, *LAST), log)
    assert run(fit(data, tmp_path, *FSDP2, *LAST), log) == 0, log.read_text()[-3000:]
    assert_like(tmp_path, alone)


def slurm(folder):
    """Return the environment of a Slurm job of two tasks, with commands that stand for Slurm's own."""
    tools = folder / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", f'#!/bin/sh\necho "$@" >> {tools}/asked\n')):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    job = {"JOB_ID": "4711", "JOB_NAME": "mstar-pl", "NODELIST": "127.0.0.1", "NNODES": "1", "NTASKS": "2"}
    job |= {"NTASKS_PER_NODE": "2"}
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path} | {f"SLURM_{name}": value for name, value in job.items()}


SRUN = """#!/bin/bash
shift 2  # its options
for task in 0 1; do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$@" & tasks+=($!)
done
code=0
for task in "${tasks[@]}"; do wait "$task"; last=$?; [ $last -gt $code ] && code=$last; done
exit $code
"""


def assert_names(rank, phase, command, log):
    """Kill a process in a phase: the run ends soon and says which one it was."""
    assert run([*command, *signal_at(rank, phase, signal.SIGKILL)], log) != 0
    text = log.read_text()
    assert re.search(rf"process {rank} of the run .* died in this phase: {phase}", text), text[-3000:]


@contextmanager
def two_nodes():
    """Two network namespaces with an address each; yields name and interface of each."""
    ip = shutil.which("ip")
    tag = f"{os.getpid() % 10000}"
    names = [f"mstar{tag}{end}" for end in "ab"]
    if ip is None or subprocess.run([ip, "netns", "add", names[0]], capture_output=True).returncode:
        pytest.skip("network namespaces need iproute2 and the right to make them")
    try:
        subprocess.run([ip, "netns", "add", names[1]], check=True)
        ends = [f"v{tag}{end}" for end in "ab"]
        subprocess.run([ip, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
        for number, (name, end) in enumerate(zip(names, ends, strict=True), start=1):
            subprocess.run([ip, "link", "set", end, "netns", name], check=True)
            subprocess.run([ip, "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", end], check=True)
            for link in (end, "lo"):
                subprocess.run([ip, "-n", name, "link", "set", link, "up"], check=True)
        yield list(zip(names, ends, strict=True))
    finally:
        for name in names:
            subprocess.run([ip, "netns", "del", name], capture_output=True, check=False)


def test_two_nodes_with_torchrun_do_what_one_process_does(data, tmp_path, alone):
    logs = [tmp_path / f"node-{node}.txt" for node in range(2)]
    (tmp_path / "run").mkdir()
    options = ("--trainer.strategy", "ddp")
    with two_nodes() as nodes:
        started = []
        for node, (name, end) in enumerate(nodes):
            launcher = ["ip", "netns", "exec", name, str(ROOT / "bin/launch-torchrun")]
            launcher += [str(node), "2", "10.77.0.1"]
            command = fit(data, tmp_path / "run", *options)[2:]
            environment = {"GLOO_SOCKET_IFNAME": end, "VLLM_HOST_IP": f"10.77.0.{node + 1}", "DEVICES": "1"}
            environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            started.append(start(command, logs[node], launcher, **environment))
        codes = [ended(process, log) for process, log in zip(started, logs, strict=True)]
    assert codes == [0, 0], logs[0].read_text()[-3000:]
    assert_like(tmp_path / "run", alone)
