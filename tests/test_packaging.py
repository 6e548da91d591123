"""The package's metadata, its pinned lock and its set-up script agree."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
# What bin/setup leaves out on purpose; the header of the lock says why.
LEFT_OUT = {"torchaudio", "torchcodec", "triton"}


def read_lock() -> dict[str, Version]:
    lines = (ROOT / "requirements/cpu.txt").read_text().splitlines()
    pins = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin), f"not a plain pin: {pin!r}"
    names = [canonicalize_name(pin.split("==")[0]) for pin in pins]
    assert len(names) == len(set(names)), "a package is pinned twice"
    return {name: Version(pin.split("==")[1]) for name, pin in zip(names, pins, strict=True)}


def read_requirements() -> dict[str, list[Requirement]]:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {name: [Requirement(line) for line in text.split("\n") if line] for name, text in groups.items()}


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hook", ROOT / "bin/torchvision_cpu_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lock_leaves_out_what_breaks_a_cpu_environment():
    lock = read_lock()
    assert not LEFT_OUT & lock.keys()
    assert str(lock["torch"]).endswith("+cpu")


def test_setup_has_the_extras():
    assert read_requirements().keys() == {"", "vllm", "cpu", "smolvlm", "internvl2", "qlora", "study", "dev"}


@pytest.mark.parametrize("group", ["", "cpu", "dev"])
def test_lock_satisfies_the_ranges(group):
    lock = read_lock()
    for requirement in read_requirements()[group]:
        pinned = lock[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned), f"{requirement} is pinned to {pinned}"


@pytest.mark.skipif(Path(sys.prefix) != ROOT / ".venv", reason="not the environment that bin/setup makes")
def test_nothing_else_is_missing():
    """Pip finds no other fault in the environment than what is left out on purpose."""
    check = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    missing = re.compile(r"\S+ \S+ requires (\S+), which is not installed\.")
    faults = [line for line in check.stdout.splitlines() if line != "No broken requirements found."]
    matches = [missing.fullmatch(line) for line in faults]
    assert all(match and match.group(1) in LEFT_OUT for match in matches), check.stdout


def test_torchvision_hook_installs_once(monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    hook = load_hook()
    hook.install()
    hook.install()
    assert len(sys.meta_path) == before + 1
    assert sys.meta_path[0].find_spec("torchvision.anything") is None


def test_torchvision_hook_defines_missing_schemas_once():
    script = (
        "import runpy, torch\n"
        f"hook = runpy.run_path({str(ROOT / 'bin/torchvision_cpu_hook.py')!r})\n"
        "print(hook['define_missing_schemas'](), hook['define_missing_schemas']())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['nms', 'qnms'] []"


def test_torchvision_hook_imports_nothing_heavy():
    script = (
        f"import runpy, sys\nrunpy.run_path({str(ROOT / 'bin/torchvision_cpu_hook.py')!r})['install']()\n"
        "print('torch' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_torchvision_can_be_imported():
    pytest.importorskip("torch")
    run = subprocess.run(
        [sys.executable, "-c", "import torchvision"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_setup_touches_nothing_when_up_to_date():
    if subprocess.run([ROOT / "bin/setup", "--check"], check=False, capture_output=True).returncode != 0:
        pytest.skip(".venv is missing or not up to date: call bin/setup")
    stamp = ROOT / ".venv/.complete"
    before = stamp.stat().st_mtime_ns
    run = subprocess.run([ROOT / "bin/setup"], capture_output=True, text=True, check=True)
    assert "up to date" in run.stdout
    assert stamp.stat().st_mtime_ns == before


def copy_setup(target: Path) -> Path:
    """Copy what bin/setup reads; returns the copied script."""
    for name in (
        "bin/setup",
        "bin/torchvision_cpu_hook.py",
        "requirements/cpu.txt",
        "setup.cfg",
        "pyproject.toml",
    ):
        copy = target / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy)
    return target / "bin/setup"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MSTAR_PL_DEVICE": "cpu", "MSTAR_PL_PYTHON": "/nowhere/python3"}, "MSTAR_PL_PYTHON="),
        ({"MSTAR_PL_DEVICE": "tpu"}, "Set it to cpu or cuda"),
    ],
)
def test_setup_says_what_to_do(tmp_path, environment, message):
    run = subprocess.run(
        [copy_setup(tmp_path)], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert message in run.stderr
    assert not (tmp_path / ".venv").exists()


def test_setup_leaves_a_foreign_environment_alone(tmp_path):
    script = copy_setup(tmp_path)
    (tmp_path / ".venv").mkdir()
    mine = tmp_path / ".venv/mine"
    mine.touch()
    run = subprocess.run(
        [script], env={**os.environ, "MSTAR_PL_DEVICE": "cpu"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert "is not bin/setup's" in run.stderr
    assert mine.exists()
