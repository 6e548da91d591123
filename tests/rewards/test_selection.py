"""Selection operators against a naive reading of their definition."""

import random

import pytest

from mstar_pl.rewards import AllCorrect, AnswerReward, RandomK, Threshold, TopK
from mstar_pl.types import InputError, Prompt, Rollout, RolloutGroup, Score

PROMPT = Prompt(id="p", question="1+1?", answer="2", answer_type="integer")


def make(texts, reasons=None, version=0, prompt=PROMPT):
    reasons = reasons or ["stop"] * len(texts)
    rollouts = tuple(
        Rollout(text=text, token_ids=(1, 2), finish_reason=reason)
        for text, reason in zip(texts, reasons, strict=True)
    )
    return RolloutGroup(prompt=prompt, prompt_token_ids=(1,), rollouts=rollouts, weight_version=version)


def scores(*pairs):
    return [Score(outcome=outcome, process=process) for outcome, process in pairs]


GROUP = make(["a", "b", "a ", "c", "d", "e", "f"], ["stop", "stop", "stop", "length", "stop", "stop", "stop"])
SCORES = scores(
    ("correct", 0.5),
    ("wrong", 0.9),
    ("correct", 0.9),  # the text of the first one
    ("correct", 0.9),  # cut off
    ("undecided", 0.9),
    ("correct", 0.7),
    ("correct", 0.5),
)


@pytest.mark.parametrize(
    ("selection", "kept"),
    [
        (AllCorrect(), (0, 5, 6)),
        (Threshold(0.5), (5,)),
        (Threshold(0.4), (0, 5, 6)),
        (TopK(1), (5,)),
        (TopK(2), (0, 5)),  # 0 and 6 are worth the same: the first one stays
        (TopK(9), (0, 5, 6)),
        (RandomK(9), (0, 5, 6)),
    ],
)
def test_by_hand(selection, kept):
    assert selection(GROUP, SCORES) == kept


def test_a_response_that_poses_a_next_question_is_not_trained_on():
    run_on = "So 6.\n\n# Answer\n\n6\n\nQuestion: What is 1+1?\n\n# Answer\n\n2"
    group = make([run_on, "So 6.\n\n# Answer\n\n6"], ["stop", "stop"])
    assert AllCorrect()(group, scores(("correct", 0.9), ("correct", 0.1))) == (1,)


@pytest.mark.parametrize("selection", [AllCorrect(), Threshold(0.2), TopK(2), RandomK(2)])
def test_never_incorrect_cut_off_or_twice(selection):
    rng = random.Random(0)
    for _ in range(300):
        number = rng.randint(1, 8)
        texts = [rng.choice("abcd") for _ in range(number)]
        reasons = [rng.choice(["stop", "stop", "length"]) for _ in range(number)]
        given = scores(
            *((rng.choice(["correct", "wrong", "undecided"]), rng.random()) for _ in range(number))
        )
        kept = selection(make(texts, reasons), given)
        assert list(kept) == sorted(set(kept))
        assert all(given[index].outcome == "correct" and reasons[index] == "stop" for index in kept)
        assert len({texts[index] for index in kept}) == len(kept)


def test_random_k_is_a_function_of_seed_step_and_prompt():
    texts = [str(number) for number in range(30)]
    given = scores(*[("correct", None)] * 30)
    first = RandomK(3)(make(texts), given)
    assert first == RandomK(3)(make(texts), given)
    other = [
        RandomK(3, seed=1)(make(texts), given),
        RandomK(3)(make(texts, version=1), given),
        RandomK(3)(make(texts, prompt=Prompt(id="q", question="?")), given),
    ]
    assert first not in other
    draws = {RandomK(1, seed=seed)(make(texts), given) for seed in range(400)}
    assert len(draws) == 30, "every candidate can be drawn"


def test_k_must_keep_something():
    with pytest.raises(InputError, match="give 1 or more"):
        TopK(0)


def test_answer_reward_grades_each_response():
    group = make(["# Answer\n\n2", "# Answer\n\n3", "I cannot say", "The answer is 2."])
    found = AnswerReward()(group)
    assert [score.outcome for score in found] == ["correct", "wrong", "wrong", "correct"]
    assert [score.reward for score in found] == [1.0, 0.0, 0.0, 1.0]


def test_undecided_is_worth_nothing_and_is_not_wrong():
    unlabelled = make(["# Answer\n\n2"], prompt=Prompt(id="u", question="?"))
    (score,) = AnswerReward()(unlabelled)
    assert score.outcome == "undecided"
    assert score.reward == 0.0
