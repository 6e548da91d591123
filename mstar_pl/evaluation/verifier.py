"""The process reward model as a verifier: which of K samples does it choose? (arXiv 2412.17451, section 4).

One set of n samples a prompt serves every K <= n: per prompt the mean over subsets of size K, then the
bootstrap over prompts. Best-of-N, Pass@K and Reward-Pass@2 are exact means over all subsets; votes are exact
where the subsets are few, and otherwise means over random ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from random import Random
from statistics import fmean

from mstar_pl.data.jsonl import write_json
from mstar_pl.data.store import RolloutStore
from mstar_pl.evaluation.table import cell, markdown
from mstar_pl.metrics.intervals import Interval, bootstrap_interval
from mstar_pl.metrics.pass_at_k import pass_at_k
from mstar_pl.metrics.reward_pass_at_k import reward_pass_at_k
from mstar_pl.rewards.reward import Reward
from mstar_pl.rewards.voting import answer_key, majority, weighted_vote
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.rollouts.pipeline import RolloutPipeline
from mstar_pl.types import Prompt, SamplingConfig, ScoredGroup

KS = (1, 2, 4, 8, 16)
"""The paper's numbers of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What is known of the samples of one prompt, in their order.

    Attributes:
        keys: Canonical answer of each (`mstar_pl.rewards.voting.answer_key`), None if it has none.
        correct: Whether each is correct; the caller decides what becomes of undecided ones.
        process: Process reward of each, in [0, 1].
        greedy: Whether the prompt's greedy response is correct; None if there is none or it is undecided.
    """

    keys: tuple[str | None, ...]
    correct: tuple[bool, ...]
    process: tuple[float, ...]
    greedy: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if not len(self.keys) == len(self.correct) == len(self.process):
            raise ValueError(
                f"{len(self.keys)} keys, {len(self.correct)} outcomes, {len(self.process)} process rewards: "
                "give one of each a sample"
            )


def verifier_accuracy(
    groups: Sequence[Samples], ks: Sequence[int] = KS, num_subsets: int = 32, seed: int = 0
) -> dict[str, dict[int, Interval]]:
    """Return the accuracy of each way to choose among K samples, by its name and by K, in [0, 1].

    `Pass@K` is the upper bound of the others; `Reward-Pass@2` looks at two samples and starts at K = 2.

    Args:
        groups: The prompts. One with fewer than K samples is left out of that K, and so is a K without
            prompts.
        ks: Numbers of samples, each at least 1.
        num_subsets: Subsets that votes are averaged over; if a prompt has no more than that many of size K
            (one if K = n), each is taken once.
        seed: The random subsets of a prompt are a function of this, K and the prompt's place in `groups`.

    >>> samples = Samples(keys=("3", "4", "4"), correct=(True, False, False), process=(0.9, 0.3, 0.4))
    >>> accuracy = verifier_accuracy([samples], ks=(1, 3))
    >>> {name: row[3].mean for name, row in accuracy.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'best-of-N': 1.0, 'weighted vote': 1.0, 'majority vote': 0.0, 'Pass@K': 1.0, 'Reward-Pass@2': 1.0}
    """
    if any(k < 1 for k in ks) or num_subsets < 1:
        raise ValueError(f"ks {tuple(ks)} and num_subsets {num_subsets} must be at least 1")
    table: dict[str, dict[int, Interval]] = {}
    for k in ks:
        eligible = [(index, samples) for index, samples in enumerate(groups) if len(samples.keys) >= k]
        rows = [
            _accuracies(s, k, _subsets(len(s.keys), k, num_subsets, f"{seed}/{i}/{k}")) for i, s in eligible
        ]
        for name in rows[0] if rows else ():
            table.setdefault(name, {})[k] = bootstrap_interval([row[name] for row in rows])
    return table


def greedy_accuracy(groups: Sequence[Samples]) -> Interval | None:
    """Return the accuracy of the greedy responses, or None if no prompt has one that is decided.

    >>> greedy_accuracy([Samples(keys=(), correct=(), process=(), greedy=True)])
    Interval(mean=1.0, low=1.0, high=1.0)
    """
    known = [samples.greedy for samples in groups if samples.greedy is not None]
    return bootstrap_interval(known) if known else None


def verifier_table(results: Mapping[str, Mapping[int, Interval]], greedy: Interval | None) -> str:
    """Return the accuracies as Markdown: rows are the ways to choose, columns K, cells percent with interval.

    >>> print(verifier_table({"best-of-N": {1: Interval(0.4, 0.3, 0.5)}}, Interval(0.5, 0.4, 0.6)))
    | K         | 1                   |
    |-----------|---------------------|
    | best-of-N | 40.0 (30.0 to 50.0) |
    greedy: 50.0 (40.0 to 60.0)
    """
    ks = sorted({k for row in results.values() for k in row})
    rows = [["K", *map(str, ks)]]
    rows += [[name, *(cell(row[k]) if k in row else "-" for k in ks)] for name, row in results.items()]
    return markdown(rows) + ("" if greedy is None else f"\ngreedy: {cell(greedy)}")


def _accuracies(samples: Samples, k: int, subsets: Iterable[Sequence[int]]) -> dict[str, float]:
    """Return the chance of a correct choice from K random samples of one prompt, by the way to choose."""
    correct, process, drawn = samples.correct, samples.process, list(subsets)

    def vote(winner: Callable[[Sequence[int]], str | None]) -> float:
        return fmean(_is_correct(samples, subset, winner(subset)) for subset in drawn)

    keys = samples.keys
    row = {
        "best-of-N": reward_pass_at_k(process, correct, 1, k),  # the only sample looked at is the best one
        "weighted vote": vote(lambda s: weighted_vote([keys[i] for i in s], [process[i] for i in s])),
        "majority vote": vote(lambda s: majority([keys[i] for i in s])),
        "Pass@K": pass_at_k(len(correct), sum(correct), k),
    }
    return row if k < 2 else row | {"Reward-Pass@2": reward_pass_at_k(process, correct, 2, k)}


def _is_correct(samples: Samples, subset: Sequence[int], winner: str | None) -> bool:
    """Tell whether the first sample with the winning answer is correct; no answer is not."""
    return winner is not None and next(samples.correct[i] for i in subset if samples.keys[i] == winner)


def _subsets(n: int, k: int, most: int, seed: str) -> Iterable[Sequence[int]]:
    """Return all subsets of size k if there are no more than `most`, else `most` random ones."""
    if comb(n, k) <= most:
        return combinations(range(n), k)
    rng = Random(seed)
    return [sorted(rng.sample(range(n), k)) for _ in range(most)]


def verify(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    greedy: Mapping[str, str],
    sampling: SamplingConfig,
    reward: Reward,
    out: Path,
    fingerprint: str,
) -> str:
    """Sample and score prompts, write the accuracies as JSON, and return the verifier table.

    Args:
        engine: Engine with the policy loaded.
        prompts: Labelled prompts.
        greedy: Outcome of the greedy response to each prompt, by its id.
        sampling: How to sample.
        reward: Process reward that ranks the samples.
        out: Folder: samples go into the rollout store `samples`, shard by shard, so that an interrupted call
            goes on; accuracies into `verifier.json`.
        fingerprint: What the policy's responses depend on.
    """
    store = RolloutStore(out / "samples")
    found = json.dumps(
        [fingerprint, asdict(sampling), vars(reward)], default=lambda value: type(value).__name__
    )
    RolloutPipeline(store, reward, None).run(engine, prompts, [sampling], 0, found, title="samples")
    groups = [_samples(one, greedy[one.group.prompt.id]) for one in store.groups(0)]
    results, at_once = verifier_accuracy(groups), greedy_accuracy(groups)
    write_json(out / "verifier.json", {name: {str(k): row[k] for k in row} for name, row in results.items()})
    return verifier_table(results, at_once)


def _samples(one: ScoredGroup, greedy: str) -> Samples:
    """Return what is known of the samples of a prompt; undecided samples are left out."""
    known = [score for score in one.scores if score.outcome != "undecided"]
    return Samples(
        keys=tuple(answer_key(score.extraction, one.group.prompt) for score in known),
        correct=tuple(score.outcome == "correct" for score in known),
        process=tuple(score.process or 0.0 for score in known),
        greedy=None if greedy == "undecided" else greedy == "correct",
    )
