"""The scalars of an iteration, by hand."""

import pytest

from mstar_pl.rollouts.summary import summarise
from mstar_pl.types import Prompt, Rollout, RolloutGroup, Score, ScoredGroup


def group(prompt, rows, selected=()):
    """Rows of (text, number of tokens, finish reason, outcome)."""
    rollouts = tuple(
        Rollout(text=text, token_ids=(1,) * length, finish_reason=reason) for text, length, reason, _ in rows
    )
    return ScoredGroup(
        group=RolloutGroup(prompt=prompt, prompt_token_ids=(1,), rollouts=rollouts, weight_version=3),
        scores=tuple(Score(outcome=outcome) for *_, outcome in rows),
        selected=selected,
    )


def test_summary_by_hand():
    count = Prompt(id="a", question="?", answer="1", metadata={"task": "visual question answering"})
    other = Prompt(id="b", question="?", answer="1")
    metrics = summarise(
        [
            group(
                count,
                [
                    ("x", 2, "stop", "correct"),
                    ("x ", 4, "stop", "correct"),
                    ("y", 6, "length", "wrong"),
                    ("z", 8, "stop", "undecided"),
                ],
                selected=(0,),
            ),
            group(other, [(str(n), 1, "stop", "wrong") for n in range(4)]),
        ]
    )
    assert metrics == pytest.approx(
        {
            "rollout/prompts": 2,
            "rollout/samples": 8,
            "rollout/weight_version": 3,
            "rollout/response_length": 24 / 8,
            "rollout/truncated": 1 / 8,
            "rollout/empty": 0,
            "rollout/repetitive": 0,
            "rollout/degenerate": 1 / 8,
            "rollout/duplicate": 1 / 8,
            "reward/undecided": 1 / 8,
            "reward/selected": 1,
            "reward/acceptance": 1 / 8,
            "reward/solved_prompts": 1 / 2,
            "reward/acceptance/all": 0,
            "reward/acceptance/visual_question_answering": 1 / 4,
            "reward/pass@1": (2 / 3 + 0) / 2,  # an undecided response is no wrong one
            "reward/pass@4": (1 + 0) / 2,
        }
    )


def test_without_a_decided_response_there_is_no_pass_rate():
    unsure = group(Prompt(id="a", question="?"), [("x", 1, "stop", "undecided")])
    assert not [name for name in summarise([unsure]) if "pass@" in name]
