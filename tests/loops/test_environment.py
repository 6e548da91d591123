"""What processes must share is checked first; one that hangs is named."""

import json
import re
import socket
import sys
import threading
import time

import pytest

from mstar_pl.loops.environment import check_reachable
from mstar_pl.types import InputError
from tests.processes import run

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.engine
@pytest.mark.processes
def test_processes_that_differ_are_told_in_what(tmp_path):
    log = tmp_path / "log.txt"
    assert run(["-m", "tests.loops.unlike", "check", str(tmp_path)], log, LAUNCHER) == 0, log.read_text()
    told, same = (json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(2))
    assert told == same, "all end with one message"
    assert told["nothing"] == "fine"
    host = socket.gethostname()
    first, second = (f"process {rank} on {host}" for rank in range(2))
    assert f"{second} does not see what {first} wrote to {tmp_path / 'run-0'};" in told["folder"]
    assert f"configuration differs: lr: 2.0e-06 in {second}, lr: 1.0e-06 in {first};" in told["configuration"]
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.engine
@pytest.mark.processes
def test_a_process_that_hangs_is_named_and_ends_too(internvl_folder, train_file, tmp_path):
    log = tmp_path / "log.txt"
    began = time.monotonic()
    command = ["-m", "tests.loops.unlike", "hang", str(tmp_path), internvl_folder, train_file]
    assert run(command, log, LAUNCHER) != 0
    text = log.read_text()
    hangs = (
        r"process 1 of the run .* hangs in this phase: training, epoch 0, at training_step \(unlike.py:\d+\)"
    )
    assert re.search(hangs, text), text[-3000:]
    assert "the others have waited for it for 9 s" in text
    assert re.search(r"process 0 of the run .* left; .* Process 1, at .* leaves", text), "it leaves, too"
    assert time.monotonic() - began < 100


def test_the_first_machine_is_waited_for():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"cannot reach the first machine at 127.0.0.1:{port} .*refused"
        ):
            check_reachable("127.0.0.1", port, limit=0.1)
        threading.Timer(0.5, server.listen).start()
        check_reachable("127.0.0.1", port, limit=20)
    with pytest.raises(InputError, match="is MASTER_ADDR right"):
        check_reachable("no-such-machine.invalid", 29500, limit=0.1)
