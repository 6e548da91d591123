"""The verifier table against a walk through every subset."""

import random
from itertools import combinations
from statistics import fmean

import pytest

from mstar_pl.evaluation.verifier import Samples, greedy_accuracy, verifier_accuracy, verifier_table
from mstar_pl.metrics.intervals import Interval, bootstrap_interval

VOTES = ("weighted vote", "majority vote")


def make_group(rng, number, truth="a"):
    keys = tuple(rng.choice(["a", "a", "b", "c", None]) for _ in range(number))
    process = tuple(rng.choice([0.1, 0.3, 0.5, 0.5, 0.9]) for _ in range(number))
    return Samples(keys=keys, correct=tuple(key == truth for key in keys), process=process, greedy=True)


def make_groups(number, num_samples, seed=0):
    rng = random.Random(seed)
    return [make_group(rng, num_samples) for _ in range(number)]


def choose(samples, subset, name):
    """Say whether one subset is answered correctly, by the plain definition of each row."""
    ranked = sorted(subset, key=lambda i: (-samples.process[i], i))
    if name == "best-of-N":
        return samples.correct[ranked[0]]
    if name == "Reward-Pass@2":
        return any(samples.correct[i] for i in ranked[:2])
    if name == "Pass@K":
        return any(samples.correct[i] for i in subset)
    weights = samples.process if name == "weighted vote" else [1.0] * len(samples.keys)
    keys = [samples.keys[i] for i in subset if samples.keys[i] is not None]
    sums = [sum(weights[i] for i in subset if samples.keys[i] == key) for key in keys]
    return bool(sums) and keys[sums.index(max(sums))] == "a"


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_every_row_against_all_subsets(k):
    groups = make_groups(20, 6)
    table = verifier_accuracy(groups, ks=(k,), num_subsets=20)  # C(6, 3) = 20: the votes are exact too
    assert ("Reward-Pass@2" in table) == (k >= 2)
    for name, row in table.items():
        expected = [
            fmean(choose(samples, subset, name) for subset in combinations(range(6), k)) for samples in groups
        ]
        assert row[k].mean == pytest.approx(fmean(expected)), name
        assert row[k] == pytest.approx(bootstrap_interval(expected), abs=1e-6)


def test_random_subsets_come_close_to_all_and_are_repeatable():
    groups = make_groups(60, 10)
    exact = verifier_accuracy(groups, ks=(5,), num_subsets=252)
    drawn = verifier_accuracy(groups, ks=(5,), num_subsets=32)
    for name in exact:
        assert drawn[name][5].mean == pytest.approx(exact[name][5].mean, abs=0.03)
        assert (drawn[name] == exact[name]) == (name not in VOTES)
    among_others = verifier_accuracy(groups, ks=(8, 5), num_subsets=32)
    assert drawn == {name: {5: row[5]} for name, row in among_others.items()}
    other = verifier_accuracy(groups, ks=(5,), num_subsets=32, seed=1)
    assert any(other[name] != drawn[name] for name in VOTES)


def test_order_of_the_rows():
    table = verifier_accuracy(make_groups(50, 16))
    means = {name: [interval.mean for interval in row.values()] for name, row in table.items()}
    assert list(table["Pass@K"]) == [1, 2, 4, 8, 16]
    assert list(table["Reward-Pass@2"]) == [2, 4, 8, 16]
    assert means["Pass@K"] == sorted(means["Pass@K"])
    for name in ("best-of-N", *VOTES):
        assert means[name][0] == pytest.approx(means["Pass@K"][0]), "one sample leaves no choice"
        assert all(a <= b + 1e-9 for a, b in zip(means[name], means["Pass@K"], strict=True))
    assert means["Reward-Pass@2"][0] == pytest.approx(means["Pass@K"][1])
    assert all(a <= b for a, b in zip(means["best-of-N"][1:], means["Reward-Pass@2"], strict=True))


def test_a_perfect_reward_model_reaches_the_bound():
    groups = [
        Samples(keys=s.keys, correct=s.correct, process=tuple(map(float, s.correct)))
        for s in make_groups(30, 8)
    ]
    table = verifier_accuracy(groups, ks=(2, 4, 8))
    for k in (2, 4, 8):
        assert table["best-of-N"][k].mean == pytest.approx(table["Pass@K"][k].mean)
    assert table["weighted vote"][8] == table["Pass@K"][8]


def test_without_keys_votes_are_lost_and_nothing_else():
    samples = Samples(keys=(None, None), correct=(True, True), process=(0.5, 0.5))
    table = verifier_accuracy([samples], ks=(2,))
    assert {name: row[2].mean for name, row in table.items()} == {
        "best-of-N": 1.0, "weighted vote": 0.0, "majority vote": 0.0, "Pass@K": 1.0, "Reward-Pass@2": 1.0,
    }  # fmt: skip


def test_more_samples_than_there_are():
    groups = make_groups(5, 4)
    table = verifier_accuracy(groups)
    assert list(table["best-of-N"]) == [1, 2, 4]
    longer = make_groups(1, 8, seed=1)
    assert verifier_accuracy(groups + longer)["Pass@K"][8] == verifier_accuracy(longer)["Pass@K"][8]
    assert verifier_accuracy([]) == {}


def test_table_and_greedy():
    groups = make_groups(20, 2)
    text = verifier_table(verifier_accuracy(groups), greedy_accuracy(groups))
    lines = text.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:-1]] == [
        "best-of-N", "weighted vote", "majority vote", "Pass@K", "Reward-Pass@2",
    ]  # fmt: skip
    assert lines[0].split("|")[2].strip() == "1"
    assert lines[-2].split("|")[2].strip() == "-", "Reward-Pass@2 looks at two"
    assert lines[-1] == "greedy: 100.0 (100.0 to 100.0)"
    assert "greedy" not in verifier_table({"best-of-N": {1: Interval(0.5, 0.4, 0.6)}}, None)
    assert greedy_accuracy([Samples(keys=(), correct=(), process=())]) is None


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="one of each"):
        Samples(keys=("a",), correct=(True, False), process=(0.5,))
    with pytest.raises(ValueError, match="at least 1"):
        verifier_accuracy([], ks=(0,))
