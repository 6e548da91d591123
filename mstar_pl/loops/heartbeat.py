"""Knowing of the other processes of a run: that they live, what they do, and that they were asked to end."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mstar_pl.data.durable import written_whole
from mstar_pl.distributed import Processes
from mstar_pl.loops._lightning import collective_timeout, unwatch_children
from mstar_pl.loops.environment import check_environment
from mstar_pl.loops.interruption import Interruption
from mstar_pl.types import InputError

log = logging.getLogger(__name__)
PERIOD = 0.25


class Heartbeat(Callback):
    """End this process soon after another one of the run died or hangs, and name that one and what it did.

    Each process writes four times a second what it does and how far it is to `DEFAULT_ROOT_DIR/processes`,
    and reads what the others wrote. Collective operations alone would wait for a dead process until their
    time limit, and then name nobody. Processes go in step from phase to phase and from batch to batch; one
    that stays behind the others for nine tenths of the collectives' time limit (`timeout` of the strategy)
    hangs. While they sample they are at the same place, and may take any time; `evolution.engine_timeout`
    ends an engine that does not answer.

    Args:
        interruption: Where a request to end that another process received is passed on to.
        limit: Seconds after which a process of another machine that writes nothing is taken for dead; the
            system is asked about those of the same machine.

    Attributes:
        processes: The processes of the run, from `setup` on.
    """

    def __init__(self, interruption: Interruption, limit: float = 60.0) -> None:
        self.interruption = interruption
        self.limit = limit
        self._phase = "starting"
        self._place = (0, 0)
        self.processes = Processes()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state: dict[str, Any] = {}

    @property
    def phase(self) -> str:
        """What this process does, for messages."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        self._place = (self._place[0] + 1, 0)
        if self._thread is None:
            self._phase = phase
        else:
            self._beat("", phase)  # before it begins: it may be the last that the others hear

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin, where there are others.

        Raises:
            InputError: The processes run in unlike environments; see `check_environment`.
        """
        if trainer.world_size == 1 or self._thread is not None:
            return
        self.processes = processes = Processes(trainer.global_rank, trainer.world_size)
        check_environment(trainer, processes)
        self._patience = 0.9 * collective_timeout(trainer).total_seconds()
        self._folder = Path(trainer.default_root_dir).resolve() / "processes"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._state = {
            "rank": trainer.global_rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._beat("")
        processes.wait()  # from here on no file is one of a former run
        unwatch_children(trainer)
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="heartbeat")
        self._thread.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the phase."""
        self.phase = f"training, epoch {trainer.current_epoch}"

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how far training is, and that a checkpoint is saved."""
        if not self.phase.startswith("training"):
            self.on_train_epoch_start(trainer, pl_module)
        self._step()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note how far training is."""
        self._step()

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note how far validation is."""
        self._step()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the phase."""
        self.phase = f"validation, epoch {trainer.current_epoch}"

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note the phase."""
        self.phase = f"saving a checkpoint, epoch {trainer.current_epoch}"

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Tell the others, whose next meeting would be in vain.

        A collective operation that failed may be how this process hears of another one's death first: the
        thread that names it is given the time to find out.
        """
        if self._thread is not None and not isinstance(exception, InputError | SystemExit):
            time.sleep(4 * PERIOD)
            for beat in self._others().values():
                if not beat["ended"]:
                    log.error("%s: %s", _name(beat), _doing(beat))
        self._state["code"] = 2 if isinstance(exception, InputError) else 1
        self._end("asked to end" if isinstance(exception, SystemExit) else "failed")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say that this process is done."""
        self._end("done")

    def _step(self) -> None:
        self._place = (self._place[0], self._place[1] + 1)

    def _end(self, how: str) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            with suppress(OSError):  # what ended the run may be a full disk, and is to be heard
                self._beat(how)

    def _beat(self, ended: str, phase: str = "") -> None:
        with self._lock:
            beat = self._state | {"time": time.time(), "phase": phase or self._phase, "ended": ended}
            beat |= {"place": self._place, "at": _at(), "asked": self.interruption.received is not None}
            with written_whole(self._folder / f"rank-{self._state['rank']}.json") as temporary:
                temporary.write_text(json.dumps(beat))
            self._phase = beat["phase"]

    def _others(self) -> dict[int, dict[str, Any]]:
        """Return what the others wrote last, by rank, but for those that cannot be read just now."""
        found = {}
        for rank in {*range(self.processes.num)} - {self.processes.rank}:
            with suppress(OSError, ValueError):
                found[rank] = json.loads((self._folder / f"rank-{rank}.json").read_text())
        return found

    def _watch(self) -> None:
        seen: dict[int, _Seen] = {}
        last = time.monotonic()
        while not self._stop.wait(PERIOD):
            now = time.monotonic()
            # Where this process, or the file system, stood still, the others are not to be judged by it.
            stood, last = max(0.0, now - last - 4 * PERIOD), now
            try:
                self._beat("")
            except OSError:  # a full disk, a network file system that is away: the next round tells more
                continue
            for rank, beat in self._others().items():
                seen.setdefault(rank, _Seen(beat)).look(beat, self._place, stood)
                self._judge(seen[rank])

    def _judge(self, other: _Seen) -> None:
        beat, who = other.beat, _name(other.beat)
        if beat["asked"] or beat["ended"] == "asked to end":
            self.interruption.ask()
        is_here = beat["host"] == socket.gethostname()
        is_gone = _is_dead(beat["pid"]) if is_here else other.silent > self.limit
        if beat["ended"] == "left":
            self._leave(f"{who} left; its message says why", beat["code"])
        elif beat["ended"] == "failed":
            self._leave(f"{who} failed in this phase: {_doing(beat)}", beat["code"])
        elif not beat["ended"] and is_gone:
            self._leave(f"{who} died in this phase: {_doing(beat)}")
        elif not beat["ended"] and other.behind > self._patience:
            waited = f"the others have waited for it for {other.behind:.0f} s"
            self._leave(f"{who} hangs in this phase: {_doing(beat)}; {waited}")

    def _leave(self, reason: str, code: int = os.EX_TEMPFAIL) -> None:
        """End this process, with the code of one that failed, so that a scheduler does not start again."""
        self._state["code"] = code
        with suppress(OSError):
            self._beat("left")
        here = f"Process {self.processes.rank}, at {_at()}, leaves; start again with --ckpt_path last\n"
        os.write(2, f"{reason}. {here}".encode())
        os._exit(code)


@dataclass
class _Seen:
    """What is known of another process.

    Attributes:
        beat: What it wrote last.
        silent: Seconds since it wrote something new.
        behind: Seconds for which it has been behind this process, at the same place.
    """

    beat: dict[str, Any]
    silent: float = 0.0
    behind: float = 0.0
    _heard: float = field(default_factory=time.monotonic)
    _moved: float = field(default_factory=time.monotonic)

    def look(self, beat: dict[str, Any], place: tuple[int, int], stood: float) -> None:
        """Take note of what it wrote.

        Args:
            beat: What it wrote.
            place: Where this process is.
            stood: Seconds for which this process stood still, which do not count.
        """
        now = time.monotonic()
        self._heard, self._moved = self._heard + stood, self._moved + stood
        if beat["time"] != self.beat["time"]:
            self._heard = now
        if tuple(beat["place"]) >= place or beat["place"] != self.beat["place"]:
            self._moved = now
        self.beat, self.silent, self.behind = beat, now - self._heard, now - self._moved


def _name(beat: dict[str, Any]) -> str:
    return f"process {beat['rank']} of the run ({beat['pid']} on {beat['host']})"


def _doing(beat: dict[str, Any]) -> str:
    return f"{beat['phase']}, at {beat['at']}"


def _at() -> str:
    """Return the function that the main thread is in."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})"


def _is_dead(pid: int) -> bool:
    """Tell whether a process of this machine is gone, or waits as a zombie for its parent to notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return Path("/proc/self/stat").exists()
    return state in "ZX"
