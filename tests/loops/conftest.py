"""Prompts of the loop's tests."""

import pytest

from tests.loops.evolving import write_files


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """96 prompts to sample from and 8 to measure on."""
    return write_files(tmp_path_factory.mktemp("minivista"), 96, 8)
