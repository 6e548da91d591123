"""Adapting the sampling temperature to the policy."""

from __future__ import annotations

import logging
import time
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from mstar_pl.data.evolving import SelfEvolvingDataModule
from mstar_pl.loops import SelfEvolvingLoop, SelfEvolvingTrainer
from mstar_pl.rewards.reward import AnswerReward
from mstar_pl.types import InputError

log = logging.getLogger(__name__)

PAPER_TEMPERATURES = tuple(tenths / 10 for tenths in range(3, 17))


class AdaptiveTemperature(Callback):
    """Sample at the temperature that the current policy makes most of (arXiv 2412.17451, section 4).

    Every few iterations the validation prompts are sampled at all candidate temperatures, as one job of the
    running engine, and the best one holds until the next sweep; the lower one of equals. The paper chooses by
    Reward-Pass@2: whether one of the two responses that the process reward ranks highest is correct.

    How many samples a sweep draws is bounded by `trainer.evolution.validation`:
    temperatures x num_prompts x num_samples.

    Args:
        every_n_iterations: Iterations between sweeps.
        temperatures: Candidates; default is 0.3 to 1.6 by 0.1.
        metric: What is to be highest: `reward_pass`, or `pass` (Pass@K, the paper's ablation).
        at_start: Also sweep before the first iteration; else that one has the configured temperature.

    Raises:
        InputError: A value is out of range.
    """

    def __init__(
        self,
        every_n_iterations: int = 2,
        temperatures: list[float] | None = None,
        metric: Literal["reward_pass", "pass"] = "reward_pass",
        at_start: bool = False,
    ) -> None:
        self.every_n_iterations = every_n_iterations
        self.temperatures = sorted(set(temperatures or PAPER_TEMPERATURES))
        self.metric = metric
        self.at_start = at_start
        self.chosen: dict[int, float] = {}
        if every_n_iterations < 1 or not 0 < self.temperatures[0] <= self.temperatures[-1] <= 2:
            raise InputError(
                "AdaptiveTemperature: every_n_iterations must be at least 1, temperatures in (0, 2]"
            )

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the run has what a sweep needs."""
        if stage != "fit":
            return
        evolving = trainer.evolving if isinstance(trainer, SelfEvolvingTrainer) else None
        data = trainer.datamodule  # type: ignore[attr-defined] # set by fit
        if evolving is None or not isinstance(data, SelfEvolvingDataModule) or not data.given["val_prompts"]:
            raise InputError("AdaptiveTemperature needs trainer.evolution and data.val_prompts; set both")
        evolution = evolving.generation.evolution
        if not evolution.validation.num_samples:
            raise InputError("AdaptiveTemperature needs trainer.evolution.validation.num_samples above 0")
        reward = getattr(evolution.reward, "reward", evolution.reward)  # of pseudo answers
        if self.metric == "reward_pass" and isinstance(reward, AnswerReward):
            raise InputError(
                "AdaptiveTemperature ranks by a process reward; set trainer.evolution.reward to "
                "ProcessReward, or metric: pass"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sweep before the first iteration, if wanted."""
        if self.at_start and not self.chosen and trainer.global_step == 0:
            self._sweep(trainer, 0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sweep after every n-th iteration, unless it was the last."""
        done = trainer.current_epoch + 1
        if done % self.every_n_iterations == 0 and done != trainer.max_epochs:
            self._sweep(trainer, done)

    def state_dict(self) -> dict[str, Any]:
        """Return the temperatures that were chosen, by the number of iterations before."""
        return {"chosen": dict(self.chosen)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back; the loop restores the current one itself."""
        self.chosen = dict(state_dict["chosen"])

    def _sweep(self, trainer: Trainer, iteration: int) -> None:
        assert isinstance(trainer, SelfEvolvingTrainer)
        evolving = trainer.evolving
        assert isinstance(evolving, SelfEvolvingLoop)
        began = time.perf_counter()
        curve = evolving.measurement.sweep(iteration, self.temperatures)
        validation = evolving.generation.evolution.validation
        ranked, drawn = f"reward_pass@{validation.k}", f"pass@{validation.num_samples}"
        name = ranked if self.metric == "reward_pass" else drawn
        if not all(name in curve.get(temperature, {}) for temperature in self.temperatures):
            raise InputError(
                f"iteration {iteration}: the sweep found no {name}; the reward gives no process score, or "
                "every answer is undecided"
            )
        percent = {temperature: 100 * by_name[name].mean for temperature, by_name in curve.items()}
        best = max(percent, key=percent.__getitem__)  # the first of equals: temperatures rise
        points = ", ".join(f"{temperature:g}: {value:.1f}" for temperature, value in percent.items())
        before, evolving.generation.temperature = evolving.generation.temperature, best
        self.chosen[iteration] = best
        log.info("%s in percent by temperature: %s", name, points)
        seconds = time.perf_counter() - began
        log.info("temperature %g -> %g after iteration %d (%.0f s)", before, best, iteration, seconds)
