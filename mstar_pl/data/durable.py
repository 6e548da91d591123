"""Outputs that are whole or not there, and folders that one run has at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from mstar_pl.types import InputError

LOCK = ".lock"

log = logging.getLogger(__name__)
_held: set[IO[str]] = set()


def _let_go() -> None:
    """Close the locks in a forked process: it must not hold them when its parent is dead."""
    for file in _held:
        os.close(file.fileno())
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def written_whole(path: Path, owner: str = "") -> Iterator[Path]:
    """Give a temporary name beside `path`; the file or folder written there takes its place at the end.

    A file takes it in one step. A folder cannot: the former one is moved aside first, and `put_back` undoes
    that where the process died between the two steps.

    Args:
        path: The output.
        owner: Part of the temporary name; default is this process.

    Raises:
        InputError: Its folder cannot be made.
    """
    _make(path.parent, path)
    temporary, old = _hidden(path, owner, "tmp"), _hidden(path, owner, "old")
    try:
        yield temporary
        if path.exists() and (temporary.is_dir() or path.is_dir()):
            path.rename(old)
        temporary.replace(path)
    finally:
        _remove(temporary)
    _remove(old)


@contextmanager
def written_new(folder: Path) -> Iterator[Path]:
    """Do as `written_whole` for a folder that must not be there yet, or is empty; see `put_back`, too.

    Raises:
        InputError: It is there, or cannot be.
    """
    put_back(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists; remove it, or give another folder")
    with written_whole(folder) as temporary:
        yield temporary


def refuse_folder(path: Path) -> None:
    """Refuse a folder where a file is to be written, before the work for it begins.

    Raises:
        InputError: It is one.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")


@contextmanager
def written_together(path: Path, barrier: Callable[[], object], *, leads: bool) -> Iterator[Path]:
    """Do as `written_whole` for an output that several processes write; each gets the same name.

    Args:
        path: The output.
        barrier: Function that waits for all processes.
        leads: Whether this is the process that cleans up before and renames after. One of them does.
    """
    if leads:
        put_back(path)
    with written_whole(path, "all") if leads else nullcontext(_hidden(path, "all", "tmp")) as temporary:
        barrier()
        yield temporary
        barrier()
    barrier()


def put_back(path: Path) -> None:
    """Clean up after a process that died while it wrote `path`; no other one may be writing there."""
    for old in path.parent.glob(f".{path.name}.*.old"):
        if path.exists():
            _remove(old)
        else:
            old.rename(path)
    for temporary in path.parent.glob(f".{path.name}.*.tmp"):
        _remove(temporary)


def left_of(path: Path) -> Path | None:
    """Return where an output is, if anywhere: after a death between two renames, where it was moved."""
    return next((one for one in (path, *path.parent.glob(f".{path.name}.*.old")) if one.exists()), None)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Have a folder for this process alone; the system gives it back when the process dies.

    Raises:
        InputError: Another process has it; names host, process and since when. Or it cannot be made.
    """
    _make(folder, folder)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: is in use by {_owner(file.name)}; wait for it, stop it, or give another folder"
            ) from None
        except OSError as error:
            log.warning("%s: cannot be locked (%s); nothing keeps a second run out", folder, error)
        if left := _owner(file.name):
            log.warning("%s: %s ended without giving the folder back; it is taken over", folder, left)
        file.truncate(0)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        json.dump({"host": socket.gethostname(), "pid": os.getpid(), "since": since}, file)
        file.flush()
        _held.add(file)
        try:
            yield
        finally:
            _held.discard(file)
            file.truncate(0)


def _make(folder: Path, output: Path) -> None:
    """Make the folder that an output needs."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made ({error.strerror}); give another folder") from None


def _owner(lock: str) -> str:
    """Return who wrote a lock, or nothing."""
    try:
        owner = json.loads(Path(lock).read_text(encoding="utf-8"))
        return f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
    except (ValueError, KeyError):
        return ""


def _hidden(path: Path, owner: str, end: str) -> Path:
    return path.with_name(f".{path.name}.{owner or os.getpid()}.{end}")


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
