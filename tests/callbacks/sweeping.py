"""Small runs with sweeps of the temperature, and the choice recomputed from the stored samples."""

import hashlib
import json
from collections import defaultdict
from statistics import fmean

import pyarrow.parquet as pq
from lightning.pytorch import Callback

from mstar_pl.data.store import RolloutStore
from mstar_pl.loops import Validation
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import SamplingConfig, Score
from tests.loops.evolving import evolve, transformers

CANDIDATES = [1.3, 0.4, 0.8]
CONFIGURED = 1.0
SAMPLES, K = 4, 2
SETTINGS = {
    "sampling": SamplingConfig(num_samples=4, temperature=CONFIGURED, max_tokens=8, seed=5),
    "validation": Validation(num_samples=SAMPLES, k=K),
    "data": {"interval": 25, "batch_size": 4, "micro_batch_size": 4, "max_length": 256},
}


class HashReward:
    """Outcome and process score that hang on nothing but the text; some texts are undecided."""

    OUTCOMES = ("undecided", *["correct"] * 5, *["wrong"] * 10)

    def __call__(self, group):
        texts = [f"{group.prompt.id} {one.text}" for one in group.rollouts]
        digests = [hashlib.sha256(text.encode()).digest() for text in texts]
        return [Score(outcome=self.OUTCOMES[one[0] % 16], process=one[1] / 255) for one in digests]


class EveryRight:
    """A selection that also keeps what was cut off, so that short responses do."""

    def __call__(self, group, scores):
        return tuple(number for number, score in enumerate(scores) if score.outcome == "correct")


class Recording(TransformersEngine):
    """Remembers the prompts of each submission of a sweep, and fails where it is told to."""

    class Crash(BaseException):
        pass

    def __init__(self, lmm, crash_at=None):
        super().__init__(lmm)
        self.sweeps = []
        self.crash_at = crash_at

    def submit(self, requests, progress=""):
        if len({request.sampling.temperature for request in requests}) > 1:
            self.sweeps.append(sorted({request.prompt.id for request in requests}))
            if len(self.sweeps) == self.crash_at:
                raise self.Crash
        return super().submit(requests, progress)


class Halt(Callback):
    """End a run where its training would start."""

    class Halted(Exception):
        pass

    def on_train_start(self, trainer, pl_module):
        raise self.Halted


def run(root, files, *callbacks, engine=transformers, epochs=3, **settings):
    """Evolve with a reward of hashes; return the trainer."""
    options = (
        SETTINGS
        | {"reward": HashReward(), "selection": EveryRight(), "trainer": {"max_epochs": epochs}}
        | settings
    )
    return evolve(root, files, engine, callbacks=callbacks, **options)[1]


def reward_pass(rows):
    """Is one of the K responses that the reward likes best correct?"""
    best = sorted(rows, key=lambda row: row["process"], reverse=True)[:K]
    return any(row["outcome"] == "correct" for row in best)


def any_right(rows):
    return any(row["outcome"] == "correct" for row in rows)


def by_hand(root, iteration, value):
    """The metric by temperature, of the prompts of which every response is decided, and the best one."""
    groups, curve = defaultdict(list), defaultdict(list)
    for shard in sorted((root / "sweep" / f"iteration-{iteration:04d}").glob("*.parquet")):
        for row in pq.read_table(shard).to_pylist():
            groups[row["temperature"], row["prompt_id"]].append(row)
    assert {len(rows) for rows in groups.values()} == {SAMPLES}
    for (temperature, _), rows in groups.items():
        if all(row["outcome"] != "undecided" for row in rows):
            curve[temperature].append(value(rows))
    means = {temperature: fmean(values) for temperature, values in curve.items()}
    assert sorted(means) == sorted(CANDIDATES)
    return means, min(one for one in means if means[one] == max(means.values()))


def temperatures_of(root, iterations):
    """The temperature at which each iteration was sampled, by its manifest."""
    manifests = [RolloutStore(root / "rollouts").manifest(iteration) for iteration in range(iterations)]
    samplings = [json.loads(manifest["fingerprint"])["sampling"] for manifest in manifests]
    assert {len(sampling) for sampling in samplings} == {1}
    return [sampling[0]["temperature"] for sampling in samplings]
