"""Ending a run when its scheduler asks for it, at a moment at which nothing is lost."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they take the machine away; SIGUSR1 is usual with Slurm's `--signal`."""

log = logging.getLogger(__name__)


class Interrupted(SystemExit):
    """A run ended on request, with exit code 75 (try again later); `--ckpt_path last` goes on."""

    def __init__(self) -> None:
        super().__init__(os.EX_TEMPFAIL)


class Interruption:
    """A request to end that waits for the next moment at which the run can be resumed exactly."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the signals instead of dying of them."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        former = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def ask(self) -> None:
        """Pass a request on that another process has received."""
        if self.received is None:
            self.received = signal.SIGTERM

    def end_if_asked(self) -> None:
        """End the run, if a signal has come.

        Raises:
            Interrupted: It has.
        """
        if self.received:
            self.end()

    def end(self) -> NoReturn:
        """End the run; everything is saved.

        Raises:
            Interrupted: Always.
        """
        name = self.received.name if self.received else "a signal to another process"
        log.warning("ended by %s; nothing is lost, go on with the same command and --ckpt_path last", name)
        raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            # No logging here: the handler may run inside of it.
            os.write(2, f"{self.received.name}: ending as soon as everything is saved\n".encode())
