"""The embedded LMM on both engines."""

import pytest

from mstar_pl.models import InternVL
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from tests.engines import running


@pytest.fixture(scope="module")
def transformers():
    lmm = InternVL(question_style="plain")
    return TransformersEngine(lmm, lmm.load_model(), batch_size=128)


@pytest.fixture(scope="module")
def vllm(transformers):
    with running(transformers.lmm) as engine:
        yield engine


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.engine)])
def engine(request):
    return request.getfixturevalue(request.param)
