"""Ending a process that hangs."""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer


@contextmanager
def watchdog(seconds: float | None, what: str) -> Iterator[None]:
    """End the process with exit code 75 (to be started again) if the block takes too long.

    An engine that hangs in this process cannot be interrupted, only left; the stack of every thread is
    printed first. All that was written before stays, and the next start goes on from there.

    Args:
        seconds: The limit; None waits for ever.
        what: What hangs, for the message.
    """
    if seconds is None:
        yield
        return
    timer = Timer(seconds, _leave, [what, seconds])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _leave(what: str, seconds: float) -> None:
    faulthandler.dump_traceback(file=2)
    message = f"{what}: no answer after {seconds:g} s; leaving. What is in the store stays: start again with"
    os.write(2, f"{message} --ckpt_path last, or raise evolution.engine_timeout\n".encode())
    os._exit(os.EX_TEMPFAIL)
