"""The rollout store: what is read is what was written, and a crash or another policy spoils nothing."""

import datasets
import pytest

from mstar_pl.data.interval import interval
from mstar_pl.data.store import RolloutStore
from mstar_pl.types import InputError, Rollout, RolloutGroup, Score, ScoredGroup


def scored(prompt, step=7, num=3):
    rollouts = tuple(
        Rollout(text=f"{prompt.id} says {k}", token_ids=(k, 5), finish_reason=("stop", "length")[k % 2])
        for k in range(num)
    )
    group = RolloutGroup(prompt=prompt, prompt_token_ids=(9, 8), rollouts=rollouts, weight_version=step)
    outcomes = ["correct", "wrong", "undecided"]
    scores = tuple(
        Score(outcome=outcomes[k % 3], extraction=[None, "4"][k % 2], process=[None, 0.25][k % 2])
        for k in range(num)
    )
    return ScoredGroup(group=group, scores=scores, selected=(0,))


@pytest.fixture
def store(tmp_path):
    return RolloutStore(tmp_path / "rollouts")


def test_what_is_read_is_what_was_written(store, prompts):
    groups = [scored(prompt) for prompt in prompts]
    assert store.begin(3, "print") == set()
    store.append(3, groups[:5], "print")
    store.append(3, groups[5:], "print", rank=1)
    assert store.manifest(3) is None
    with pytest.raises(InputError, match="was not finished"):
        store.examples(3)
    manifest = store.finish(3, "print", {"reward/selected": 8.0})
    assert store.manifest(3) == manifest
    assert (manifest["num_rows"], manifest["metrics"]) == (24, {"reward/selected": 8.0})
    assert list(store.groups(3)) == groups
    assert [(example.prompt, example.response) for example in store.examples(3)] == [
        (prompt, f"{prompt.id} says 0") for prompt in sorted(prompts, key=lambda prompt: prompt.id)
    ]


def test_examples_do_not_depend_on_the_shards(store, prompts):
    groups = [scored(prompt) for prompt in prompts]
    for iteration, order in enumerate([groups, groups[::-1]]):
        store.begin(iteration, "p")
        for rank, start in enumerate(range(0, 8, 3 + iteration)):
            store.append(iteration, order[start : start + 3 + iteration], "p", rank=rank % 2)
        store.finish(iteration, "p", {})
    assert list(store.examples(0)) == list(store.examples(1)) != []


def test_what_a_crash_left_is_kept_and_half_a_shard_is_not(store, prompts):
    store.begin(0, "p")
    store.append(0, [scored(prompt) for prompt in prompts[:3]], "p")
    half = store.folder(0) / ".rank-0-00001.parquet.1.tmp"
    half.write_bytes(b"PAR1")
    assert store.begin(0, "p") == {prompt.id for prompt in prompts[:3]}
    assert not half.exists()


@pytest.mark.parametrize("finished", [True, False])
def test_another_policy_sets_the_iteration_aside(store, prompts, finished):
    for number, fingerprint in enumerate(["old", "new", "newest"]):
        assert store.begin(0, fingerprint) == set()
        store.append(0, [scored(prompts[number])], fingerprint)
        if finished:
            store.finish(0, fingerprint, {})
    assert {folder.name for folder in store.root.iterdir()} == {
        "iteration-0000",
        "iteration-0000.stale-1",
        "iteration-0000.stale-2",
    }
    assert [one.group.prompt for one in store.groups(0)] == [prompts[2]]


def test_a_missing_shard_is_named(store, prompts):
    store.begin(0, "p")
    path = store.append(0, [scored(prompts[0])], "p")
    store.finish(0, "p", {})
    path.unlink()
    with pytest.raises(InputError, match=r"rank-0-00000\.parquet: is missing"):
        store.examples(0)


def test_the_next_shard_takes_the_place_of_none(store, prompts):
    store.begin(0, "p")
    paths = [store.append(0, [scored(prompt)], "p") for prompt in prompts[:3]]
    paths[1].unlink()
    store.append(0, [scored(prompts[3])], "p")
    assert store.begin(0, "p") == {prompts[place].id for place in (0, 2, 3)}


def test_datasets_reads_it(store, prompts, tmp_path):
    store.begin(0, "p")
    path = store.append(0, [scored(prompt) for prompt in prompts], "p")
    table = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(tmp_path), split="train")
    assert table.num_rows == 24
    assert table[1]["response"] == "p0 says 1"
    assert len(table[0]["image_sha256"][0]) == 64


@pytest.mark.parametrize("percent", [100, 50, 25, 12.5, 6.25, 33, 0.1])
def test_an_interval_goes_round_the_set_evenly(percent):
    counts = [0] * 101
    for iteration in range(40):
        part = interval(101, percent, iteration, seed=3)
        assert part
        assert abs(len(part) - 101 * percent / 100) <= 1
        for place in part:
            counts[place] += 1
    if percent >= 1:
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("percent", [0, -5, 101])
def test_an_interval_must_be_a_percentage(percent):
    with pytest.raises(InputError, match="is not a percentage"):
        interval(1, percent, 0, 0)
