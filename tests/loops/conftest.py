"""Prompts of the loop's tests."""

import pytest

from mstar_pl.data.minivista.write import write_split


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """96 prompts to sample from and 24 to measure on."""
    root = tmp_path_factory.mktemp("minivista")
    return {
        split: str(write_split(root, split, count, solutions=True))
        for split, count in [("train", 96), ("val", 24)]
    }
