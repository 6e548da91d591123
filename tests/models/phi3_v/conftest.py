"""A tiny Phi-3.5-vision in a folder like the published one."""

import pytest
import torch

from mstar_pl.models import adapter_for
from tests.tiny.phi3_v import build_phi3_v


@pytest.fixture(scope="session")
def phi_folder(tmp_path_factory):
    torch.manual_seed(0)
    return str(build_phi3_v(tmp_path_factory.mktemp("phi3_v"), num_crops=1))


@pytest.fixture(scope="session")
def lmm(phi_folder):
    return adapter_for(phi_folder, question_style="plain")


@pytest.fixture(scope="session")
def model(lmm):
    """Not changed by any test."""
    return lmm.load_model()
