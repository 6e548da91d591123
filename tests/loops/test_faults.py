"""What a long run meets: an engine that fails or hangs, a full disk."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from safetensors import SafetensorError

from mstar_pl.cli import main
from mstar_pl.data import shards
from mstar_pl.data.store import RolloutStore
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError
from tests.loops.evolving import evolve, rollouts, transformers
from tests.modules.test_policy import assert_same, state

ONE = {"trainer": {"max_epochs": 1}}
LITTLE_ROOM = namedtuple("Usage", "total used free")(0, 0, 10_000_000)


def failing(engine, calls, log):
    """An engine class that fails in the given submissions, counted over all engines."""

    class Failing(engine):
        def __init__(self, *args, **kwargs):
            log.append("start")
            super().__init__(*args, **kwargs)

        def submit(self, requests, progress=""):
            log.append("submit")
            if log.count("submit") in calls:
                raise RuntimeError("EngineCore encountered an issue")
            return super().submit(requests, progress)

        def close(self):
            log.append("close")
            super().close()

    return Failing


def same_run(first, second, roots):
    assert_same(state(*first), state(*second))
    assert rollouts(roots[0], 0) == rollouts(roots[1], 0)
    assert first[1].evaluation == second[1].evaluation


def test_an_engine_that_fails_is_started_once_more_and_draws_the_same(files, tmp_path, caplog):
    whole = evolve(tmp_path / "a", files, transformers, **ONE)
    log = []
    # Submissions: parity probe, the first measurement, then the three shards of the iteration.
    other = evolve(tmp_path / "b", files, failing(TransformersEngine, {4}, log), **ONE)
    assert (
        "the engine failed (RuntimeError: EngineCore encountered an issue); starting it once more"
        in caplog.text
    )
    assert [one for one in log if one != "submit"] == ["start", "close", "start"]
    assert log.count("submit") == 6 + 1 + 1, "the shard that failed, and the probe of the new engine"
    same_run(whole, other, (tmp_path / "a", tmp_path / "b"))


@pytest.mark.engine
def test_vllm_is_started_once_more_in_the_same_process(files, tmp_path):
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    runs, logs = [], ([], [])
    for name, calls, log in (("a", {}, logs[0]), ("b", {4}, logs[1])):
        engine = failing(VLLMEngine, calls, log)
        started = []

        def start(lmm, engine=engine, started=started):
            started.append(engine(lmm, max_model_len=256, max_num_seqs=64))
            return started[-1]

        runs.append(evolve(tmp_path / name, files, start, **ONE))
        started[-1].close()
    assert logs[1].count("start") == 2
    same_run(*runs, (tmp_path / "a", tmp_path / "b"))


def test_a_second_failure_ends_the_run_and_keeps_what_is_there(files, tmp_path):
    with pytest.raises(RuntimeError, match="EngineCore"):
        evolve(tmp_path, files, failing(TransformersEngine, {4, 6}, []), **ONE)
    assert len(list((tmp_path / "rollouts/iteration-0000").glob("*.parquet"))) == 1
    whole = evolve(tmp_path / "whole", files, transformers, **ONE)
    same_run(whole, evolve(tmp_path, files, transformers, **ONE), (tmp_path / "whole", tmp_path))


def test_a_process_whose_engine_hangs_leaves_and_says_where():
    script = (
        "import time\nfrom mstar_pl.rollouts.watchdog import watchdog\n"
        "def generate():\n    time.sleep(60)\n"
        "with watchdog(60, 'the first shard'):\n    pass\n"
        "with watchdog(0.5, 'the engine, rollouts 3'):\n    generate()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == os.EX_TEMPFAIL
    assert "the engine, rollouts 3: no answer after 0.5 s; leaving. What is in the store stays" in done.stderr
    assert "in generate" in done.stderr, "the stack"


def test_an_iteration_does_not_begin_without_room(files, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: LITTLE_ROOM)
    with pytest.raises(
        InputError, match=r"rollouts and checkpoint of iteration 0 need about 0\.0 GiB, 0\.0 GiB are free"
    ):
        evolve(tmp_path, files, transformers, **ONE)
    assert RolloutStore(tmp_path / "validation").manifest(0) is not None
    assert not (tmp_path / "rollouts").exists()


def test_an_iteration_that_is_there_needs_no_room(files, tmp_path, monkeypatch):
    evolve(tmp_path, files, transformers, **ONE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: LITTLE_ROOM)
    evolve(tmp_path, files, transformers, **ONE)


def test_a_full_disk_loses_a_shard_at_most(files, tmp_path, monkeypatch):
    write, calls = shards.pq.write_table, []

    def full(table, path, **options):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))
        write(table, path, **options)

    monkeypatch.setattr(shards.pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        evolve(tmp_path, files, transformers, **ONE)
    folder = tmp_path / "rollouts/iteration-0000"
    assert [path.name for path in folder.iterdir()] == ["rank-0-00000.parquet"]
    monkeypatch.undo()
    whole = evolve(tmp_path / "whole", files, transformers, **ONE)
    same_run(whole, evolve(tmp_path, files, transformers, **ONE), (tmp_path / "whole", tmp_path))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "runs/a"), "make room and start again"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device"),
            "make room and start again",
        ),
        (MemoryError(), "lower data.micro_batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory."), "lower data.micro_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "lower data.micro_batch_size"),
    ],
)
def test_the_end_of_the_machine_is_one_line(error, said, monkeypatch, capsys):
    from mstar_pl import cli

    def fail(_):
        raise error

    monkeypatch.setattr(cli, "_train", fail)
    assert main(["fit"]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
