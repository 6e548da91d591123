"""Step labels by Monte Carlo: can the policy still reach the right answer from here?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from mstar_pl.data.format import beginning, split_steps
from mstar_pl.data.shards import ShardFolder
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.rewards.answer import Rules, grade
from mstar_pl.rollouts.engine import Request, RolloutEngine
from mstar_pl.types import Example, FinishReason, InputError, Prompt, SamplingConfig

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("prompt", pa.string()),
        ("steps", pa.list_(pa.string())),
        ("labels", pa.list_(pa.float64())),
        ("num_correct", pa.list_(pa.int32())),
        ("num_decided", pa.list_(pa.int32())),
        ("num_drawn", pa.list_(pa.int32())),
        ("num_tokens", pa.int64()),
    ]
)
"""Columns of a shard: one row a response, `num_…` of its continuations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelConfig:
    """How steps are labelled (arXiv 2412.17451, section 3.2; Wang et al. 2024, arXiv 2312.08935).

    Attributes:
        num_continuations: Continuations of a prefix (N).
        soft: Label by the share of correct continuations, for which all N are drawn. Hard labels ask whether
            any is correct, and a prefix draws no more after its first success.
        early_stop: Draw hard labels in waves of 1, 1, 2, 4, 8, …; false draws all N at once. The labels are
            the same: the waves draw what one request for all N would have drawn.
        rules: How answers are compared; see `mstar_pl.rewards.AnswerReward`.
    """

    num_continuations: int = 16
    soft: bool = False
    early_stop: bool = True
    rules: Rules = "default"

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.num_continuations < 1:
            raise InputError("num_continuations must be at least 1")

    @property
    def waves(self) -> list[tuple[int, int]]:
        """First sample and number of samples of each wave.

        >>> LabelConfig(num_continuations=10).waves
        [(0, 1), (1, 1), (2, 2), (4, 4), (8, 2)]
        >>> LabelConfig(soft=True).waves
        [(0, 16)]
        """
        if self.soft or not self.early_stop:
            return [(0, self.num_continuations)]
        starts = [0, *(2**power for power in range((self.num_continuations - 1).bit_length()))]
        return [(start, min(max(1, start), self.num_continuations - start)) for start in starts]


@dataclass(slots=True)
class _Prefix:
    """The continuations of one prefix so far."""

    prompt: Prompt
    text: str
    num_correct: int = 0
    num_decided: int = 0
    num_drawn: int = 0
    num_tokens: int = 0

    def label(self, soft: bool) -> float | None:
        if not self.num_decided:
            return None
        return self.num_correct / self.num_decided if soft else float(self.num_correct > 0)


