"""The parity suite on a tiny random model of each family, in float32, with the real engine."""

import pytest
import torch

from mstar_pl.models import adapter_for
from mstar_pl.modules import PolicyModule
from mstar_pl.parity import CHECKS, Subject, check_all
from tests.tiny import BUILDERS

WITHOUT_ENGINE = [check for check in CHECKS if not check.with_engine]


@pytest.fixture(scope="module", params=list(BUILDERS))
def family(request, tmp_path_factory):
    torch.manual_seed(0)
    return str(BUILDERS[request.param](tmp_path_factory.mktemp(request.param)))


def start(lmm):
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(lmm, max_model_len=512, max_num_seqs=64, max_images=2)


def outcomes(results):
    """What went wrong, with what was measured, so that a failure tells it."""
    return {one.name: (one.size, one.remark) for one in results if one.outcome == "failed"}


def test_training_side(family, tmp_path):
    module = PolicyModule(adapter_for(family, question_style="plain"))
    results = list(check_all(Subject(module, tmp_path, None), WITHOUT_ENGINE))
    assert outcomes(results) == {}
    assert len(results) == 6


@pytest.mark.engine
def test_suite(family, tmp_path):
    module = PolicyModule(adapter_for(family, question_style="plain"))
    subject = Subject(module, tmp_path, start)
    try:
        results = list(check_all(subject))
    finally:
        subject.close()
    assert outcomes(results) == {}
    assert [one.name for one in results] == [check.name for check in CHECKS]
