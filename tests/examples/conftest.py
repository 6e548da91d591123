"""The example package, installed alone, and a tiny model for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.published_glm4v import publish_glm4v

EXAMPLE = Path(__file__).parents[2] / "examples/mstar_pl_glm4v"


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder that pip installed the package into, and nothing else; it can be imported."""
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("example") / EXAMPLE.name)
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(site), str(source)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield site


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Configuration, tokenizer and processor as they are published, with a small vocabulary."""
    return str(publish_glm4v(tmp_path_factory.mktemp("published")))


@pytest.fixture(scope="session")
def tiny(installed, published, tmp_path_factory):
    """The tiny model that the package makes of them."""
    from mstar_pl_glm4v.tiny import shrink

    folder = str(tmp_path_factory.mktemp("tiny"))
    shrink(published, folder)
    return folder