class StepLabeller:
    """Label the steps of responses with a policy's own continuations.

    Of a response in S steps the first S - 1 prefixes are continued N times; the last one is the response
    itself, and its label is whether it is correct. Undecided answers count as neither, and a continuation
    that is cut off at the token limit reaches no answer.

    Args:
        engine: Engine with the policy loaded.
        sampling: Temperature, token limit and seed of the continuations; `max_tokens` counts the prefix, too.
        config: How steps are labelled.
    """

    def __init__(self, engine: RolloutEngine, sampling: SamplingConfig, config: LabelConfig) -> None:
        self.engine = engine
        self.sampling = sampling
        self.config = config

    def run(
        self, examples: Sequence[Example], folder: Path, fingerprint: str, shard: int = 256
    ) -> dict[str, Any]:
        """Label what the folder does not hold yet, and return the manifest.

        Args:
            examples: Responses of labelled prompts.
            folder: Where shards and manifest go.
            fingerprint: What the labels depend on; shards with another one are set aside.
            shard: Responses of one shard; a crash loses at most one.
        """
        shards = ShardFolder(folder, SCHEMA, key="key")
        keyed = {f"{example.prompt.id}/{number}": example for number, example in enumerate(examples)}
        done = shards.begin(fingerprint)
        todo = [(key, example) for key, example in keyed.items() if key not in done]
        with tqdm(total=len(keyed), initial=len(keyed) - len(todo), desc="labelling", unit="response") as bar:
            for start in range(0, len(todo), shard):
                batch = todo[start : start + shard]
                shards.append(list(self._label(batch)), fingerprint)
                bar.update(len(batch))
        return shards.finish(fingerprint, report(shards.rows()))

    def _label(self, batch: Sequence[tuple[str, Example]]) -> Iterator[dict[str, Any]]:
        steps = [split_steps(example.response) for _, example in batch]
        prefixes = [
            [_Prefix(example.prompt, beginning(own, number + 1)) for number in range(len(own) - 1)]
            for (_, example), own in zip(batch, steps, strict=True)
        ]
        # Those of a response next to each other: the cache of a shorter prefix serves the longer ones.
        self._continue([prefix for own in prefixes for prefix in own])
        for (key, example), own, found in zip(batch, steps, prefixes, strict=True):
            whole = _Prefix(example.prompt, example.response)
            self._count(whole, "", "stop")
            yield {
                "key": key,
                "prompt": json.dumps(example.prompt.to_json(), ensure_ascii=False),
                "steps": own,
                "labels": [prefix.label(self.config.soft) for prefix in (*found, whole)],
                "num_correct": [prefix.num_correct for prefix in (*found, whole)],
                "num_decided": [prefix.num_decided for prefix in (*found, whole)],
                "num_drawn": [prefix.num_drawn for prefix in (*found, whole)],
                "num_tokens": sum(prefix.num_tokens for prefix in found),
            }

    def _continue(self, prefixes: Sequence[_Prefix]) -> None:
        """Continue all prefixes as one job a wave; those that succeeded leave."""
        left = list(prefixes)
        for first, count in self.config.waves:
            sampling = replace(self.sampling, num_samples=count)
            groups = self.engine.submit(
                [
                    Request(prompt=prefix.prompt, sampling=sampling, prefix=prefix.text, first=first)
                    for prefix in left
                ]
            )
            for prefix, group in zip(left, groups, strict=True):
                for rollout in group.rollouts:
                    prefix.num_drawn += 1
                    prefix.num_tokens += len(rollout.token_ids)
                    self._count(prefix, rollout.text, rollout.finish_reason)
            left = [prefix for prefix in left if not prefix.num_correct]
            if not left:
                break

    def _count(self, prefix: _Prefix, continuation: str, finish_reason: FinishReason) -> None:
        outcome = grade(prefix.text + continuation, prefix.prompt, self.config.rules).outcome
        prefix.num_decided += outcome != "undecided"
        prefix.num_correct += outcome == "correct" and finish_reason == "stop"


def read_labels(folder: Path) -> Iterator[StepLabels]:
    """Yield the labelled responses of a folder of shards."""
    for row in ShardFolder(folder, SCHEMA, key="key").rows():
        prompt = Prompt.from_json(json.loads(row["prompt"]))
        yield StepLabels(prompt=prompt, steps=tuple(row["steps"]), labels=tuple(row["labels"]))


def report(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return what a labelling cost and found.

    Returns:
        Numbers of responses, steps, undecided steps, positive steps (label above 0), continuations and their
        tokens; `first_wrong/n`: responses whose first wrong step is the n-th, or `none`.
    """
    found = Counter(responses=0, steps=0, undecided=0, positive=0, continuations=0, tokens=0)
    wrong = Counter[str]()
    for row in rows:
        labels = row["labels"]
        found["responses"] += 1
        found["steps"] += len(labels)
        found["undecided"] += labels.count(None)
        found["positive"] += sum(label is not None and label > 0 for label in labels)
        found["continuations"] += sum(row["num_drawn"])
        found["tokens"] += row["num_tokens"]
        first = next((str(number) for number, label in enumerate(labels, 1) if label == 0), "none")
        wrong[f"first_wrong/{first}"] += 1
    return {**found, **dict(sorted(wrong.items()))}
