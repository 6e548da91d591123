"""Pass@K: whether at least one of K samples is correct."""

from __future__ import annotations

from math import prod


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Return the unbiased estimate of Pass@K of one prompt from n samples of which c are correct.

    `1 - C(n-c, k) / C(n, k)`, the chance that k samples drawn without replacement hold a correct one
    (Chen et al. 2021, arXiv 2107.03374, section 2.1).

    Args:
        num_samples: n, at least k.
        num_correct: c, at most n.
        k: Samples that a user would look at.

    Raises:
        ValueError: The numbers contradict each other.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.25, 0.5, 1.0)
    """
    if not (0 <= num_correct <= num_samples and 1 <= k <= num_samples):
        raise ValueError(f"n = {num_samples}, c = {num_correct}, k = {k}: need 0 <= c <= n and 1 <= k <= n")
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - prod((num_samples - num_correct - i) / (num_samples - i) for i in range(k))
