"""The warm-up's solutions: what is asked, what is kept, and what an interruption costs."""

from collections import Counter

import pytest

from mstar_pl.data.format import render_answer_conditioned
from mstar_pl.data.jsonl import read_prompts
from mstar_pl.data.minivista import write_split
from mstar_pl.data.store import RolloutStore
from mstar_pl.models import InternVL
from mstar_pl.rewards import grade
from mstar_pl.rollouts.bootstrap import BootstrapConfig, Untold, explain, find_leak, with_answer_part
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError, Prompt, Rollout, RolloutGroup, SamplingConfig, Score

CONFIG = BootstrapConfig(style="plain", instruction="Explain the answer.", max_per_prompt=2)
SAMPLING = SamplingConfig(num_samples=4, temperature=0.8, max_tokens=64, seed=3)


class Recording(TransformersEngine):
    """Remembers how many prompts each submission had, and fails where it is told to."""

    class Crash(BaseException):
        pass

    def __init__(self, lmm, crash_at=None):
        super().__init__(lmm, lmm.load_model())
        self.asked = []
        self.crash_at = crash_at

    def submit(self, requests, progress=""):
        self.asked.append([request.prompt for request in requests])
        if len(self.asked) == self.crash_at:
            raise self.Crash
        return super().submit(requests, progress)


@pytest.fixture(scope="module")
def lmm():
    return InternVL(question_style="plain")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    return read_prompts(write_split(tmp_path_factory.mktemp("minivista"), "train", 12, solutions=False))


@pytest.fixture(scope="module")
def whole(lmm, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *explain(Recording(lmm), prompts, SAMPLING, CONFIG, folder, "f")


@pytest.mark.parametrize(
    "text",
    [
        "This matches the given answer.",
        "The provided answer is 4, so the bars must add up to 4.",
        "Since the answer is 4, the blue bar is 2.",
        "Because the correct answer is B, we look at the second bar.",
        "which agrees with the final answer",
        "As we already know the answer, we work backwards.",
        "The answer was given as 4.",
        "The answer is already known.",
        "According to the answer, there are 4.",
        "consistent with the correct answer",
        "the ground-truth answer",
        "We are told the answer is B.",
        "Given the answer of 4, the bars must add up.",
        "As mentioned in the question, the answer is 4.",
        "The answer you provided, 4, fits.",
    ],
)
def test_a_response_that_was_told_the_answer_is_found(text):
    assert find_leak(f"I count: red 4.\n\n{text}\n\n# Answer\n\n4")


@pytest.mark.parametrize(
    "text",
    [
        "The answer is option B: blue.",
        "So the correct answer is 4.",
        "We are given that the width is 4.",
        "The given angles are 30 and 60 degrees. The answer is 90.",
        "The length is given as 5, the answer follows.",
        "The expected result is 5 by the second law.",
        "From the given result of the table, add them.",
    ],
)
def test_a_response_that_was_not_is_left_alone(text):
    assert find_leak(f"I count: red 4.\n\n{text}\n\n# Answer\n\n4") is None


def test_only_untold_finished_distinct_responses_are_kept():
    texts = ["Since the answer is 4.", "a", "cut", "a", "wrong", "b", "c"]
    group = RolloutGroup(
        prompt=Prompt(id="1", question="?"),
        prompt_token_ids=(),
        rollouts=tuple(
            Rollout(text=text, token_ids=(1,), finish_reason="length" if text == "cut" else "stop")
            for text in texts
        ),
        weight_version=0,
    )
    scores = [Score(outcome="wrong" if text == "wrong" else "correct") for text in texts]
    assert Untold(2)(group, scores) == (1, 5)
    assert Untold(9)(group, scores) == (1, 5, 6)


def test_the_model_is_told_the_answer_and_the_data_are_not(lmm, prompts, whole):
    folder, _, examples = whole
    engine = Recording(lmm, crash_at=1)
    with pytest.raises(Recording.Crash):
        explain(engine, prompts, SAMPLING, CONFIG, folder / "other", "f")
    for asked, prompt in zip(engine.asked[0], prompts, strict=True):
        told = render_answer_conditioned(prompt, "plain", "Explain the answer.")
        assert lmm.render(asked) == lmm.chat(told, 1)
    assert {example.prompt.id for example in examples} <= {prompt.id for prompt in prompts}
    assert all(example.prompt in prompts for example in examples)


def test_a_prompt_of_any_form_is_told_its_answer():
    options = {"choices": ("30°", "45°"), "question_type": "multi_choice"}
    degrees = Prompt(id="1", question="Which?", answer="45°", answer_type="integer", **options)
    written = Prompt(id="2", question="How many?", answer="4", query="Hint: count. How many?")
    for prompt in (degrees, written):
        told = CONFIG.condition(prompt)
        assert InternVL(question_style="plain").render(told).count(prompt.answer)
        assert Prompt.from_json(told.to_json()) == told, "the store reads it back"


def test_what_is_kept_is_right_and_no_more_than_wanted(whole, prompts):
    folder, manifest, examples = whole
    labelled = {prompt.id: prompt for prompt in prompts}
    expected = []
    for one in sorted(RolloutStore(folder).groups(0), key=lambda one: one.group.prompt.id):
        prompt = labelled[one.group.prompt.id]
        finished = [text for text in one.group.finished if grade(text, prompt).outcome == "correct"]
        expected += [(prompt.id, text) for text in finished[:2]]
    found = [(example.prompt.id, example.response) for example in examples]
    assert Counter(found) == Counter(expected)
    assert max(Counter(key for key, _ in found).values()) == 2
    metrics = manifest["metrics"]
    assert metrics["reward/selected"] == len(found) > 8
    assert metrics["reward/solved_prompts"] == len({key for key, _ in found}) / len(prompts)
    assert metrics["bootstrap/leaks"] == 0


def test_a_crash_costs_one_shard(lmm, prompts, whole, tmp_path):
    crashing = Recording(lmm, crash_at=3)
    with pytest.raises(Recording.Crash):
        explain(crashing, prompts, SAMPLING, CONFIG, tmp_path, "f", shard=4)
    again = Recording(lmm)
    _, examples = explain(again, prompts, SAMPLING, CONFIG, tmp_path, "f", shard=4)
    assert [[prompt.id for prompt in asked] for asked in again.asked] == [
        [prompt.id for prompt in prompts[8:]]
    ]
    assert examples == whole[2]


def test_a_base_that_explains_nothing_is_refused(lmm, prompts, tmp_path):
    short = SamplingConfig(num_samples=2, temperature=0.8, max_tokens=2)
    with pytest.raises(InputError, match=r"none of 24 responses can be used \(Pass@1 0\.000\); read .*respo"):
        explain(Recording(lmm), prompts, short, CONFIG, tmp_path / "responses", "f")


def test_the_answer_part_is_added_where_it_is_missing():
    choice = Prompt(id="1", question="?", answer="b", choices=("a", "b"), question_type="multi_choice")
    assert with_answer_part("It is b.", choice) == "It is b.\n\n# Answer\n\nB"
    assert with_answer_part(" x\n\n# Answer\n\nB\n", choice) == "x\n\n# Answer\n\nB"


def test_a_config_that_keeps_nothing_is_refused():
    with pytest.raises(InputError, match="max_per_prompt must be at least 1"):
        BootstrapConfig(max_per_prompt=0)
