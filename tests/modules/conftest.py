"""Labelled responses for the tests of process reward models."""

import pytest

from mstar_pl.data.step_labels import StepLabels
from tests.modules.judging import RESPONSES, save


@pytest.fixture(scope="module")
def records(prompts):
    """Eight responses of one to four steps with hard, soft and missing labels; the fifth has one label."""
    return [
        StepLabels(prompt=prompt, steps=steps, labels=labels)
        for prompt, (steps, labels) in zip(prompts, RESPONSES, strict=True)
    ]


@pytest.fixture(scope="module")
def step_file(tmp_path_factory, records):
    return save(tmp_path_factory.mktemp("steps") / "steps.jsonl", records)
