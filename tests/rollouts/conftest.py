"""The embedded LMM on both engines."""

import pytest

from mstar_pl.models import InternVL
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from tests.engines import running


@pytest.fixture(scope="module")
def transformers(request):
    """Takes the batch size from the module's TRANSFORMERS."""
    lmm = InternVL(question_style="plain")
    options = getattr(request.module, "TRANSFORMERS", {"batch_size": 128})
    return TransformersEngine(lmm, lmm.load_model(), **options)


@pytest.fixture(scope="module")
def vllm(request, transformers):
    """Takes options from the module's VLLM."""
    with running(transformers.lmm, **getattr(request.module, "VLLM", {})) as engine:
        yield engine


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.engine)])
def engine(request):
    return request.getfixturevalue(request.param)
