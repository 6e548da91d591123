"""A tiny MiniCPM-Llama3-V-2.5."""

import pytest

from mstar_pl.models import adapter_for
from tests.tiny import build_minicpmv


@pytest.fixture(scope="session")
def minicpmv_folder(tmp_path_factory):
    return str(build_minicpmv(tmp_path_factory.mktemp("minicpmv")))


@pytest.fixture
def minicpmv(minicpmv_folder):
    return adapter_for(minicpmv_folder, question_style="plain")
