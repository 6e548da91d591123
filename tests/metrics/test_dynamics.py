"""Dynamics: Reward-Pass@K against ranking every subset; each metric is the mean of its pure function."""

import random
import warnings
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
import torch

from mstar_pl.metrics.dynamics import GreedyAccuracy, PassAtK, PassGap, RewardPassAtK
from mstar_pl.metrics.pass_at_k import pass_at_k
from mstar_pl.metrics.reward_pass_at_k import reward_pass_at_k

RNG = np.random.default_rng(0)
CORRECT = RNG.random((60, 8)) < RNG.random((60, 1))
SCORES = RNG.random((60, 8)).round(1)
GREEDY = RNG.random(60) < 0.4

CASES = {
    "greedy": (GreedyAccuracy, [(bool(greedy),) for greedy in GREEDY], GREEDY.astype(float)),
    "pass": (
        lambda **kwargs: PassAtK(3, **kwargs),
        [(8, int(row.sum())) for row in CORRECT],
        [pass_at_k(8, int(row.sum()), 3) for row in CORRECT],
    ),
    "reward pass": (
        lambda **kwargs: RewardPassAtK(2, 4, **kwargs),
        [(scores.tolist(), row.tolist()) for scores, row in zip(SCORES, CORRECT, strict=True)],
        [reward_pass_at_k(scores, row, 2, 4) for scores, row in zip(SCORES, CORRECT, strict=True)],
    ),
    "gap": (
        lambda **kwargs: PassGap(8, **kwargs),
        [(8, int(row.sum()), bool(greedy)) for row, greedy in zip(CORRECT, GREEDY, strict=True)],
        CORRECT.any(axis=1).astype(float) - GREEDY,
    ),
}
each = pytest.mark.parametrize(("make", "updates", "values"), CASES.values(), ids=CASES)


def fed(metric, updates):
    for update in updates:
        metric.update(*update)
    return metric


@each
def test_mean_and_interval_against_numpy(make, updates, values):
    metric = fed(make(), updates)
    result = metric.compute()
    assert result.shape == (3,)
    mean, low, high = result.tolist()
    means = np.random.default_rng(1).choice(values, size=(4000, len(values))).mean(axis=1)
    assert mean == pytest.approx(np.mean(values))
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    assert low <= mean <= high


@each
def test_reset_forgets(make, updates, values):
    metric = fed(make(), updates)
    metric.reset()
    expected = fed(make(), updates[:7]).compute()
    assert torch.equal(fed(metric, updates[:7]).compute(), expected)
    assert expected[0].item() == pytest.approx(np.mean(values[:7]))


@each
@pytest.mark.parametrize("here", [0, 1, 25, 60], ids=lambda number: f"{number} prompts here")
def test_two_processes_equal_one(make, updates, values, here):
    other = torch.tensor(np.asarray(values)[here:], dtype=torch.float32)

    def gather(state, group):  # stands in for all_gather: what the process at the other end holds
        assert state.dtype == other.dtype
        return [other, state]

    metric = fed(make(dist_sync_fn=gather, distributed_available_fn=lambda: True), updates[:here])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a process may have no prompt
        merged = metric.compute()
    assert torch.equal(merged, fed(make(), updates).compute())
    assert len(metric.values) == here, "what others hold does not stay"


@each
def test_nothing_yet_is_nan_and_quiet(make, updates, values):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = make().compute()
    assert result.shape == (3,)
    assert result.isnan().all()
    assert len(caught) <= 1, "no more than torchmetrics' own remark"


@pytest.mark.parametrize(
    "make", [lambda: PassAtK(0), lambda: PassGap(0), lambda: RewardPassAtK(0), lambda: RewardPassAtK(2, 1)]
)
def test_contradictions_are_refused(make):
    with pytest.raises(ValueError, match="must be at least"):
        make()


def by_ranking_every_subset(scores, correct, k, num_ranked):
    subsets = combinations(range(len(scores)), num_ranked)
    tops = (sorted(subset, key=lambda index: (-scores[index], index))[:k] for subset in subsets)
    return fmean(any(correct[index] for index in top) for top in tops)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("levels", [2, 1000], ids=["ties", "distinct"])
def test_equals_the_mean_over_all_subsets(num_samples, levels):
    rng = random.Random(num_samples)
    for _ in range(10):
        scores = [rng.randrange(levels) / levels for _ in range(num_samples)]
        correct = [rng.random() < 0.4 for _ in range(num_samples)]
        for num_ranked in range(1, num_samples + 1):
            for k in range(1, num_ranked + 1):
                expected = by_ranking_every_subset(scores, correct, k, num_ranked)
                assert reward_pass_at_k(scores, correct, k, num_ranked) == pytest.approx(expected)


def test_limits_of_reward_pass_at_k():
    scores, correct = [0.1, 0.9, 0.5, 0.5, 0.3], [True, False, False, True, False]
    for n in range(1, 6):  # looking at all that is ranked makes the ranking irrelevant
        assert reward_pass_at_k(scores, correct, n, n) == pytest.approx(pass_at_k(5, 2, n))
    plain = [reward_pass_at_k(scores, correct, k) for k in range(1, 6)]
    assert plain == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert plain == [reward_pass_at_k(scores, correct, k, 5) for k in range(1, 6)]


def test_equal_scores_rank_by_order():
    assert reward_pass_at_k([0.5, 0.5], [True, False], 1) == 1.0
    assert reward_pass_at_k([0.5, 0.5], [False, True], 1) == 0.0


@pytest.mark.parametrize(
    ("scores", "correct", "k", "num_ranked"),
    [
        ([], [], 1, None),
        ([0.5], [True, False], 1, None),
        ([0.5, 0.5], [True, False], 0, None),
        ([0.5, 0.5], [True, False], 2, 1),
        ([0.5, 0.5], [True, False], 1, 3),
        ([0.5, float("nan")], [True, False], 1, None),
    ],
)
def test_contradicting_samples_are_refused(scores, correct, k, num_ranked):
    with pytest.raises(ValueError, match=r"need an outcome a score|NaN"):
        reward_pass_at_k(scores, correct, k, num_ranked)
