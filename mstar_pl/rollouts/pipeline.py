"""The pipeline of one iteration: prompts -> rollouts -> scores -> selection -> shards -> manifest."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tqdm import tqdm

from mstar_pl.data.records import View
from mstar_pl.data.store import RolloutStore
from mstar_pl.distributed import Processes
from mstar_pl.models import LMM
from mstar_pl.rewards.reward import Reward
from mstar_pl.rewards.selection import Selection
from mstar_pl.rollouts.engine import EngineError, Request, RolloutEngine
from mstar_pl.rollouts.second_chance import SecondChance, extended
from mstar_pl.rollouts.summary import summarise
from mstar_pl.rollouts.watchdog import watchdog
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig, ScoredGroup

Summary = Callable[[Iterable[ScoredGroup]], dict[str, float]]


@dataclass(slots=True)
class Tally:
    """What the work of a process took, and what came of it."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    count: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds of a block."""
        began = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - began


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
        processes: The processes that share the prompts, all calling `run` together; each engine, of one
            process or several, has its part of them. The rollouts are those of a single process.
        after_shard: Called after each shard; what it raises loses none.
    """

    def __init__(
        self,
        store: RolloutStore,
        reward: Reward,
        selection: Selection | None,
        shard_prompts: int = 256,
        second_chance: SecondChance | None = None,
        timeout: float | None = None,
        processes: Processes | None = None,
        after_shard: Callable[[], object] = lambda: None,
    ) -> None:
        self.store = store
        self.reward = reward
        self.selection = selection
        self.shard_prompts = shard_prompts
        self.second_chance = second_chance or SecondChance()
        self.timeout = timeout
        self.processes = processes or Processes()
        self.after_shard = after_shard

    def run(
        self,
        engine: RolloutEngine,
        prompts: Sequence[Prompt],
        samplings: Sequence[SamplingConfig],
        iteration: int,
        fingerprint: str,
        summary: Summary | None = None,
        title: str = "iteration",
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
        """
        size = engine.num_processes
        team, rank, num = self.processes.team(size), self.processes.rank // size, self.processes.num // size
        done = self.processes.first(lambda: self.store.begin(iteration, fingerprint))
        left = View(prompts, [place for place, one in enumerate(prompts) if not done or one.id not in done])
        tally, todo = Tally(), left[rank::num]
        before = (len(prompts) - len(left)) // num
        bar = tqdm(
            total=before + len(todo),
            initial=before,
            desc=f"{title} {iteration}",
            unit="prompt",
            disable=self.processes.rank > 0,
        )
        with bar:
            for start in range(0, len(todo), self.shard_prompts):
                batch = todo[start : start + self.shard_prompts]
                requests = [
                    Request(prompt=prompt, sampling=sampling, iteration=iteration)
                    for prompt in batch
                    for sampling in samplings
                ]
                scored = self._sample(engine, requests, tally, team)
                if team.rank == 0:
                    self.store.append(iteration, scored, fingerprint, rank)
                tally.count["rollouts"] += sum(len(one.group.rollouts) for one in scored)
                tally.count["selected"] += sum(len(one.selected) for one in scored)
                bar.update(len(batch))
                bar.set_postfix_str(
                    f"{tally.count['tokens'] / tally.seconds['generate']:,.0f} tokens/s, "
                    f"{tally.count['selected'] / max(1, tally.count['rollouts']):.0%} accepted"
                )
                self.after_shard()
        tallies = self.processes.gather(tally)[::size]

        def finish() -> dict[str, Any]:
            groups = self.store.groups(iteration)
            metrics = summary(groups) if summary else summarise(groups, samplings[0].num_samples)
            metrics["rollout/seconds"] = slowest = max(one.seconds["generate"] for one in tallies)
            metrics["reward/seconds"] = max(one.seconds["score"] for one in tallies)
            if slowest:
                metrics["rollout/tokens_per_second"] = sum(one.count["tokens"] for one in tallies) / slowest
            manifest = self.store.finish(iteration, fingerprint, metrics)
            if self.selection:
                self.store.examples(iteration)  # is written by one process, before all of them read it
            return manifest

        return self.processes.first(finish)

    def _sample(
        self, engine: RolloutEngine, requests: Sequence[Request], tally: Tally, team: Processes
    ) -> list[ScoredGroup]:
        """Sample and score requests, and give those of which nothing was selected further rounds.

        One process of an engine scores: a difference in rounding would have them ask for unlike rounds.
        """
        groups = self._submit(engine, requests, tally)
        with tally.timed("score"):
            scored = team.first(partial(self._score, groups))
        for _ in range(self.second_chance.rounds if self.selection else 0):
            again = [place for place, one in enumerate(scored) if not one.selected]
            if not again:
                break
            with tally.timed("score"):
                former = [(scored[place].group, requests[place]) for place in again]
                asked = team.first(partial(self._ask_again, former, engine.lmm))
            groups = self._submit(engine, asked, tally)
            with tally.timed("score"):
                longer = [
                    extended(scored[place].group, more, request.prefix)
                    for place, request, more in zip(again, asked, groups, strict=True)
                ]
                for place, one in zip(again, team.first(partial(self._score, longer)), strict=True):
                    scored[place] = one
        return scored

    def _ask_again(self, former: Sequence[tuple[RolloutGroup, Request]], lmm: LMM) -> list[Request]:
        return [self.second_chance.request(group, request, self.reward, lmm) for group, request in former]

    def _score(self, groups: Sequence[RolloutGroup]) -> list[ScoredGroup]:
        scored = []
        for group in groups:
            scores = tuple(self.reward(group))
            selected = self.selection(group, scores) if self.selection else ()
            scored.append(ScoredGroup(group=group, scores=scores, selected=selected))
        return scored

    def _submit(self, engine: RolloutEngine, requests: Sequence[Request], tally: Tally) -> list[RolloutGroup]:
        """Ask the engine.

        Raises:
            InputError: A prompt does not fit, or an image cannot be read.
            EngineError: The engine failed.
        """
        with tally.timed("generate"), watchdog(self.timeout, f"the engine, {self.store.root}"):
            try:
                groups = engine.submit(requests)
            except InputError:
                raise
            except Exception as error:
                raise EngineError(f"{type(error).__name__}: {error}") from error
        tally.count["tokens"] += sum(len(rollout.token_ids) for group in groups for rollout in group.rollouts)
        return groups
