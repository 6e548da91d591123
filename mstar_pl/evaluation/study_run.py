"""Running the steps of a study, several at a time, each on its share of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

from mstar_pl.data.jsonl import write_json
from mstar_pl.evaluation.study import DONE, STARTED, Step
from mstar_pl.types import InputError

T = TypeVar("T")
_mine = threading.local()
_processes: set[subprocess.Popen[bytes]] = set()


def run_steps(steps: Sequence[Step], jobs: int, after: Callable[[], object]) -> None:
    """Run steps, each in a process of its own, as soon as those whose folders it mentions are complete.

    Args:
        steps: What is to be run, in an order in which it can be.
        jobs: How many at a time. CPU cores and GPUs are divided among them: with two jobs on two cores, each
            computes in one thread.
        after: Called after each step, in this thread.

    Raises:
        InputError: A step failed. Those that run already come to their end, no further one is started.
        SystemExit: A step was asked to end (exit code 75); so is the study.
    """
    shares: SimpleQueue[tuple[set[int], str | None]] = SimpleQueue()
    for share in zip(_cores(jobs), _devices(jobs), strict=True):
        shares.put(share)
    waiting, running, failed = list(steps), dict[Future[None], Step](), list[BaseException]()
    with ThreadPoolExecutor(jobs, initializer=lambda: _take(*shares.get())) as pool, _ended():
        while running or (waiting and not failed):
            undone = [*running.values(), *waiting]
            ready = [
                step
                for place, step in enumerate(undone)
                if place >= len(running) and not any(step.needs(other) for other in undone[:place])
            ]
            for step in [] if failed else ready[: jobs - len(running)]:
                print(f"[{len(steps) - len(waiting) + 1}/{len(steps)}] {step.name}", flush=True)
                waiting.remove(step)
                running[pool.submit(_run, step)] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                if error := future.exception():
                    failed.append(error)
            after()
    if failed:
        raise failed[0]


@contextmanager
def _ended() -> Iterator[None]:
    """End the processes of all steps when this one is to end."""
    try:
        yield
    except BaseException:
        for process in [*_processes]:
            process.terminate()
        raise


def _cores(jobs: int) -> list[set[int]]:
    """Divide the cores that this process may use."""
    return [set(share) for share in _divided(sorted(os.sched_getaffinity(0)), jobs)]


def _devices(jobs: int) -> list[str | None]:
    """Divide the GPUs, as values of CUDA_VISIBLE_DEVICES; None changes nothing."""
    if jobs == 1:
        return [None]
    import torch

    known = [str(device) for device in range(torch.cuda.device_count())]
    if named := os.environ.get("CUDA_VISIBLE_DEVICES"):
        known = named.split(",")
    return [",".join(share) for share in _divided(known, jobs)] if known else [None] * jobs


def _divided(known: Sequence[T], jobs: int) -> list[Sequence[T]]:
    """Give each job its share; where there are fewer than jobs, some share one."""
    return [known[job::jobs] or [known[job % len(known)]] for job in range(jobs)]


def _take(cores: set[int], devices: str | None) -> None:
    """Give this thread, and the processes that it starts, their share of the machine."""
    os.sched_setaffinity(0, cores)
    _mine.environment = {"OMP_NUM_THREADS": str(len(cores))} | os.environ
    if devices is not None:
        _mine.environment["CUDA_VISIBLE_DEVICES"] = devices


def _run(step: Step) -> None:
    """Run a step in a process of its own and mark it as complete."""
    command, checkpoint = list(step.command), step.folder / "checkpoints/last.ckpt"
    started = write_json(step.folder / STARTED, {"command": command})
    if command[0] == "fit" and checkpoint.exists():  # it is a folder where processes share the weights
        command += ["--ckpt_path", "last"]
    began, log = time.perf_counter(), step.folder / "log.txt"
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mstar_pl", *command],
            env=_mine.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        _processes.add(process)
        code = process.wait()
        _processes.discard(process)
    if code == os.EX_TEMPFAIL:
        raise SystemExit(code)
    if code and not checkpoint.exists():
        started.unlink()  # nothing goes on from it: the command may be mended
    if code:
        raise InputError(f"{step.name}: failed with exit code {code}; read {log}, then start the study again")
    seconds = round(time.perf_counter() - began, 1)
    write_json(step.folder / DONE, {"command": list(step.command), "seconds": seconds})
