"""The generation loop: between training epochs it syncs the engine and samples the next training set."""

from __future__ import annotations

import logging
import resource
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from mstar_pl.data.evolving import SelfEvolvingDataModule
from mstar_pl.data.store import RolloutStore
from mstar_pl.loops._lightning import StatefulLoop, log_metrics
from mstar_pl.loops.evolution import Evolution, Policy
from mstar_pl.loops.fingerprint import fingerprint
from mstar_pl.loops.health import check_disk, check_memory, check_rollouts, checkpoint_bytes, rollout_bytes
from mstar_pl.loops.heartbeat import Heartbeat
from mstar_pl.loops.interruption import Interruption
from mstar_pl.rewards.pseudo import PseudoAnswerReward
from mstar_pl.rewards.reward import ModelReward, Reward
from mstar_pl.rewards.selection import Selection
from mstar_pl.rollouts.engine import EngineError, RolloutEngine
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.rollouts.pipeline import RolloutPipeline, Summary
from mstar_pl.types import InputError, Prompt, SamplingConfig

log = logging.getLogger(__name__)


class GenerationLoop(StatefulLoop):
    """Sample the training set of an iteration from the current policy.

    It owns the sampling temperature, and the engine, which starts once, when it is first needed.

    Args:
        trainer: The trainer.
        evolution: The settings.
        interruption: A request to end.
        heartbeat: The connection to the other processes of the run.

    Attributes:
        is_saved: Whether the run can be resumed from here; between shards it ends then on request.
    """

    def __init__(
        self, trainer: Trainer, evolution: Evolution, interruption: Interruption, heartbeat: Heartbeat
    ) -> None:
        super().__init__(trainer)
        self.evolution = evolution
        self.interruption = interruption
        self.heartbeat = heartbeat
        self.temperature = evolution.sampling.temperature
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._logged: dict[str, float] = {}
        self._fingerprint = ""
        self._engine: RolloutEngine | None = None
        self._synced_step = -1
        self._probed = False
        self.is_saved = True

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Return the temperature and what the rollouts being trained on depend on."""
        return {
            "temperature": self.temperature,
            "configured_temperature": self.evolution.sampling.temperature,
            "fingerprint": self._fingerprint,
        }

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Take them back; a temperature that was changed in the configuration since then wins."""
        if state_dict["configured_temperature"] == self.evolution.sampling.temperature:
            self.temperature = state_dict["temperature"]
        self._fingerprint = state_dict["fingerprint"]

    def is_complete(self, iteration: int) -> bool:
        """Tell whether the store holds the rollouts that this run made for the iteration."""
        manifest = self.heartbeat.processes.first(lambda: self.data.store.manifest(iteration))
        return manifest is not None and manifest["fingerprint"] == self._fingerprint

    def run(self, iteration: int) -> None:
        """Fill the iteration in the store, unless it is there already, and log its scalars.

        Raises:
            InputError: Nothing was selected, so there is nothing to train on, or the policy has collapsed.
        """
        prompts, store = self.data.interval_prompts(iteration), self.data.store
        if store.manifest(iteration) is None:
            former = store.manifest(iteration - 1) if iteration else None
            needed = rollout_bytes(prompts, self.evolution.sampling, former)
            needed += checkpoint_bytes(self.trainer.lightning_module)
            check_disk(Path(self.trainer.default_root_dir), iteration, needed)
        sampling = replace(self.evolution.sampling, temperature=self.temperature)
        manifest = self.fill(store, iteration, prompts, [sampling], selection=self.evolution.selection)
        self._sleep()
        self._fingerprint = manifest["fingerprint"]
        metrics = manifest["metrics"]
        log_metrics(self.trainer, metrics | {"dynamics/temperature": self.temperature})
        log.info(
            "iteration %d: %d prompts, %.1f %% of the responses selected (%d), %.1f %% of the prompts solved",
            iteration,
            metrics["rollout/prompts"],
            100 * metrics["reward/acceptance"],
            metrics["reward/selected"],
            100 * metrics["reward/solved_prompts"],
        )
        folder = store.folder(iteration)
        check_rollouts(iteration, manifest, folder, self.temperature, self.evolution.max_degenerate)

    def fill(
        self,
        store: RolloutStore,
        iteration: int,
        prompts: Sequence[Prompt],
        samplings: Sequence[SamplingConfig],
        *,
        reward: Reward | None = None,
        selection: Selection | None = None,
        summary: Summary | None = None,
        seconds: tuple[str, str] = ("rollout/seconds", "reward/seconds"),
    ) -> dict[str, Any]:
        """Fill an iteration of a store from the current policy, unless it is there, and return the manifest.

        An engine that fails is started once more and goes on behind the last shard; the draws are the same.

        Args:
            store: The store.
            iteration: Number of the iteration.
            prompts: Prompts to sample.
            samplings: How to sample each.
            reward: What a response is worth; default is the run's reward.
            selection: Which responses to train on; None only measures.
            summary: Function from the groups to the metrics of the manifest.
            seconds: Names under which sampling and scoring are timed.
        """
        reward, processes = reward or self.evolution.reward, self.heartbeat.processes
        with self.policy.policy_weights() as weights:
            found = fingerprint(
                self.policy.lmm,
                weights,
                self.trainer.global_step,
                prompts,
                samplings,
                reward=reward,
                selection=selection,
                second_chance=self.evolution.second_chance if selection else None,
            )
        if len({*processes.gather(found)}) > 1:
            raise InputError("the processes of this run differ in options, data or weights; they must agree")
        manifest = processes.first(lambda: store.manifest(iteration))
        if manifest is not None and manifest["fingerprint"] == found:
            return manifest
        pipeline = RolloutPipeline(
            store,
            reward,
            selection,
            self.evolution.shard_prompts,
            self.evolution.second_chance,
            timeout=60 * self.evolution.engine_timeout if self.evolution.engine_timeout else None,
            processes=processes,
            after_shard=self._end_if_asked,
        )

        def sample() -> dict[str, Any]:
            with isolate_rng():
                engine = self._synced_engine()
                if isinstance(reward, ModelReward):
                    reward.wake(str(self.trainer.strategy.root_device))
                return pipeline.run(
                    engine, prompts, samplings, iteration, found, summary, title=store.root.name
                )

        self.start()
        self.heartbeat.phase = f"sampling, {store.root.name} {iteration}"
        try:
            manifest = sample()
        except EngineError as error:
            if processes.num > 1:  # engines start together
                raise
            log.exception("the engine failed (%s); starting it once more", error)
            self._drop_engine()
            self.start()
            manifest = sample()
        except RuntimeError:  # another process left while this one waited for it
            self.interruption.end_if_asked()
            raise
        for name, key in zip(seconds, ("rollout/seconds", "reward/seconds"), strict=True):
            self.seconds[name] += manifest["metrics"][key]
        return manifest

    def start(self) -> None:
        """Start the engine, if it does not run yet, and check all prompts against it.

        A starting engine sets threads and numerics of the whole process. A run that goes on from a checkpoint
        is to train with them from its first step, as an uninterrupted one does.
        """
        if self._engine is None:
            if self.data.unlabelled and not isinstance(self.evolution.reward, PseudoAnswerReward):
                raise InputError(
                    "unlabelled prompts need pseudo answers; set trainer.evolution.reward to "
                    "mstar_pl.rewards.pseudo.PseudoAnswerReward around the reward"
                )
            began = time.perf_counter()
            self.heartbeat.phase = "starting the engine"
            with isolate_rng():
                engine = self.evolution.engine(self.policy.lmm)
            prompts = chain(self.data.all_prompts, self.data.val_prompts)
            engine.check(prompts, self.evolution.sampling.max_tokens)
            if self.trainer.strategy.root_device.type == "cuda":
                check_memory(
                    self.trainer.lightning_module,
                    self.trainer.optimizers,
                    engine.gpu_share,
                    torch.cuda.get_device_properties(self.trainer.strategy.root_device).total_memory,
                    buckets=isinstance(self.trainer.strategy, DDPStrategy),
                )
            self._engine = engine
            self._sleep()
            self.heartbeat.phase = "waiting for the other engines"
            self.seconds["rollout/start_seconds"] += time.perf_counter() - began

    def restart(self) -> None:
        """Set back what the method does not inherit from the last iteration: weights, optimizer, schedule."""
        if self.evolution.restart_policy:
            with isolate_rng():
                self.policy.restart_policy()
        if self.evolution.restart_optimizer:
            self.trainer.strategy.setup_optimizers(self.trainer)  # as at the start of `fit`

    def log_seconds(self) -> None:
        """Log how long each phase took since the last call, and the peak memory of the process."""
        metrics = {name: spent - self._logged.get(name, 0.0) for name, spent in self.seconds.items()}
        self._logged = dict(self.seconds)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        peaks = self.heartbeat.processes.gather(peak)
        log_metrics(self.trainer, metrics | {"train/peak_memory_gib": max(peaks) / 2**30})

    @property
    def policy(self) -> Policy:
        """The module that evolves."""
        module = self.trainer.lightning_module
        if not isinstance(module, Policy):
            raise InputError(f"trainer.evolution evolves a PolicyModule, not a {type(module).__name__}")
        return module

    @property
    def data(self) -> SelfEvolvingDataModule:
        """The data module of the run."""
        data = self.trainer.datamodule  # type: ignore[attr-defined] # set by fit
        if not isinstance(data, SelfEvolvingDataModule):
            raise InputError(
                f"trainer.evolution needs a SelfEvolvingDataModule, not a {type(data).__name__}; "
                "set data.class_path to mstar_pl.data.evolving.SelfEvolvingDataModule"
            )
        return data

    def _end_if_asked(self) -> None:
        """End on request, together with the processes that hold the same engine, which would wait."""
        assert self._engine is not None, "it has just answered"
        team = self.heartbeat.processes.team(self._engine.num_processes)
        if any(team.gather(self.interruption.received is not None)):
            self.interruption.ask()
        if self.is_saved:
            self.interruption.end_if_asked()

    def _drop_engine(self) -> None:
        if self._engine is not None:
            with suppress(Exception):  # it is broken already
                self._engine.close()
        self._engine, self._synced_step, self._probed = None, -1, False

    def _sleep(self) -> None:
        """Give the memory of engine and reward to training."""
        if isinstance(self.evolution.reward, ModelReward):
            self.evolution.reward.sleep()
        if self._engine is not None:
            self._engine.sleep()
            self._synced_step = -1

    def _synced_engine(self) -> RolloutEngine:
        """Return the engine with this step's weights; the first sync is probed."""
        engine = self._engine
        assert engine is not None, "start comes first"
        began, step = time.perf_counter(), self.trainer.global_step
        if self._synced_step != step:
            for optimizer in self.trainer.optimizers:
                optimizer.zero_grad()  # else the last step's gradients would keep their memory
            engine.wake()
            with self.policy.policy_weights(engine.takes_updates) as weights:
                engine.load_policy(weights.items(), version=step)
            self._synced_step = step
        if not self._probed:
            lmm, tolerance = self.policy.lmm, self.evolution.parity_tolerance
            if tolerance is None:
                kinds = {lmm.dtype, engine.dtype or lmm.dtype, str(self.trainer.precision)}
                tolerance = 0.02 if kinds <= {"float32", "32-true"} else 0.5
            gap = check_parity(engine, lmm, self.policy.model, self.data.prompts[:2], tolerance=tolerance)
            self._probed = True
            log.info("engine and training model agree: largest gap %.4f nats", gap)
        self.seconds["rollout/sync_seconds"] += time.perf_counter() - began
        return engine
