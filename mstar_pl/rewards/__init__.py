"""Rewards: whether an answer is right, and what a response is worth."""

from mstar_pl.rewards.answer import Grade, Outcome, grade

__all__ = ["Grade", "Outcome", "grade"]
