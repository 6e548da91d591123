"""The generation loop: between training epochs it syncs the engine, measures the policy and samples."""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from mstar_pl.data.evolving import SelfEvolvingDataModule
from mstar_pl.data.images import image_digest
from mstar_pl.loops._lightning import StatefulLoop, fresh_optimizers, log_metrics
from mstar_pl.loops.evolution import Evolution, Policy
from mstar_pl.metrics.accuracy import decided_accuracy
from mstar_pl.metrics.intervals import Interval
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.rollouts.pipeline import RolloutPipeline
from mstar_pl.types import InputError, Prompt, SamplingConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy accuracy of a policy on the validation prompts, with its 95 % bootstrap interval.

    Attributes:
        step: Optimizer steps behind the policy.
        accuracy: Share of correct answers among the decided ones.
        num_correct: Correct answers; the best policy is chosen by them, so that undecided ones do not help.
        num_undecided: Answers that the check could not decide.
    """

    step: int
    accuracy: Interval
    num_correct: int
    num_undecided: int


class GenerationLoop(StatefulLoop):
    """Sample the training set of an iteration from the current policy.

    It owns the sampling temperature, and the engine, which starts once, when it is first needed.

    Args:
        trainer: The trainer.
        evolution: The settings.
    """

    def __init__(self, trainer: Trainer, evolution: Evolution) -> None:
        super().__init__(trainer)
        self.evolution = evolution
        self.temperature = evolution.sampling.temperature
        self.evaluation: Evaluation | None = None
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._logged: dict[str, float] = {}
        self._fingerprint = ""
        self._engine: RolloutEngine | None = None
        self._synced_step = -1
        self._probed = False

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
        manifest = self._data.store.manifest(iteration)
        return manifest is not None and manifest["fingerprint"] == self._fingerprint

    def run(self, iteration: int) -> None:
        """Fill the iteration in the store, unless it is there already, and log its scalars.

        Raises:
            InputError: Nothing was selected, so there is nothing to train on.
        """
        prompts = self._data.interval_prompts(iteration)
        sampling = replace(self.evolution.sampling, temperature=self.temperature)
        fingerprint = self._fingerprint_of(prompts, sampling)
        manifest = self._data.store.manifest(iteration)
        if manifest is None or manifest["fingerprint"] != fingerprint:
            with isolate_rng():
                pipeline = RolloutPipeline(
                    self._data.store,
                    self.evolution.reward,
                    self.evolution.selection,
                    self.evolution.shard_prompts,
                )
                engine = self._synced_engine()
                manifest = pipeline.run(engine, prompts, sampling, iteration, fingerprint)
            for name in ("rollout/seconds", "reward/seconds"):
                self.seconds[name] += manifest["metrics"][name]
        self._sleep()
        self._fingerprint = fingerprint
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
        if not metrics["reward/selected"]:
            raise InputError(
                f"iteration {iteration}: none of {manifest['num_rollouts']} responses was selected at "
                f"temperature {self.temperature} (Pass@1 {metrics.get('reward/pass@1', 0):.3f}); warm the "
                "policy up first, lower the temperature, draw more samples, or loosen the selection"
            )

    def start(self) -> None:
        """Start the engine, if it does not run yet, and check all prompts against it.

        A starting engine sets threads and numerics of the whole process. A run that goes on from a checkpoint
        is to train with them from its first step, as an uninterrupted one does.
        """
        if self._engine is None:
            began = time.perf_counter()
            with isolate_rng():
                engine = self.evolution.engine(self._policy.lmm)
            engine.check([*self._data.prompts, *self._data.val_prompts], self.evolution.sampling.max_tokens)
            self._engine = engine
            self._sleep()
            self.seconds["rollout/start_seconds"] += time.perf_counter() - began

    def restart(self) -> None:
        """Set back what the method does not inherit from the last iteration: weights, optimizer, schedule."""
        if self.evolution.restart_policy:
            with isolate_rng():
                self._policy.restart_policy()
        if self.evolution.restart_optimizer:
            fresh_optimizers(self.trainer)

    def evaluate(self) -> None:
        """Measure the greedy accuracy of the current policy on the validation prompts and log it."""
        prompts = self._data.val_prompts
        if not prompts:
            return
        with isolate_rng():
            engine = self._synced_engine()
            began = time.perf_counter()
            sampling = SamplingConfig(max_tokens=self.evolution.sampling.max_tokens)
            outcomes = [
                self.evolution.reward(group)[0].outcome for group in engine.generate(prompts, sampling)
            ]
            self.seconds["eval/seconds"] += time.perf_counter() - began
        accuracy = decided_accuracy(outcomes) or Interval(0.0, 0.0, 1.0)
        self.evaluation = Evaluation(
            step=self.trainer.global_step,
            accuracy=accuracy,
            num_correct=outcomes.count("correct"),
            num_undecided=outcomes.count("undecided"),
        )
        metrics = {
            "eval/accuracy": accuracy.mean,
            "eval/accuracy_low": accuracy.low,
            "eval/accuracy_high": accuracy.high,
            "eval/undecided": self.evaluation.num_undecided / len(prompts),
        }
        log_metrics(self.trainer, metrics)
        log.info(
            "step %d: validation accuracy %.1f %% (%.1f to %.1f)",
            self.trainer.global_step,
            *(100 * value for value in accuracy),
        )

    def log_seconds(self) -> None:
        """Log how long each phase took since the last call, and the peak memory of the process."""
        metrics = {name: spent - self._logged.get(name, 0.0) for name, spent in self.seconds.items()}
        self._logged = dict(self.seconds)
        if torch.cuda.is_available():
            metrics["train/peak_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        else:
            metrics["train/peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        log_metrics(self.trainer, metrics)

    @property
    def _policy(self) -> Policy:
        module = self.trainer.lightning_module
        if not isinstance(module, Policy):
            raise InputError(f"trainer.evolution evolves a PolicyModule, not a {type(module).__name__}")
        return module

    @property
    def _data(self) -> SelfEvolvingDataModule:
        data = self.trainer.datamodule  # type: ignore[attr-defined] # set by fit
        if not isinstance(data, SelfEvolvingDataModule):
            raise InputError(
                f"trainer.evolution needs a SelfEvolvingDataModule, not a {type(data).__name__}; "
                "set data.class_path to mstar_pl.data.evolving.SelfEvolvingDataModule"
            )
        return data

    def _sleep(self) -> None:
        """Give the engine's memory to training."""
        if self._engine is not None:
            self._engine.sleep()
            self._synced_step = -1

    def _synced_engine(self) -> RolloutEngine:
        """Return the engine with this step's weights; the first sync is probed."""
        engine = self._engine
        assert engine is not None, "start comes first"
        began, step = time.perf_counter(), self.trainer.global_step
        if self._synced_step != step:
            engine.wake()
            with self._policy.policy_weights() as weights:
                engine.load_policy(weights.items(), version=step)
            self._synced_step = step
        if not self._probed:
            lmm, tolerance = self._policy.lmm, self.evolution.parity_tolerance
            if tolerance is None:
                tolerance = (
                    0.02 if lmm.dtype == "float32" and "bf16" not in str(self.trainer.precision) else 0.5
                )
            gap = check_parity(engine, lmm, self._policy.model, self._data.prompts[:2], tolerance=tolerance)
            self._probed = True
            log.info("engine and training model agree: largest gap %.4f nats", gap)
        self.seconds["rollout/sync_seconds"] += time.perf_counter() - began
        return engine

    def _fingerprint_of(self, prompts: list[Prompt], sampling: SamplingConfig) -> str:
        """Return what the rollouts of an iteration depend on as JSON."""
        lmm = self._policy.lmm
        # What the policy reads: rendered text and the contents of the images.
        content = json.dumps(
            [
                (prompt.to_json(), lmm.render(prompt), [image_digest(image) for image in prompt.images])
                for prompt in prompts
            ],
            sort_keys=True,
        )
        with self._policy.policy_weights() as weights:
            digest = _digest(weights.items())
        return json.dumps(
            {
                "lmm": [type(lmm).__qualname__, lmm.dtype, lmm.options],
                "policy_step": self.trainer.global_step,
                "weights": digest,
                "prompts": hashlib.sha256(content.encode()).hexdigest()[:16],
                "sampling": asdict(sampling),
                "reward": _describe(self.evolution.reward),
                "selection": _describe(self.evolution.selection),
            }
        )


def _digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of names and first values of all tensors, which tells one policy from another."""
    digest = hashlib.sha256()
    for name, tensor in weights:
        digest.update(name.encode())
        digest.update(tensor.detach().flatten()[:64].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _describe(part: object) -> str:
    """Return class and public options; of what is no JSON value, only the type."""
    options = {name: value for name, value in getattr(part, "__dict__", {}).items() if name[0] != "_"}
    values = json.dumps(options, sort_keys=True, default=lambda value: type(value).__qualname__)
    return f"{type(part).__module__}.{type(part).__qualname__}({values})"
