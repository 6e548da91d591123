"""The self-evolving loop and the trainer that installs it."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mstar_pl.data.durable import left_of, locked
from mstar_pl.loops._lightning import FolderCheckpoint, PhasedFitLoop, leave_signals
from mstar_pl.loops.environment import check_reachable
from mstar_pl.loops.evolution import Evolution
from mstar_pl.loops.generation import GenerationLoop
from mstar_pl.loops.heartbeat import Heartbeat
from mstar_pl.loops.interruption import Interrupted, Interruption
from mstar_pl.loops.measurement import Evaluation, Measurement
from mstar_pl.types import InputError

log = logging.getLogger(__name__)


class SelfEvolvingLoop(PhasedFitLoop):
    """Alternate generation and training; one epoch is one iteration (arXiv 2412.17451, section 3).

    Before an epoch: sample, score, select. After it: measure the policy. Weights, optimizer and schedule stay
    in place in between unless the method says otherwise.

    Args:
        trainer: The trainer.
        evolution: The settings.
    """

    def __init__(self, trainer: SelfEvolvingTrainer, evolution: Evolution) -> None:
        super().__init__(trainer)
        self.generation = GenerationLoop(trainer, evolution, trainer.interruption, trainer.heartbeat)
        self.measurement = Measurement(self.generation)
        self._began = self._training_began = 0.0

    def before_fit(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def after_fit(self) -> None:
        """Say where the time went."""
        whole = time.perf_counter() - self._began
        shares = {name: spent / whole for name, spent in self.generation.seconds.items()}
        shares["everything else"] = 1.0 - sum(shares.values())
        parts = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        log.info("%.0f s: %s", whole, parts)

    def is_ready(self, epoch: int) -> bool:
        """Tell whether the rollouts of the iteration are in the store."""
        return self.generation.is_complete(epoch)

    def before_epoch(self, epoch: int, resumed: bool) -> None:
        """Fill the iteration in the store.

        Raises:
            InputError: The run goes on inside an iteration whose rollouts are gone.
        """
        self.generation.start()
        self.generation.is_saved = True
        if resumed:
            if not self.is_ready(epoch):
                raise InputError(
                    f"the checkpoint lies inside iteration {epoch}, whose rollouts are not in the store any "
                    "more; put them back, or resume from a checkpoint of an epoch's end"
                )
        else:
            if epoch == 0:
                self.measurement.evaluate(0)
            self.generation.run(epoch)
            if epoch > 0:
                self.generation.restart()
        self._training_began = time.perf_counter()

    def after_epoch(self, epoch: int) -> None:
        """Measure the policy."""
        self.generation.seconds["train/seconds"] += time.perf_counter() - self._training_began
        self.generation.is_saved = False
        self.measurement.evaluate(epoch + 1)
        self.generation.log_seconds()


class SelfEvolvingTrainer(Trainer):
    """Lightning's Trainer, which alternates generation and training where `evolution` is given.

    Args:
        evolution: Settings of self-evolving training; None trains on a fixed data set.
        kwargs: Arguments of Lightning's Trainer. `max_epochs` is the number of iterations.

    Raises:
        InputError: The strategy is one that does not work here.
    """

    def __init__(self, *args: Any, evolution: Evolution | None = None, **kwargs: Any) -> None:
        # The loaders of the data modules give each process its share; Lightning would cut it once more.
        kwargs["use_distributed_sampler"] = False
        if evolution is not None and kwargs.get("fast_dev_run"):  # it leaves the rollouts of a run alone
            kwargs["default_root_dir"] = str(Path(kwargs.get("default_root_dir") or "") / "fast_dev_run")
        if str(kwargs.get("strategy")).startswith(("ddp_spawn", "ddp_fork", "ddp_notebook")):
            raise InputError(
                "trainer.strategy: processes that are forked or spawned are not supported; set ddp"
            )
        if kwargs.get("strategy") == "ddp":  # buffers do not change in training
            kwargs["strategy"] = DDPStrategy(forward_sync_buffers=False, gradient_as_bucket_view=True)
        super().__init__(*args, reload_dataloaders_every_n_epochs=1, **kwargs)
        if isinstance(self.strategy, FSDPStrategy | DeepSpeedStrategy):
            raise InputError(
                f"trainer.strategy {type(self.strategy).__name__} is not supported: it flattens or hides the "
                "parameters that are given to the engine; take configs/trainer/ddp.yaml or fsdp2.yaml"
            )
        if not self.is_global_zero:
            logging.getLogger("mstar_pl").setLevel(logging.WARNING)
        self.interruption = Interruption()
        self.heartbeat = Heartbeat(self.interruption)
        self.callbacks.insert(0, self.heartbeat)  # type: ignore[attr-defined] # set by theirs
        if evolution is not None:
            self.fit_loop = SelfEvolvingLoop(self, evolution)

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train as Lightning's Trainer does, alone in `default_root_dir`.

        Raises:
            InputError: Another run is at work there, or was and would be overwritten; or the first of several
                machines cannot be reached.
            Interrupted: The scheduler asked the run to end. With a `ResumeCheckpoint` everything is saved.
        """
        is_dry = getattr(self, "fast_dev_run", False)
        for last in [] if is_dry or kwargs.get("ckpt_path") else self._saves:
            if left_of(last) is not None:
                raise InputError(
                    f"{last}: a run is in this folder, and would be overwritten; go on with it by "
                    "--ckpt_path last, or set another trainer.default_root_dir"
                )
        nodes = getattr(self.strategy, "cluster_environment", None)
        if nodes is not None and nodes.node_rank() > 0:
            check_reachable(nodes.main_address, nodes.main_port)
        if self._saves:
            leave_signals(self)
        has_folder = self.is_global_zero and not is_dry
        with (
            locked(Path(self.default_root_dir)) if has_folder else nullcontext(),
            self.interruption.watched() if self._saves else nullcontext(),
        ):
            try:
                super().fit(*args, **kwargs)
            except SIGTERMException:
                raise Interrupted from None

    @property
    def _saves(self) -> list[Path]:
        """The checkpoints that the run writes, to go on from."""
        return [one.last(self) for one in self.checkpoint_callbacks if isinstance(one, FolderCheckpoint)]

    @property
    def evolving(self) -> SelfEvolvingLoop | None:
        """The self-evolving loop, or None where the trainer only trains."""
        return self.fit_loop if isinstance(self.fit_loop, SelfEvolvingLoop) else None

    @property
    def evaluation(self) -> Evaluation | None:
        """The last greedy accuracy on the validation prompts, or None."""
        return self.evolving.measurement.evaluation if self.evolving else None
