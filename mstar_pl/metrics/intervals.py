"""Confidence intervals of means and of paired differences by the percentile bootstrap (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEVEL = 0.95
_CHUNK = 2**22  # numbers resampled at once, so that memory stays bounded


class Interval(NamedTuple):
    """A mean with the bounds of its confidence interval, all in the unit of the values."""

    mean: float
    low: float
    high: float

    @property
    def percent(self) -> str:
        """The interval of a share, as text in percent.

        >>> Interval(0.5, 0.25, 0.75).percent
        '50.0 % (25.0 to 75.0)'
        """
        return "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * value for value in self))


def bootstrap_interval(values: ArrayLike, num_resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of one value per prompt with its 95 % percentile bootstrap interval.

    Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3. The mean of a resample of
    values that are all 0 or 1 is a binomial count over n, so these are drawn directly, which is the same
    distribution at less cost.

    Args:
        values: One value per prompt, e.g. 1 for correct and 0 for wrong; at least one, all finite.
        num_resamples: Number of bootstrap resamples.
        seed: Seed of the resampling.

    >>> interval = bootstrap_interval([1] * 400 + [0] * 600)
    >>> interval.mean, round(interval.low, 2), round(interval.high, 2)
    (0.4, 0.37, 0.43)
    >>> bootstrap_interval([2.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    array = _checked(values, num_resamples)
    rng = np.random.default_rng(seed)
    if np.isin(array, (0.0, 1.0)).all():
        means = rng.binomial(array.size, array.mean(), size=num_resamples) / array.size
    else:
        means = _resampled_means(array, num_resamples, rng)
    return _percentiles(array, means)


def paired_difference(a: ArrayLike, b: ArrayLike, num_resamples: int = 10_000, seed: int = 0) -> Interval:
    """Return the mean of `a - b` over the same prompts with its 95 % percentile bootstrap interval.

    Whole prompts are resampled (Efron & Tibshirani 1993, section 8.3, for paired data), so what the two
    policies have in common cancels; an interval without 0 says that they differ.

    >>> interval = paired_difference([1, 1, 1, 0] * 100, [1, 0, 1, 0] * 100)
    >>> interval.mean, 0.2 < interval.low < interval.high < 0.3
    (0.25, True)
    """
    first, second = _checked(a, num_resamples), _checked(b, num_resamples)
    if first.shape != second.shape:
        raise ValueError(f"paired values must be of the same prompts, got {first.size} and {second.size}")
    differences = first - second
    means = _resampled_means(differences, num_resamples, np.random.default_rng(seed))
    return _percentiles(differences, means)


def weighted_sum(intervals: Sequence[Interval], weights: Sequence[float]) -> Interval:
    """Return a weighted sum of independent estimates, with an interval that is made of theirs.

    The distances between means and bounds add up as standard errors do (Zou & Donner, Statistics in Medicine
    27, 2008, section 2). Weights 1 and -1 give a difference, 1/n each an average.

    >>> a, b = Interval(0.5, 0.2, 0.9), Interval(0.4, 0.1, 0.8)
    >>> [round(bound, 3) for bound in weighted_sum([a, b], [1, -1])]
    [0.1, -0.4, 0.6]
    """
    mean = below = above = 0.0
    for one, weight in zip(intervals, weights, strict=True):
        down, up = weight * (one.mean - one.low), weight * (one.high - one.mean)
        mean += weight * one.mean
        below, above = below + (down if weight > 0 else up) ** 2, above + (up if weight > 0 else down) ** 2
    return Interval(mean, mean - below**0.5, mean + above**0.5)


def _checked(values: ArrayLike, num_resamples: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"expected at least one value per prompt in one dimension, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("values must be finite; leave out prompts without a value")
    if num_resamples < 1:
        raise ValueError("num_resamples must be at least 1")
    return array


def _resampled_means(
    array: NDArray[np.float64], num_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw resampled means; if few values are distinct, equal ones are drawn together as a multinomial."""
    distinct, counts = np.unique(array, return_counts=True)
    if distinct.size <= 32:
        return rng.multinomial(array.size, counts / array.size, size=num_resamples) @ distinct / array.size
    rows = max(1, _CHUNK // array.size)
    chunks = [min(rows, num_resamples - start) for start in range(0, num_resamples, rows)]
    return np.concatenate(
        [array[rng.integers(array.size, size=(n, array.size))].mean(axis=1) for n in chunks]
    )


def _percentiles(array: NDArray[np.float64], means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(array.mean()), float(low), float(high))
