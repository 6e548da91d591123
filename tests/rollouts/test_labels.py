"""Step labels against continuations drawn and counted one prefix at a time."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import pytest

from mstar_pl.data.format import join_steps
from mstar_pl.data.jsonl import read_examples
from mstar_pl.data.minivista import write_split
from mstar_pl.data.shards import ShardFolder
from mstar_pl.rewards.answer import Grade, Outcome, grade
from mstar_pl.rollouts.engine import Request
from mstar_pl.rollouts.labels import SCHEMA, LabelConfig, StepLabeller, read_labels
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import Example, InputError, Rollout, RolloutGroup, SamplingConfig

N = 8
SAMPLING = SamplingConfig(temperature=1.5, max_tokens=64, seed=7)
WAVE_ENDS = [1, 2, 4, 8]


@pytest.fixture(scope="module")
def responses(tmp_path_factory):
    """Two right solutions, and two that answer another question."""
    root = tmp_path_factory.mktemp("minivista")
    solved = read_examples(write_split(root, "val", 6, solutions=True))
    assert solved[4].prompt.answer != solved[3].prompt.answer != solved[5].prompt.answer
    return [solved[0], solved[2], *(replace(one, response=solved[3].response) for one in solved[4:])]


def label(engine, examples, folder, fingerprint="f", shard=256, **config):
    """Return the rows of a labelling and its manifest."""
    labels = LabelConfig(**({"num_continuations": N} | config))
    manifest = StepLabeller(engine, SAMPLING, labels).run(examples, folder, fingerprint, shard)
    return rows_of(folder), manifest


def rows_of(folder):
    return list(ShardFolder(folder, SCHEMA, key="key").rows())


def prefixes_of(response):
    """Every beginning of a solution in whole steps; a blank line ends each."""
    steps = response.partition("# Answer")[0].split("\n\n")[:-1]
    return ["".join(f"{step}\n\n" for step in steps[:number]) for number in range(1, len(steps) + 1)]


@pytest.fixture(scope="module")
def drawn(engine, responses):
    """Of each response, of each of its prefixes, the N continuations that one request gives."""
    sampling = replace(SAMPLING, num_samples=N)
    return [
        [
            engine.submit([Request(prompt=one.prompt, sampling=sampling, prefix=prefix)])[0].rollouts
            for prefix in prefixes_of(one.response)
        ]
        for one in responses
    ]


def outcome_of(rollout, prefix, prompt, check):
    outcome = check(prefix + rollout.text, prompt).outcome.value
    return "wrong" if outcome == "correct" and rollout.finish_reason == "length" else outcome


def outcomes_of(responses, drawn, check=grade):
    """Outcome and number of tokens of each continuation, nested like the continuations."""
    return [
        [
            [(outcome_of(one, prefix, example.prompt, check), len(one.token_ids)) for one in rollouts]
            for prefix, rollouts in zip(prefixes_of(example.response), found, strict=True)
        ]
        for example, found in zip(responses, drawn, strict=True)
    ]


@pytest.mark.parametrize("num", [*range(1, 18), 100])
def test_waves_draw_every_sample_once_and_double_the_total(num):
    waves = LabelConfig(num_continuations=num).waves
    assert [first + k for first, count in waves for k in range(count)] == list(range(num))
    assert [first for first, _ in waves] == [0, *[first for first in (1, 2, 4, 8, 16, 32, 64) if first < num]]
    assert LabelConfig(num_continuations=num, soft=True).waves == [(0, num)]
    assert LabelConfig(num_continuations=num, early_stop=False).waves == [(0, num)]


def test_no_continuations_are_refused():
    with pytest.raises(InputError, match="num_continuations must be at least 1"):
        LabelConfig(num_continuations=0)


def test_hard_labels_stop_at_the_first_success_and_equal_those_of_all_continuations(
    engine, responses, drawn, tmp_path
):
    stopped, _ = label(engine, responses, tmp_path / "stopped")
    whole, _ = label(engine, responses, tmp_path / "whole", early_stop=False)
    assert [row["labels"] for row in stopped] == [row["labels"] for row in whole]
    late = 0
    by_hand = outcomes_of(responses, drawn)
    for found, fixed, prefixes in zip(stopped, whole, by_hand, strict=True):
        ends = []
        for place, outcomes in enumerate(prefixes):
            right = [outcome == "correct" for outcome, _ in outcomes]
            assert found["labels"][place] == float(any(right))
            ends.append(next((end for end in WAVE_ENDS if any(right[:end])), N))
            late += ends[-1] > 1 and any(right)
        assert found["num_decided"][:-1] == ends
        assert found["num_tokens"] == sum(
            tokens for end, outcomes in zip(ends, prefixes, strict=True) for _, tokens in outcomes[:end]
        )
        assert fixed["num_tokens"] == sum(tokens for outcomes in prefixes for _, tokens in outcomes)
    assert sum(row["num_tokens"] for row in stopped) < sum(row["num_tokens"] for row in whole)
    labels = [one for row in whole for one in row["labels"][:-1]]
    assert 0 < sum(labels) < len(labels), "the comparison says little if labels are alike"
    assert late, "nor if every first continuation settles the matter"


def test_soft_labels_are_the_share_of_right_continuations(engine, responses, drawn, tmp_path):
    rows, _ = label(engine, responses, tmp_path, soft=True)
    shares = [
        [sum(outcome == "correct" for outcome, _ in outcomes) / N for outcomes in prefixes]
        for prefixes in outcomes_of(responses, drawn)
    ]
    assert [row["labels"][:-1] for row in rows] == shares
    assert any(0 < share < 1 for own in shares for share in own)


def test_the_last_label_is_whether_the_response_itself_is_right(transformers, responses, tmp_path):
    rows, _ = label(transformers, responses, tmp_path, num_continuations=1)
    assert [row["labels"][-1] for row in rows] == [1.0, 1.0, 0.0, 0.0]
    for row, example in zip(rows, responses, strict=True):
        assert "\n\n".join(row["steps"]) == example.response
        assert len(row["labels"]) == len(prefixes_of(example.response)) + 1


def test_a_response_of_one_step_needs_no_continuations(engine, responses, tmp_path):
    bare = [replace(one, response=one.response[one.response.index("# Answer") :]) for one in responses]
    rows, manifest = label(engine, bare, tmp_path)
    assert [row["labels"] for row in rows] == [[1.0], [1.0], [0.0], [0.0]]
    assert (manifest["metrics"]["tokens"], manifest["metrics"]["continuations"]) == (0, 0)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_undecided_continuations_count_as_neither(engine, responses, drawn, tmp_path, monkeypatch, soft):
    """Every third text is undecided, and all that answer the first prompt."""

    def unsure(text, prompt, rules="default"):
        third = hashlib.sha256(text.encode()).digest()[0] % 3 == 0
        if third or prompt == responses[0].prompt:
            return Grade(outcome=Outcome.UNDECIDED, extraction=None, prediction=None, rule="test")
        return grade(text, prompt, rules)

    monkeypatch.setattr("mstar_pl.rollouts.labels.grade", unsure)
    rows, manifest = label(engine, responses, tmp_path, soft=soft)
    excluded = 0
    for row, example, prefixes in zip(rows, responses, outcomes_of(responses, drawn, unsure), strict=True):
        own = [[outcome for outcome, _ in found] for found in prefixes]
        own.append([unsure(example.response, example.prompt).outcome.value])
        for got, found in zip(row["labels"], own, strict=True):
            decided = [outcome == "correct" for outcome in found if outcome != "undecided"]
            share = sum(decided) / len(decided) if decided else None
            assert got == (share if soft or not decided else float(any(decided)))
            excluded += 0 < len(decided) < len(found)
    assert excluded, "some prefixes have continuations of both kinds"
    assert set(rows[0]["labels"]) == {None}
    assert manifest["metrics"]["undecided"] == sum(row["labels"].count(None) for row in rows)


class CutOff(TransformersEngine):
    """Continues with a number and is cut off."""

    def submit(self, requests, progress=""):
        cut = Rollout(text="There are 8 red balls and the", token_ids=(1,), finish_reason="length")
        parts = {"prompt_token_ids": (), "weight_version": 0}
        return [
            RolloutGroup(prompt=one.prompt, rollouts=(cut,) * one.sampling.num_samples, **parts)
            for one in requests
        ]


def test_a_continuation_that_is_cut_off_reaches_no_answer(transformers, responses, tmp_path):
    first = replace(responses[0], prompt=replace(responses[0].prompt, answer="8", answer_type="integer"))
    rows, _ = label(CutOff(transformers.lmm), [first], tmp_path, num_continuations=4)
    assert set(rows[0]["labels"][:-1]) == {0.0}
    assert set(rows[0]["num_decided"][:-1]) == {4}


class Recording(TransformersEngine):
    """Remembers what it is asked for, and fails where it is told to."""

    class Crash(Exception):
        pass

    def __init__(self, engine, crash_at=None):
        super().__init__(engine.lmm, engine._model)
        self.crash_at = crash_at
        self.asked = []

    def submit(self, requests, progress=""):
        self.asked.append([request.prompt.id for request in requests])
        if len(self.asked) == self.crash_at:
            raise self.Crash
        return super().submit(requests, progress)


def test_after_a_crash_only_the_rest_is_labelled(transformers, responses, tmp_path):
    options = {"shard": 2, "soft": True, "num_continuations": 2}
    whole, manifest = label(transformers, responses, tmp_path / "whole", **options)
    first = Recording(transformers, crash_at=2)
    with pytest.raises(Recording.Crash):
        label(first, responses, tmp_path / "cut", **options)
    assert not (tmp_path / "cut" / "manifest.json").exists(), "the manifest means complete"
    second = Recording(transformers)
    assert label(second, responses, tmp_path / "cut", **options) == (whole, manifest)
    assert second.asked == first.asked[1:], "goes on with the shard that was lost"
    assert set(second.asked[0]) == {one.prompt.id for one in responses[2:]}
    third = Recording(transformers)
    assert label(third, responses, tmp_path / "cut", **options) == (whole, manifest)
    assert third.asked == []


def test_labels_of_another_policy_or_setting_are_set_aside(transformers, responses, tmp_path):
    old, _ = label(transformers, responses[:2], tmp_path / "labels", "one", num_continuations=1)
    new, manifest = label(transformers, responses, tmp_path / "labels", "another", num_continuations=2)
    assert rows_of(tmp_path / "labels.stale-1") == old
    assert [row["prompt"] for row in new[:2]] == [row["prompt"] for row in old]
    assert new == label(transformers, responses, tmp_path / "fresh", "another", num_continuations=2)[0]
    assert (manifest["fingerprint"], manifest["num_rows"]) == ("another", len(responses))


def test_the_report_counts_what_was_found(engine, responses, drawn, tmp_path):
    _, manifest = label(engine, responses, tmp_path, shard=3, early_stop=False)
    records = list(read_labels(tmp_path))
    assert [Example(prompt=one.prompt, response=join_steps(list(one.steps))) for one in records] == responses
    steps = [len(record.steps) for record in records]
    expected = {
        "responses": 4,
        "steps": sum(steps),
        "undecided": 0,
        "positive": sum(label > 0 for record in records for label in record.labels),
        "continuations": N * sum(number - 1 for number in steps),
        "tokens": sum(len(one.token_ids) for own in drawn for found in own for one in found),
    }
    for record in records:
        wrong = [number for number, label in enumerate(record.labels, start=1) if label == 0.0]
        name = f"first_wrong/{wrong[0] if wrong else 'none'}"
        expected[name] = expected.get(name, 0) + 1
    assert manifest["metrics"] == expected
    assert "first_wrong/none" in expected
    assert len(expected) > 7, "and a response with a wrong step"


def test_a_request_for_later_samples_draws_what_a_request_for_all_has_there(engine, responses):
    prompt, (prefix, *_) = responses[0].prompt, prefixes_of(responses[0].response)

    def drawn(first, count, text):
        sampling = replace(SAMPLING, num_samples=count)
        return engine.submit([Request(prompt=prompt, sampling=sampling, prefix=text, first=first)])[
            0
        ].rollouts

    for text in ("", prefix):
        whole = drawn(0, 16, text)
        assert drawn(4, 4, text) == whole[4:8]
        assert drawn(15, 1, text) == whole[15:]
        assert len({one.token_ids for one in whole}) > 4


@pytest.mark.engine
def test_vllm_continues_a_prefix_as_transformers_does(transformers, vllm, responses):
    greedy = SamplingConfig(max_tokens=SAMPLING.max_tokens)
    requests = [
        Request(prompt=one.prompt, sampling=greedy, prefix=prefix)
        for one in responses
        for prefix in ("", *prefixes_of(one.response))
    ]
    expected, got = transformers.submit(requests), vllm.submit(requests)
    assert [group.rollouts for group in got] == [group.rollouts for group in expected]
    assert [group.prompt_token_ids for group in got] == [group.prompt_token_ids for group in expected]
    continued = [group.rollouts[0].text for group, ask in zip(got, requests, strict=True) if ask.prefix]
    assert len(set(continued)) > 6


@pytest.mark.engine
def test_the_cache_of_a_shorter_prefix_serves_the_longer_ones(
    transformers, vllm, responses, tmp_path, monkeypatch
):
    """In whole blocks: what is cached is the prefix before, and in a later wave the prefix itself."""
    outputs = []
    generate = vllm._llm.generate

    def recorded(*args, **kwargs):
        outputs.append(generate(*args, **kwargs))
        return outputs[-1]

    nothing = Grade(outcome=Outcome.WRONG, extraction=None, prediction=None, rule="test")
    monkeypatch.setattr(vllm._llm, "generate", recorded)
    monkeypatch.setattr("mstar_pl.rollouts.labels.grade", lambda *_: nothing)
    vllm.load_policy(transformers.lmm.load_model().state_dict().items(), version=2)
    example = max(responses, key=lambda one: len(one.response))
    label(vllm, [example], tmp_path, num_continuations=2)
    block = vllm._llm.llm_engine.vllm_config.cache_config.block_size
    first, second = outputs
    lengths = [len(output.prompt_token_ids) for output in first]
    assert lengths == sorted(lengths)
    before = [0, *[shared_start(one.prompt_token_ids, two.prompt_token_ids) for one, two in pairwise(first)]]
    assert [output.num_cached_tokens for output in first] == [length // block * block for length in before]
    # The last token is computed again in any case.
    assert [output.num_cached_tokens for output in second] == [
        (length - 1) // block * block for length in lengths
    ]
    assert first[-1].num_cached_tokens >= block


def shared_start(one, two):
    """Number of tokens that two lists begin with alike."""
    return next((at for at, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), len(one))
