"""Measuring the policy on the validation prompts: greedy accuracy, and the dynamics of its samples."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mstar_pl.data.store import RolloutStore
from mstar_pl.loops._lightning import log_metrics
from mstar_pl.loops.generation import GenerationLoop
from mstar_pl.metrics.accuracy import decided_accuracy
from mstar_pl.metrics.dynamics import PassAtK, PassGap, PromptMean, RewardPassAtK
from mstar_pl.metrics.intervals import Interval
from mstar_pl.rewards.reward import ModelReward
from mstar_pl.types import SamplingConfig, Score, ScoredGroup

log = logging.getLogger(__name__)
Scored = tuple[str, tuple[Score, ...]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Greedy accuracy of a policy on the validation prompts, with its 95 % bootstrap interval.

    Attributes:
        step: Optimizer steps behind the policy.
        accuracy: Share of correct answers among the decided ones.
        num_correct: Correct answers; the best policy is chosen by them, so that undecided ones do not help.
    """

    step: int
    accuracy: Interval
    num_correct: int


class Measurement:
    """Answer and sample the validation prompts with the current policy.

    All responses are kept, like those of an iteration, in `validation`, `dynamics` and `sweep` beside the
    rollouts; what is there already, from before a crash, is used.

    Args:
        generation: The loop that holds the engine.
    """

    def __init__(self, generation: GenerationLoop) -> None:
        self.generation = generation
        self.evaluation: Evaluation | None = None
        self._greedy: dict[str, bool] = {}

    def evaluate(self, iteration: int) -> None:
        """Measure greedy accuracy, then the dynamics at the current temperature, and log them.

        Args:
            iteration: Iterations behind the policy.
        """
        prompts = self.generation.data.val_prompts
        if not prompts:
            return
        store, trainer = self._store("validation"), self.generation.trainer
        greedy = SamplingConfig(max_tokens=self.generation.evolution.sampling.max_tokens)
        timed = ("eval/seconds", "eval/score_seconds")
        reward = self.generation.evolution.reward
        answers = reward.answers if isinstance(reward, ModelReward) else reward
        self.generation.fill(store, iteration, prompts, [greedy], reward=answers, seconds=timed)
        found = {one.group.prompt.id: one.scores[0].outcome for one in store.groups(iteration)}
        outcomes = [found[prompt.id] for prompt in prompts]
        self._greedy = {key: outcome == "correct" for key, outcome in found.items() if outcome != "undecided"}
        accuracy = decided_accuracy(outcomes) or Interval(0.0, 0.0, 1.0)
        num_correct, undecided = outcomes.count("correct"), outcomes.count("undecided") / len(prompts)
        self.evaluation = Evaluation(step=trainer.global_step, accuracy=accuracy, num_correct=num_correct)
        log_metrics(trainer, named("eval/accuracy", accuracy) | {"eval/undecided": undecided})
        log.info("step %d: validation accuracy %s", trainer.global_step, accuracy.percent)
        if self.generation.evolution.validation.num_samples:
            for by_name in self._sample("dynamics", iteration, [self.generation.temperature]).values():
                for name, interval in by_name.items():
                    log_metrics(trainer, named(f"dynamics/{name}", interval))

    def sweep(self, iteration: int, temperatures: Sequence[float]) -> dict[float, dict[str, Interval]]:
        """Sample the validation prompts at several temperatures, as one job, and log the dynamics of each.

        Args:
            iteration: Iterations behind the policy.
            temperatures: The temperatures.

        Returns:
            By temperature and metric: `pass@1`, `pass@16`, `pass@16-greedy`, `reward_pass@2`. A temperature
            at which no prompt is decided is left out.
        """
        curve = self._sample("sweep", iteration, temperatures)
        for temperature, by_name in curve.items():
            for name, interval in by_name.items():
                log_metrics(self.generation.trainer, named(f"dynamics/{name}/T{temperature:g}", interval))
        return curve

    def _sample(
        self, folder: str, iteration: int, temperatures: Sequence[float]
    ) -> dict[float, dict[str, Interval]]:
        validation, sampling = self.generation.evolution.validation, self.generation.evolution.sampling
        samplings = [
            replace(sampling, num_samples=validation.num_samples, temperature=temperature)
            for temperature in temperatures
        ]
        store = self._store(folder)
        summary = partial(_flat, greedy=self._greedy, k=validation.k)
        timed = ("dynamics/seconds", "dynamics/score_seconds")
        prompts = self.generation.data.val_prompts[: validation.num_prompts]
        self.generation.fill(store, iteration, prompts, samplings, summary=summary, seconds=timed)
        return dynamics(store.groups(iteration), self._greedy, validation.k)

    def _store(self, name: str) -> RolloutStore:
        return RolloutStore(Path(self.generation.trainer.default_root_dir) / name)


def dynamics(
    groups: Iterable[ScoredGroup], greedy: Mapping[str, bool], k: int
) -> dict[float, dict[str, Interval]]:
    """Return Pass@1, Pass@K, Pass@K - greedy and Reward-Pass@k by temperature (arXiv 2412.17451, section 4).

    Reward-Pass@k ranks all responses by process reward, wrong ones included. A prompt with an undecided
    response is left out at that temperature: with fewer samples it would be another metric.

    Args:
        groups: K samples of each prompt at each temperature.
        greedy: By prompt id, whether the greedy response is correct.
        k: How many of the best-ranked responses count.
    """
    by_temperature: defaultdict[float, list[Scored]] = defaultdict(list)
    for one in groups:
        if all(score.outcome != "undecided" for score in one.scores):
            by_temperature[one.group.temperature].append((one.group.prompt.id, one.scores))
    return {temperature: _dynamics(found, greedy, k) for temperature, found in sorted(by_temperature.items())}


def _dynamics(found: Sequence[Scored], greedy: Mapping[str, bool], k: int) -> dict[str, Interval]:
    num = max(len(scores) for _, scores in found)
    alone = {"sync_on_compute": False}  # each process has the responses of all
    first, any_of = PassAtK(1, **alone), PassAtK(num, **alone)
    gap, ranked = PassGap(num, **alone), RewardPassAtK(k, **alone)
    metrics: dict[str, PromptMean] = {"pass@1": first, f"pass@{num}": any_of}
    for prompt_id, scores in found:
        correct = [score.outcome == "correct" for score in scores]
        first.update(num, sum(correct))
        any_of.update(num, sum(correct))
        if (right := greedy.get(prompt_id)) is not None:
            gap.update(num, sum(correct), right)
            metrics[f"pass@{num}-greedy"] = gap
        process = [score.process for score in scores if score.process is not None]
        if len(process) == num >= k:
            ranked.update(process, correct)
            metrics[f"reward_pass@{k}"] = ranked
    return {name: Interval(*metric.compute().tolist()) for name, metric in metrics.items()}


def named(name: str, interval: Interval) -> dict[str, float]:
    """Return the three scalars of an interval.

    >>> named("eval/accuracy", Interval(0.5, 0.4, 0.6))
    {'eval/accuracy': 0.5, 'eval/accuracy_low': 0.4, 'eval/accuracy_high': 0.6}
    """
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _flat(groups: Iterable[ScoredGroup], greedy: Mapping[str, bool], k: int) -> dict[str, float]:
    return {
        f"T{temperature:g}/{name}": interval.mean
        for temperature, by_name in dynamics(groups, greedy, k).items()
        for name, interval in by_name.items()
    }
