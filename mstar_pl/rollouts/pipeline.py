"""The pipeline of one iteration: prompts -> rollouts -> scores -> selection -> shards -> manifest."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from tqdm import tqdm

from mstar_pl.data.store import RolloutStore
from mstar_pl.metrics.pass_at_k import pass_at_k
from mstar_pl.rewards.reward import Reward
from mstar_pl.rewards.selection import Selection
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.types import Prompt, RolloutGroup, SamplingConfig, ScoredGroup


class RolloutPipeline:
    """Fill one iteration of a rollout store.

    Args:
        store: Where rollouts go.
        reward: What a response is worth.
        selection: Which responses are kept for training.
        shard_prompts: Prompts of one shard and one call of the engine. A crash loses at most one shard; a
            call of the engine ends with its slowest response.
    """

    def __init__(
        self, store: RolloutStore, reward: Reward, selection: Selection, shard_prompts: int = 256
    ) -> None:
        self.store = store
        self.reward = reward
        self.selection = selection
        self.shard_prompts = shard_prompts

    def run(
        self,
        engine: RolloutEngine,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        iteration: int,
        fingerprint: str,
        rank: int = 0,
    ) -> dict[str, Any]:
        """Sample, score and select what the store does not hold yet, and return the manifest.

        Args:
            engine: Engine with the policy loaded.
            prompts: The prompts of the iteration.
            sampling: How to sample.
            iteration: The iteration; part of the seeds.
            fingerprint: What the rollouts depend on; shards with another one are set aside.
            rank: The process.
        """
        done = self.store.begin(iteration, fingerprint)
        todo = [prompt for prompt in prompts if prompt.id not in done]
        seconds: defaultdict[str, float] = defaultdict(float)
        tokens = Counter[str]()
        bar = tqdm(
            total=len(prompts), initial=len(prompts) - len(todo), desc=f"iteration {iteration}", unit="prompt"
        )
        with bar:
            for start in range(0, len(todo), self.shard_prompts):
                began = time.perf_counter()
                groups = engine.generate(todo[start : start + self.shard_prompts], sampling, iteration)
                generated = time.perf_counter()
                scored = [self._score(group) for group in groups]
                self.store.append(iteration, scored, fingerprint, rank)
                seconds["generate"] += generated - began
                seconds["score"] += time.perf_counter() - generated
                tokens["all"] += sum(len(rollout.token_ids) for group in groups for rollout in group.rollouts)
                tokens["rollouts"] += sum(len(group.rollouts) for group in groups)
                tokens["selected"] += sum(len(one.selected) for one in scored)
                bar.update(len(groups))
                bar.set_postfix_str(
                    f"{tokens['all'] / seconds['generate']:,.0f} tokens/s, "
                    f"{tokens['selected'] / max(1, tokens['rollouts']):.0%} accepted"
                )
        metrics = summarise(self.store.groups(iteration), sampling.num_samples)
        metrics |= {"rollout/seconds": seconds["generate"], "reward/seconds": seconds["score"]}
        if seconds["generate"]:
            metrics["rollout/tokens_per_second"] = tokens["all"] / seconds["generate"]
        return self.store.finish(iteration, fingerprint, metrics)

    def _score(self, group: RolloutGroup) -> ScoredGroup:
        scores = tuple(self.reward(group))
        return ScoredGroup(group=group, scores=scores, selected=self.selection(group, scores))


def summarise(groups: Iterable[ScoredGroup], num_samples: int) -> dict[str, float]:
    """Return the scalars of an iteration.

    Pass@1 and Pass@K (unbiased) are means over the prompts with a decided response; undecided responses count
    neither as correct nor as wrong. All shares are of rollouts unless they say otherwise.

    Args:
        groups: The iteration.
        num_samples: K.

    Returns:
        Scalars by metric name: `rollout/…` for how responses look, `reward/…` for what they are worth.
    """
    count, length, passes = Counter[str](), 0, []
    accepted: dict[str, list[float]] = {}
    version = 0
    for scored in groups:
        rollouts, version = scored.group.rollouts, scored.group.weight_version
        outcomes = Counter(score.outcome for score in scored.scores)
        decided = outcomes["correct"] + outcomes["wrong"]
        if decided:
            correct = outcomes["correct"]
            passes.append((correct / decided, pass_at_k(decided, correct, min(num_samples, decided))))
        count.update(outcomes)
        count["prompts"] += 1
        count["rollouts"] += len(rollouts)
        count["selected"] += len(scored.selected)
        count["trained prompts"] += bool(scored.selected)
        count["truncated"] += sum(rollout.finish_reason == "length" for rollout in rollouts)
        count["duplicate"] += len(rollouts) - len({rollout.text.strip() for rollout in rollouts})
        length += sum(len(rollout.token_ids) for rollout in rollouts)
        accepted.setdefault(scored.group.prompt.task, []).append(len(scored.selected) / len(rollouts))
    total = max(1, count["rollouts"])
    metrics = {
        "rollout/prompts": count["prompts"],
        "rollout/weight_version": version,
        "rollout/response_length": length / total,
        "rollout/truncated": count["truncated"] / total,
        "rollout/duplicate": count["duplicate"] / total,
        "reward/undecided": count["undecided"] / total,
        "reward/selected": count["selected"],
        "reward/acceptance": count["selected"] / total,
        "reward/solved_prompts": count["trained prompts"] / max(1, count["prompts"]),
    }
    metrics |= {
        f"reward/acceptance/{task.replace(' ', '_')}": fmean(r) for task, r in sorted(accepted.items())
    }
    if passes:
        first, any_of_k = zip(*passes, strict=True)
        metrics |= {"reward/pass@1": fmean(first), f"reward/pass@{num_samples}": fmean(any_of_k)}
    return {name: float(value) for name, value in metrics.items()}
