import numpy as np
import pytest

from mstar_pl.metrics.intervals import bootstrap_interval, paired_difference


def test_coverage_of_the_interval_of_a_proportion():
    rng = np.random.default_rng(0)
    truth, hits = 0.4, 0
    for trial in range(400):
        interval = bootstrap_interval(rng.random(200) < truth, num_resamples=1000, seed=trial)
        hits += interval.low <= truth <= interval.high
    assert 0.90 <= hits / 400 <= 0.985


def test_coverage_of_the_paired_interval_beats_neither_level_nor_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        common, a, b = rng.random(200) < 0.5, rng.random(200) < 0.3, rng.random(200) < 0.1
        interval = paired_difference(common | a, common | b, num_resamples=1000, seed=trial)
        hits += interval.low <= 0.1 <= interval.high  # 0.5 * (0.3 - 0.1)
    assert 0.88 <= hits / 300 <= 0.99


@pytest.mark.parametrize("scale", [1.0, 2.0, np.pi])
def test_shortcuts_agree_with_plain_resampling(scale):
    values = (np.random.default_rng(2).random(300) < 0.3) * scale
    if scale == np.pi:  # more than 32 distinct values take the general path
        values = values + np.linspace(0, 1e-9, 300)
    rng = np.random.default_rng(3)
    means = [rng.choice(values, size=300).mean() for _ in range(4000)]
    interval = bootstrap_interval(values)
    assert interval.mean == pytest.approx(values.mean())
    assert interval[1:] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.012 * scale)


def test_same_seed_same_interval_and_pairing_narrows():
    rng = np.random.default_rng(4)
    a = rng.random(500) < 0.5
    b = a ^ (rng.random(500) < 0.02)
    assert paired_difference(a, b) == paired_difference(a, b)
    paired, single = paired_difference(a, b), bootstrap_interval(a)
    assert paired.high - paired.low < (single.high - single.low) / 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([]),
        lambda: bootstrap_interval([1.0, float("nan")]),
        lambda: bootstrap_interval([1.0], num_resamples=0),
        lambda: paired_difference([1.0, 0.0], [1.0]),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError, match=r"must|expected"):
        call()
