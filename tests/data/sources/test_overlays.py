"""The overlays of the sources name classes and options that there are."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from mstar_pl.data.sources.source import Source

OVERLAYS = sorted((Path(__file__).parents[3] / "configs/data").glob("*.yaml"))


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_makes_a_data_module(path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False)
    data = parser.instantiate_classes(parser.parse_object({"data": str(path)})).data
    given = [one for one in data.given.values() if one is not None]
    assert given
    assert path.stem == "jsonl" or all(isinstance(one, Source) for one in given)
