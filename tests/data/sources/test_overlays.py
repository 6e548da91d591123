"""The overlays of the sources name classes and options that there are."""

from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from mstar_pl.cli import main
from mstar_pl.data.sources.source import Source

CONFIGS = Path(__file__).parents[3] / "configs"
OVERLAYS = sorted((CONFIGS / "data").glob("*.yaml"))
RECIPES = {"mathv360k": "continuous", "mstar_mprm": "mprm", "visualprm400k": "mprm"}
"""Recipes that an overlay is for, where it is not `sft`."""


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


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_leaves_no_data_of_the_recipe(path, capsys):
    recipe = CONFIGS / f"experiments/{RECIPES.get(path.stem, 'sft')}.yaml"
    with pytest.raises(SystemExit) as leave:
        main(["fit", "--config", str(recipe), "--data", str(path), "--print_config"])
    assert leave.value.code in (0, None)
    data = capsys.readouterr().out.partition("\ndata:")[2].partition("\noptimizer:")[0]
    assert "init_args" in data
    assert "runs/" not in data
