"""Rewards: whether an answer is right, what a response is worth, and which responses are trained on."""

from mstar_pl.rewards.answer import Grade, Outcome, grade
from mstar_pl.rewards.reward import AnswerReward, Reward
from mstar_pl.rewards.selection import AllCorrect, RandomK, Selection, Threshold, TopK

__all__ = [
    "AllCorrect",
    "AnswerReward",
    "Grade",
    "Outcome",
    "RandomK",
    "Reward",
    "Selection",
    "Threshold",
    "TopK",
    "grade",
]
