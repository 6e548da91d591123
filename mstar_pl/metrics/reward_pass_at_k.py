"""Reward-Pass@K: whether one of the K samples that the reward model likes best is correct."""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import comb


def reward_pass_at_k(
    scores: Sequence[float], correct: Sequence[bool], k: int, num_ranked: int | None = None
) -> float:
    """Return the unbiased estimate of Reward-Pass@K of one prompt: sample N, rank, look at the top k.

    The metric is that of arXiv 2412.17451, section 4 (there k = 2, N = 16): samples are ranked by the reward
    model alone, without an answer check. With n >= N samples it is the share of the subsets of N whose k
    best-scored hold a correct one; an average over all subsets, as in Chen et al. 2021 (arXiv 2107.03374,
    section 2.1) for Pass@K. With the samples sorted by falling score,

        1 - sum over wrong samples i of C(w_i, k-1) * C(n-1-i, N-k) / C(n, N),

    where i is the position from 0 and w_i the number of wrong samples before it: a subset fails if sample i
    is its k-th and the k-1 before are wrong too, whatever the N-k behind are.

    Args:
        scores: The reward model's score of each of the n samples; equal ones rank by their order.
        correct: Whether each sample is correct.
        k: Samples looked at, at least 1.
        num_ranked: N, from k to n; None for all n, which leaves nothing to average: the plain top k.

    Raises:
        ValueError: The numbers contradict each other, or a score is not a number.

    >>> scores, correct = [0.9, 0.2, 0.8, 0.1], [False, False, True, False]
    >>> reward_pass_at_k(scores, correct, k=1), reward_pass_at_k(scores, correct, k=2)
    (0.0, 1.0)
    >>> reward_pass_at_k(scores, correct, k=1, num_ranked=3)  # of 4 subsets one is without the first
    0.25
    """
    n = len(scores)
    ranked = n if num_ranked is None else num_ranked
    if len(correct) != n or not 1 <= k <= ranked <= n:
        raise ValueError(
            f"{n} scores, {len(correct)} outcomes, k = {k}, N = {ranked}: need an outcome a score and "
            "1 <= k <= N <= n"
        )
    if any(math.isnan(score) for score in scores):
        raise ValueError("a score is NaN, which has no rank; leave the sample out")
    order = sorted(range(n), key=lambda index: -scores[index])  # stable: equal scores keep their order
    failing = num_wrong = 0
    for position, index in enumerate(order):
        if not correct[index]:
            failing += comb(num_wrong, k - 1) * comb(n - 1 - position, ranked - k)
            num_wrong += 1
    return (comb(n, ranked) - failing) / comb(n, ranked)
