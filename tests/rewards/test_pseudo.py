"""Pseudo answers of unlabelled prompts against votes counted by hand."""

from collections import Counter
from dataclasses import replace

import pytest

from mstar_pl.data.labelled import HIDDEN_ANSWER, hide_answers
from mstar_pl.rewards import AnswerReward, TopK
from mstar_pl.rewards.pseudo import PseudoAnswerReward
from mstar_pl.rewards.reward import ModelReward
from mstar_pl.rollouts.summary import summarise
from mstar_pl.types import InputError, Prompt, Rollout, RolloutGroup, ScoredGroup

PROMPT = Prompt(id="1", question="How many?", answer_type="integer", metadata={HIDDEN_ANSWER: "3"})


class Judge:
    """An answer check with a process score: a tenth for each z of the response."""

    def __init__(self):
        self.answers = AnswerReward()
        self.where = []

    def __call__(self, group):
        scores = self.answers(group)
        return [
            replace(score, process=rollout.text.count("z") / 10)
            for score, rollout in zip(scores, group.rollouts, strict=True)
        ]

    def wake(self, device):
        self.where.append(device)

    def sleep(self):
        self.where.append("host")


def group_of(*samples, prompt=PROMPT):
    """A group whose samples answer so and are judged so; None is no answer."""
    texts = [
        f"red {'z' * round(10 * process)} {'y' * number}"
        + ("" if answer is None else f"\n\n# Answer\n\n{answer}")
        for number, (answer, process) in enumerate(samples)
    ]
    rollouts = tuple(Rollout(text=text, token_ids=(1,), finish_reason="stop") for text in texts)
    return RolloutGroup(prompt=prompt, prompt_token_ids=(), rollouts=rollouts, weight_version=0)


SAMPLES = [("3", 0.9), ("4", 0.3), ("4.0", 0.3), (None, 0.8), ("4", 0.2), ("3", 0.1)]


@pytest.mark.parametrize(
    ("vote", "winners"),
    [("weighted", (0, 5)), ("majority", (1, 2, 4)), ("oracle", (0, 5))],
)
def test_the_samples_of_the_winning_answer_are_correct(vote, winners):
    group = group_of(*SAMPLES)
    scores = PseudoAnswerReward(Judge(), vote)(group)
    assert tuple(n for n, score in enumerate(scores) if score.outcome == "correct") == winners
    assert Counter(score.outcome for score in scores)["wrong"] == len(SAMPLES) - len(winners)
    assert [score.process for score in scores] == [process for _, process in SAMPLES]
    assert TopK(1)(group, scores) == (winners[0],)


def test_labelled_prompts_are_not_voted_on():
    group = group_of(*SAMPLES, prompt=replace(PROMPT, answer="4"))
    assert PseudoAnswerReward(Judge())(group) == Judge()(group)


def test_without_any_answer_nothing_is_decided():
    scores = PseudoAnswerReward(Judge())(group_of((None, 0.5), (None, 0.9)))
    assert {score.outcome for score in scores} == {"undecided"}


def test_a_vote_without_weights_and_an_oracle_without_answers_are_refused():
    with pytest.raises(InputError, match="give it a ProcessReward or vote: majority"):
        PseudoAnswerReward(AnswerReward())(group_of(*SAMPLES))
    with pytest.raises(InputError, match=r"prompt '1' has no metadata\.hidden_answer for the oracle"):
        PseudoAnswerReward(Judge(), "oracle")(group_of(*SAMPLES, prompt=replace(PROMPT, metadata={})))


def test_the_model_inside_wakes_and_sleeps():
    judge = Judge()
    reward = PseudoAnswerReward(judge)
    assert isinstance(reward, ModelReward)
    assert reward.answers is judge.answers
    reward.wake("cuda")
    reward.sleep()
    assert judge.where == ["cuda", "host"]
    plain = PseudoAnswerReward(AnswerReward(), "majority")
    plain.wake("cuda")
    plain.sleep()
    assert plain.answers is plain.reward


def test_agreement_counts_pseudo_answers_whose_truth_is_known():
    """Two agree, one does not, one has no answer, the truth of one is not known."""
    told = PseudoAnswerReward(Judge())
    unlabelled = [
        (group_of(("3", 0.5)), 1),
        (group_of(("3", 0.5), ("4", 0.4)), 1),
        (group_of(("4", 0.5)), 0),
        (group_of((None, 0.5)), None),
        (group_of(("3", 0.5), prompt=replace(PROMPT, metadata={})), None),
    ]
    groups = [group for group, _ in unlabelled]
    groups.append(group_of(("3", 0.5), ("4", 0.5), prompt=replace(PROMPT, answer="4")))
    scored = [ScoredGroup(group=group, scores=told(group), selected=()) for group in groups]
    metrics = summarise(scored)
    known = [agrees for _, agrees in unlabelled if agrees is not None]
    assert metrics["pseudo/prompts"] == len(unlabelled)
    assert metrics["pseudo/compared"] == len(known)
    assert metrics["pseudo/agreement"] == sum(known) / len(known)
    assert metrics["reward/pass@1"] == 0.5, "of the labelled prompt alone"
    assert "pseudo/prompts" not in summarise(scored[-1:])


def test_hidden_answers_are_a_share_chosen_by_the_seed():
    prompts = [Prompt(id=str(n), question="?", answer=str(n)) for n in range(40)]
    hidden = hide_answers(prompts, 25, seed=1)
    unlabelled = [prompt for prompt in hidden if prompt.answer is None]
    assert len(unlabelled) == 10
    assert all(prompt.metadata[HIDDEN_ANSWER] == prompt.id for prompt in unlabelled)
    assert [prompt.id for prompt in hidden] == [prompt.id for prompt in prompts]
    assert hide_answers(prompts, 25, seed=1) == hidden != hide_answers(prompts, 25, seed=2)
    with pytest.raises(InputError, match="101 is not a percentage"):
        hide_answers(prompts, 101, seed=1)
