"""Steps of a study in parallel: real commands in processes of their own."""

import json
import os
import subprocess
from contextlib import nullcontext

import pytest

from mstar_pl.evaluation.study import Step
from mstar_pl.evaluation.study_run import _cores, _devices, run_steps
from mstar_pl.types import InputError


def steps(out, **reads):
    """Return commands that hide the answers of prompts, of the file that another one has written."""
    question = {"id": "1", "images": [], "question": "How many?", "answer": "3"}
    (out / "prompts.jsonl").write_text(json.dumps(question) + "\n")
    for name, source in reads.items():
        source = f"{out}/{source}.jsonl" if source == "prompts" else f"{out}/{source}/prompts.jsonl"
        command = ("data", "hide", "--source", source, "--out", f"{out}/{name}/prompts.jsonl")
        yield Step(name, out / name, command)


def log(folder):
    return (folder / "log.txt").read_text()


def test_a_step_waits_for_what_it_reads_and_for_nothing_else(tmp_path, capsys):
    plan = list(steps(tmp_path, first="prompts", second="first", other="prompts"))
    complete = []
    run_steps(plan, 2, lambda: complete.append({step.name for step in plan if step.is_done()}))
    started = [line.split("] ")[1] for line in capsys.readouterr().out.splitlines()]
    assert started == ["first", "other", "second"]
    assert complete[-1] == {"first", "second", "other"}
    assert all((step.folder / "prompts.jsonl").is_file() for step in plan)


def test_what_runs_comes_to_its_end_when_another_step_fails(tmp_path):
    plan = list(steps(tmp_path, first="nowhere", other="prompts", second="first"))
    with pytest.raises(InputError, match=r"first: failed with exit code 2; read .*first/log.txt"):
        run_steps(plan, 2, lambda: None)
    assert [step.is_done() for step in plan] == [False, True, False]
    assert not (tmp_path / "second").exists(), "it was not started"


def test_a_step_that_was_asked_to_end_ends_the_study(tmp_path, monkeypatch):
    plan = list(steps(tmp_path, first="prompts", second="first"))
    monkeypatch.setattr(subprocess.Popen, "wait", lambda self, timeout=None: 75)
    with pytest.raises(SystemExit) as left:
        run_steps(plan, 1, lambda: None)
    assert left.value.code == 75
    assert not (tmp_path / "second").exists()
    assert not plan[0].is_done()


def another(step):
    return Step(step.name, step.folder, (*step.command, "--seed", "1"))


def test_what_another_command_began_does_not_go_on(tmp_path, monkeypatch):
    (step,) = steps(tmp_path, first="prompts")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess.Popen, "wait", lambda self, timeout=None: 75)
        with pytest.raises(SystemExit):
            run_steps([step], 1, lambda: None)
    with pytest.raises(InputError, match=r"first: was made by another command \(see started\.json\)"):
        another(step).is_done()
    assert not step.is_done()
    run_steps([step], 1, lambda: None)
    assert step.is_done()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_command_that_failed_may_be_mended_unless_there_is_a_checkpoint_of_it(tmp_path, checkpoint):
    (step,) = steps(tmp_path, first="nowhere")
    if checkpoint:
        (step.folder / "checkpoints/last.ckpt").mkdir(parents=True)
    with pytest.raises(InputError, match="failed with exit code 2"):
        run_steps([step], 1, lambda: None)
    with pytest.raises(InputError, match=r"started\.json") if checkpoint else nullcontext():
        assert not another(step).is_done()


@pytest.mark.parametrize("kind", ["file", "folder", "none"])
def test_a_fit_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch, kind):
    last, seen, real = tmp_path / "checkpoints/last.ckpt", [], subprocess.Popen
    last.parent.mkdir()
    if kind != "none":
        last.mkdir() if kind == "folder" else last.touch()
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **options: seen.append(command) or real("true", **options)
    )
    run_steps([Step("a", tmp_path, ("fit", "--config", "a.yaml"))], 1, lambda: None)
    assert seen[0][3:] == ["fit", "--config", "a.yaml"] + ["--ckpt_path", "last"] * (kind != "none")


def test_cores_and_devices_are_divided(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6})
    assert _cores(1) == [{4, 5, 6}]
    assert _cores(2) == [{4, 6}, {5}]
    assert _cores(4) == [{4}, {5}, {6}, {4}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,7")
    assert _devices(1) == [None]
    assert _devices(2) == ["2,7", "3"]
    assert _devices(4) == ["2", "3", "7", "2"]


def test_each_step_computes_on_its_share(tmp_path):
    """The environment of the process itself tells."""
    plan = list(steps(tmp_path, first="prompts", other="prompts"))
    script = tmp_path / "sitecustomize.py"
    script.write_text(
        "import os, pathlib\n"
        f"with open(r'{tmp_path}/seen.txt', 'a') as file:\n"
        "    file.write(f\"{sorted(os.sched_getaffinity(0))} {os.environ['OMP_NUM_THREADS']}\\n\")\n"
    )
    cores = sorted(os.sched_getaffinity(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        run_steps(plan, 2, lambda: None)
    seen = set((tmp_path / "seen.txt").read_text().split("\n")) - {""}
    expected = _cores(2)
    assert seen == {f"{sorted(share)} {len(share)}" for share in expected}
    assert sorted(os.sched_getaffinity(0)) == cores, "of this process nothing has changed"
