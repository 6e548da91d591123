"""Outputs that are whole or not there, and locks: with real processes that are killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mstar_pl.data.durable import LOCK, locked, put_back, written_together, written_whole
from mstar_pl.types import InputError


def contents(path):
    return {one.name: one.read_text() for one in path.iterdir()} if path.is_dir() else path.read_text()


def write(temporary, text, folder):
    if folder:
        temporary.mkdir()
        (temporary / "a").write_text(text)
    else:
        temporary.write_text(text)


@pytest.mark.parametrize("folder", [False, True])
def test_an_output_is_replaced_when_the_new_one_is_whole(tmp_path, folder):
    path = tmp_path / "deep/out"
    for text in ("first", "second"):
        with written_whole(path) as temporary:
            write(temporary, text, folder)
    assert contents(path) == ({"a": "second"} if folder else "second")

    def fail():
        with written_whole(path) as temporary:
            write(temporary, "half", folder)
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail()
    assert contents(path) == ({"a": "second"} if folder else "second")
    assert [one.name for one in path.parent.iterdir()] == ["out"], "nothing is left behind"


def test_several_writers_share_one_output(tmp_path):
    """Three threads stand for processes: what a former run left is gone, and all see the whole output."""
    path, barrier, seen = tmp_path / "out", threading.Barrier(3), {}
    (tmp_path / ".out.all.tmp").mkdir()
    (tmp_path / ".out.all.tmp/of-a-former-run").touch()

    def write_share(rank):
        with written_together(path, barrier.wait, leads=rank == 0) as temporary:
            temporary.mkdir(exist_ok=True)
            time.sleep(0.02 * rank)
            (temporary / str(rank)).write_text("share")
        seen[rank] = contents(path)

    writers = [threading.Thread(target=write_share, args=[rank]) for rank in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=10)
    assert [*seen.values()] == [{"0": "share", "1": "share", "2": "share"}] * 3


def test_a_file_may_replace_a_folder_and_a_folder_a_file(tmp_path):
    for folder in (True, False, True):
        with written_whole(tmp_path / "out") as temporary:
            write(temporary, "text", folder)
        assert contents(tmp_path / "out") == ({"a": "text"} if folder else "text")
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("step", range(3))
def test_after_a_kill_the_former_or_the_new_output_is_there(tmp_path, folder, step, monkeypatch):
    """The process dies before it renames anything, between its renames, or after them."""
    path = tmp_path / "out"
    with written_whole(path) as temporary:
        write(temporary, "first", folder)
    child = f"""
import os, signal, sys, pathlib
sys.path[:0] = {sys.path!r}
from mstar_pl.data.durable import written_whole
left = [{step}]
def dying(act):
    def step(*args):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return act(*args)
    return step
pathlib.Path.rename, pathlib.Path.replace = dying(pathlib.Path.rename), dying(pathlib.Path.replace)
import shutil
from tests.data.test_durable import write
with written_whole(pathlib.Path({str(path)!r})) as temporary:
    write(temporary, "second", {folder})
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    put_back(path)
    renames = 2 if folder else 1
    text = "second" if step >= renames else "first"
    assert contents(path) == ({"a": text} if folder else text)
    assert [one.name for one in tmp_path.iterdir()] == ["out"], "what died is cleaned up"


def test_the_second_run_is_refused_and_told_of_the_first(tmp_path):
    hold = f"""
import sys, time, pathlib
sys.path[:0] = {sys.path!r}
from mstar_pl.data.durable import locked
with locked(pathlib.Path({str(tmp_path)!r})):
    print("have it", flush=True)
    time.sleep(60)
"""
    first = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout.readline() == "have it\n"
        with pytest.raises(
            InputError, match=rf"in use by process {first.pid} on {os.uname().nodename}, since 20"
        ):
            locked(tmp_path).__enter__()
        since = json.loads((tmp_path / LOCK).read_text())["since"]
        assert abs(time.time() - time.mktime(time.strptime(since[:19], "%Y-%m-%dT%H:%M:%S"))) < 60
    finally:
        first.kill()
        first.wait()


def test_a_file_is_no_folder_to_have(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot be made \(File exists\); give another folder"):
        locked(tmp_path / "file").__enter__()


def test_a_lock_of_a_dead_process_is_taken_over(tmp_path, caplog):
    (tmp_path / LOCK).write_text(json.dumps({"host": "far", "pid": 7, "since": "2026-01-01T00:00:00+00:00"}))
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert (
        "process 7 on far, since 2026-01-01T00:00:00+00:00 ended without giving the folder back"
        in caplog.text
    )
    caplog.clear()
    with locked(tmp_path):
        pass
    assert not caplog.text, "given back"
