"""Equality of LaTeX and expressions by math-verify, under a time limit that holds.

math-verify's own time-outs are signals: they fail off the main thread and cannot break a loop in C. Here the
comparison runs in a persistent child process, which is killed when a reply is late and started again when
next needed. The child bounds its memory and, should its parent die, its processor time.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

START_LIMIT_S = 120.0
MEMORY_LIMIT_BYTES = 3 * 2**30


@dataclass(frozen=True, slots=True)
class Comparison:
    """What math-verify found: `equal` is None for an unreadable gold; `value` is the candidate's number."""

    equal: bool | None
    value: float | None


class SymbolicChecker:
    """Compares expressions in one child process; safe to call from any thread, one comparison at a time.

    Args:
        time_limit_s: Seconds of wall-clock time after which a comparison is given up.
    """

    def __init__(self, time_limit_s: float = 5.0) -> None:
        self.time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def compare(self, gold: str, candidate: str) -> Comparison | None:
        """Compare two expressions; None if that took too long, crashed, or ran out of memory.

        Raises:
            RuntimeError: The child process cannot start at all, e.g. because math-verify is not installed.
        """
        request = json.dumps([gold, candidate, self.time_limit_s]).encode() + b"\n"
        with self._lock:
            process = self._started()
            reply = None
            with contextlib.suppress(BrokenPipeError):
                assert process.stdin is not None
                process.stdin.write(request)
                process.stdin.flush()
                reply = _read_line(process, self.time_limit_s)
            if reply is None:
                self._stop()
                return None
        equal, value = json.loads(reply)
        return None if equal == "error" else Comparison(equal, value)

    def close(self) -> None:
        """Kill the child process; the next comparison starts a new one."""
        with self._lock:
            self._stop()

    def reset_after_fork(self) -> None:
        """Forget the parent's child process and lock in a forked process, without touching that process."""
        self._lock = threading.Lock()
        if self._process is not None:
            _close_pipes(self._process)
            self._process.returncode = 0  # not ours to wait for
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        # -P keeps this directory off the child's import path; running the file needs no installed package.
        command = [sys.executable, "-P", os.path.abspath(__file__)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if _read_line(self._process, START_LIMIT_S) != b"ready":
            self._stop()
            raise RuntimeError(
                "the process that runs math-verify did not start; is math-verify installed? "
                f"Run `{' '.join(command)}` by hand to see why (it should print 'ready')"
            )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _close_pipes(self._process)
            self._process = None


def _read_line(process: subprocess.Popen[bytes], limit_s: float) -> bytes | None:
    """Return the next line of the process without its end, or None if it does not come in time."""
    assert process.stdout is not None
    descriptor, deadline, received = process.stdout.fileno(), time.monotonic() + limit_s, b""
    while not received.endswith(b"\n"):
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return None
        if not (chunk := os.read(descriptor, 65536)):
            return None
        received += chunk
    return received.strip()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _answer(gold: str, candidate: str) -> tuple[bool | None, float | None]:
    """Compare two expressions with math-verify in this process; runs in the child only."""
    from math_verify import parse, verify

    def read(text: str) -> list:
        return parse("$" + text.replace("$", "") + "$", parsing_timeout=None, raise_on_error=True)

    parsed_gold, parsed = read(gold), read(candidate)
    if not parsed_gold or not parsed:
        return (None if not parsed_gold else False), None
    equal = verify(parsed_gold, parsed, timeout_seconds=None, raise_on_error=True)
    value = None
    # Most expressions are not numbers, and sympy has many ways to say so.
    with contextlib.suppress(Exception):
        value = float(parsed[0].evalf())
    return equal, value if value is not None and math.isfinite(value) else None


def _serve() -> None:
    """Answer requests from standard input until it closes; the body of the child process."""
    import resource

    _answer(r"\frac{1}{2}", "0.5")  # the first one takes a second; before 'ready', so that no request pays

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not reach the protocol
    print("ready", file=output, flush=True)
    for line in sys.stdin:
        gold, candidate, limit_s = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = math.ceil(used.ru_utime + used.ru_stime + 2 * limit_s + 1)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        try:
            reply: tuple[bool | str | None, float | None] = _answer(gold, candidate)
        except (Exception, RecursionError, MemoryError):
            reply = ("error", None)
        print(json.dumps(reply), file=output, flush=True)


CHECKER = SymbolicChecker()
atexit.register(CHECKER.close)
os.register_at_fork(after_in_child=CHECKER.reset_after_fork)

if __name__ == "__main__":
    _serve()
