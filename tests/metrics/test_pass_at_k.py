"""Pass@K against counting all draws."""

from itertools import combinations
from statistics import fmean

import pytest

from mstar_pl.metrics.pass_at_k import pass_at_k


@pytest.mark.parametrize("num_samples", [1, 2, 5, 7])
def test_equals_the_share_of_draws_with_a_correct_sample(num_samples):
    for num_correct in range(num_samples + 1):
        samples = [index < num_correct for index in range(num_samples)]
        for k in range(1, num_samples + 1):
            expected = fmean(any(draw) for draw in combinations(samples, k))
            assert pass_at_k(num_samples, num_correct, k) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5)])
def test_contradictions_are_refused(n, c, k):
    with pytest.raises(ValueError, match="need 0 <= c <= n"):
        pass_at_k(n, c, k)
