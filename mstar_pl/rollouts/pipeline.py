"""The pipeline of one iteration: prompts -> rollouts -> scores -> selection -> shards -> manifest."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from mstar_pl.data.records import View
from mstar_pl.data.store import RolloutStore
from mstar_pl.rewards.reward import Reward
from mstar_pl.rewards.selection import Selection
from mstar_pl.rollouts.engine import EngineError, Request, RolloutEngine
from mstar_pl.rollouts.second_chance import SecondChance, extended
from mstar_pl.rollouts.summary import summarise
from mstar_pl.rollouts.watchdog import watchdog
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig, ScoredGroup

Summary = Callable[[Iterable[ScoredGroup]], dict[str, float]]


class RolloutPipeline:
    """Fill one iteration of a rollout store.

    Args:
        store: Where rollouts go.
        reward: What a response is worth.
        selection: Which responses are kept for training; None keeps none, where responses only measure.
        shard_prompts: Prompts of one shard and one call of the engine. A crash loses at most one shard; a
            call of the engine ends with its slowest response.
        second_chance: More samples for prompts of which nothing was selected.
        timeout: Seconds after which an engine that still works on a shard is taken to hang; None waits.
    """

    def __init__(
        self,
        store: RolloutStore,
        reward: Reward,
        selection: Selection | None,
        shard_prompts: int = 256,
        second_chance: SecondChance | None = None,
        timeout: float | None = None,
    ) -> None:
        self.store = store
        self.reward = reward
        self.selection = selection
        self.shard_prompts = shard_prompts
        self.second_chance = second_chance or SecondChance()
        self.timeout = timeout

    def run(
        self,
        engine: RolloutEngine,
        prompts: Sequence[Prompt],
        samplings: Sequence[SamplingConfig],
        iteration: int,
        fingerprint: str,
        summary: Summary | None = None,
        title: str = "iteration",
        rank: int = 0,
        after_shard: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """Sample, score and select what the store does not hold yet, and return the manifest.

        Args:
            engine: Engine with the policy loaded.
            prompts: The prompts of the iteration.
            samplings: How to sample each prompt: once, or at several temperatures in one submission.
            iteration: The iteration; part of the seeds.
            fingerprint: What the rollouts depend on; shards with another one are set aside.
            summary: Function from the groups to the metrics of the manifest; default is `summarise`.
            title: Name of the progress bar.
            rank: The process.
            after_shard: Called after each shard; what it raises loses none.
        """
        done = self.store.begin(iteration, fingerprint)
        todo = View(prompts, [place for place, one in enumerate(prompts) if not done or one.id not in done])
        seconds: defaultdict[str, float] = defaultdict(float)
        count = Counter[str]()
        bar = tqdm(
            total=len(prompts), initial=len(prompts) - len(todo), desc=f"{title} {iteration}", unit="prompt"
        )
        with bar:
            for start in range(0, len(todo), self.shard_prompts):
                batch = todo[start : start + self.shard_prompts]
                requests = [
                    Request(prompt=prompt, sampling=sampling, iteration=iteration)
                    for prompt in batch
                    for sampling in samplings
                ]
                scored = self._sample(engine, requests, seconds, count)
                self.store.append(iteration, scored, fingerprint, rank)
                count["rollouts"] += sum(len(one.group.rollouts) for one in scored)
                count["selected"] += sum(len(one.selected) for one in scored)
                bar.update(len(batch))
                bar.set_postfix_str(
                    f"{count['tokens'] / seconds['generate']:,.0f} tokens/s, "
                    f"{count['selected'] / max(1, count['rollouts']):.0%} accepted"
                )
                after_shard()
        groups = self.store.groups(iteration)
        metrics = summary(groups) if summary else summarise(groups, samplings[0].num_samples)
        metrics |= {"rollout/seconds": seconds["generate"], "reward/seconds": seconds["score"]}
        if seconds["generate"]:
            metrics["rollout/tokens_per_second"] = count["tokens"] / seconds["generate"]
        return self.store.finish(iteration, fingerprint, metrics)

    def _sample(
        self,
        engine: RolloutEngine,
        requests: Sequence[Request],
        seconds: defaultdict[str, float],
        count: Counter[str],
    ) -> list[ScoredGroup]:
        """Sample and score requests, and give those of which nothing was selected further rounds."""
        groups = self._submit(engine, requests, seconds, count)
        with _timed(seconds, "score"):
            scored = [self._score(group) for group in groups]
        for _ in range(self.second_chance.rounds if self.selection else 0):
            again = [place for place, one in enumerate(scored) if not one.selected]
            if not again:
                break
            with _timed(seconds, "score"):
                asked = [
                    self.second_chance.request(scored[place].group, requests[place], self.reward, engine.lmm)
                    for place in again
                ]
            groups = self._submit(engine, asked, seconds, count)
            with _timed(seconds, "score"):
                for place, request, more in zip(again, asked, groups, strict=True):
                    scored[place] = self._score(extended(scored[place].group, more, request.prefix))
        return scored

    def _score(self, group: RolloutGroup) -> ScoredGroup:
        scores = tuple(self.reward(group))
        selected = self.selection(group, scores) if self.selection else ()
        return ScoredGroup(group=group, scores=scores, selected=selected)

    def _submit(
        self,
        engine: RolloutEngine,
        requests: Sequence[Request],
        seconds: defaultdict[str, float],
        count: Counter[str],
    ) -> list[RolloutGroup]:
        """Ask the engine.

        Raises:
            InputError: A prompt does not fit, or an image cannot be read.
            EngineError: The engine failed.
        """
        with _timed(seconds, "generate"), watchdog(self.timeout, f"the engine, {self.store.root}"):
            try:
                groups = engine.submit(requests)
            except InputError:
                raise
            except Exception as error:
                raise EngineError(f"{type(error).__name__}: {error}") from error
        count["tokens"] += sum(len(rollout.token_ids) for group in groups for rollout in group.rollouts)
        return groups


@contextmanager
def _timed(seconds: defaultdict[str, float], phase: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[phase] += time.perf_counter() - began
