"""Knowing of the other processes of a run: that they live, what they do, and that they were asked to end."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mstar_pl.data.durable import written_whole
from mstar_pl.distributed import Processes
from mstar_pl.loops.interruption import Interruption
from mstar_pl.types import InputError

PERIOD = 0.25


class Heartbeat(Callback):
    """End this process soon after another one of the run died, and name that one and what it did.

    Each process writes four times a second what it does to `DEFAULT_ROOT_DIR/processes`, and reads what the
    others wrote. Collective operations alone would wait for a dead process until their time limit, and then
    name nobody. One that hangs is ended by the limits of engine (`evolution.engine_timeout`) and collectives
    (`timeout` of the strategy), and then is a dead one.

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
        if self._thread is None:
            self._phase = phase
        else:
            self._beat("", phase)  # before it begins: it may be the last that the others hear

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin, where there are others."""
        if trainer.world_size == 1 or self._thread is not None:
            return
        self.processes = processes = Processes(trainer.global_rank, trainer.world_size)
        self._folder = Path(processes.first(lambda: trainer.default_root_dir)) / "processes"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._state = {
            "rank": trainer.global_rank,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._beat("")
        processes.wait()  # from here on no file is one of a former run
        others = [rank for rank in range(trainer.world_size) if rank != trainer.global_rank]
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, args=[others], daemon=True, name="heartbeat")
        self._thread.start()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the phase."""
        self.phase = f"training, epoch {trainer.current_epoch}"

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
        self._end("asked to end" if isinstance(exception, SystemExit) else "failed")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Say that this process is done."""
        self._end("done")

    def _end(self, how: str) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            self._beat(how)

    def _beat(self, ended: str, phase: str = "") -> None:
        with self._lock:
            beat = self._state | {"time": time.time(), "phase": phase or self._phase, "ended": ended}
            beat["asked"] = self.interruption.received is not None
            with written_whole(self._folder / f"rank-{self._state['rank']}.json") as temporary:
                temporary.write_text(json.dumps(beat))
            self._phase = beat["phase"]

    def _watch(self, others: list[int]) -> None:
        seen: dict[int, tuple[dict[str, Any], float]] = {}
        while not self._stop.wait(PERIOD):
            self._beat("")
            for rank in others:
                beat = self._read(rank)
                last, since = seen.get(rank, ({}, 0.0))
                if beat["time"] != last.get("time"):
                    seen[rank] = last, since = beat, time.monotonic()
                self._judge(last, time.monotonic() - since)

    def _judge(self, beat: dict[str, Any], silent: float) -> None:
        who = f"process {beat['rank']} of the run ({beat['pid']} on {beat['host']})"
        if beat["asked"] or beat["ended"] == "asked to end":
            self.interruption.ask()
        elif beat["ended"] == "failed":
            _leave(f"{who} failed in this phase: {beat['phase']}")
        elif not beat["ended"] and (_is_dead(beat) or silent > self.limit):
            _leave(f"{who} died in this phase: {beat['phase']}")

    def _read(self, rank: int) -> dict[str, Any]:
        return json.loads((self._folder / f"rank-{rank}.json").read_text())


def _is_dead(beat: dict[str, Any]) -> bool:
    """Tell whether a process of this machine is gone, or waits as a zombie for its parent to notice."""
    if beat["host"] != socket.gethostname():
        return False
    try:
        state = Path(f"/proc/{beat['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return Path("/proc/self/stat").exists()
    return state in "ZX"


def _leave(reason: str) -> None:
    os.write(2, f"{reason}. Leaving; start again with --ckpt_path last\n".encode())
    os._exit(os.EX_TEMPFAIL)
