"""The overlays of the sources name classes and options that there are."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from mstar_pl.data.sources.source import Source

OVERLAYS = sorted((Path(__file__).parents[3] / "configs/data").glob("*.yaml"))


def parser_of_data():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", fail_untyped=False)
    return parser


def test_a_data_file_is_not_read_as_a_configuration(tmp_path):
    path = tmp_path / "train.json"
    path.write_text('{"class_path": "Nothing"}')
    options = ["--data", str(OVERLAYS[0].parent / "jsonl.yaml"), f"--data.init_args.train={path}"]
    assert parser_of_data().parse_args(options).data.init_args.train == str(path)


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_makes_a_data_module_and_is_saved_as_it_was_read(path):
    parser = parser_of_data()
    read = parser.parse_object({"data": str(path)})
    saved = parser.parse_string(parser.dump(read))
    data = parser.instantiate_classes(saved).data
    given = [one for one in data.given.values() if one is not None]
    assert given
    assert path.stem == "jsonl" or all(isinstance(one, Source) for one in given)
