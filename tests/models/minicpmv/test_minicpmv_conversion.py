"""The conversion of MiniCPM-Llama3-V-2.5: what is whole is kept, what is not is refused by name."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mstar_pl.cli import main
from mstar_pl.data.jsonl import write_json
from mstar_pl.models import adapter_for
from mstar_pl.models.checkpoint_files import INDEX, SINGLE
from mstar_pl.models.minicpmv.conversion import convert_minicpmv
from mstar_pl.types import InputError
from tests.models.broken import assert_refused, cut
from tests.tiny.minicpmv import build_published

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return build_published(tmp_path_factory.mktemp("published"))


@pytest.fixture
def source(published, tmp_path):
    """A copy that may be harmed."""
    return shutil.copytree(published, tmp_path / "source")


def split(source):
    """Put the weights into two shards; return the file of each."""
    weights = load_file(source / SINGLE)
    (source / SINGLE).unlink()
    names = sorted(weights)
    files = {name: SHARDS[place >= 20] for place, name in enumerate(names)}
    for file in SHARDS:
        part = {name: weights[name] for name in names if files[name] == file}
        save_file(part, source / file, {"format": "pt"})
    return files


def listing(change=dict):
    """Split the weights, with an index that lists what is left by a change of the right one."""
    return lambda source: write_json(source / INDEX, {"weight_map": change(split(source))})


def first_shard(files):
    return {name: file for name, file in files.items() if file == SHARDS[0]}


def written(name, text):
    return lambda source: (source / name).write_text(text)


def stating(name="config.json", **values):
    def harm(source):
        write_json(source / name, json.loads((source / name).read_text()) | values)

    return harm


def rewritten(without, **added):
    def harm(source):
        kept = {name: one for name, one in load_file(source / SINGLE).items() if name != without}
        save_file(kept | added, source / SINGLE, {"format": "pt"})

    return harm


@pytest.mark.parametrize("change", [dict, lambda files: dict(list(files.items())[19:21])])
def test_the_index_is_that_of_the_weights_in_the_files(published, source, tmp_path, change):
    """Also where the published one lists some of them only."""
    listing(change)(source)
    shutil.copy(source / SHARDS[0], source / "adapter.safetensors")  # no file of the model
    out = convert_minicpmv(source, tmp_path / "out")
    assert sorted(file.name for file in out.glob("*.safetensors*")) == sorted([*SHARDS, INDEX])
    index = json.loads((out / INDEX).read_text())
    expected = load_file(published / SINGLE)
    assert index["weight_map"] == {name: SHARDS[i >= 20] for i, name in enumerate(sorted(expected))}
    assert index["metadata"]["total_size"] == sum(weight.nbytes for weight in expected.values())
    found = adapter_for(str(out)).load_model().state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (split, rf"source: has neither {SINGLE} nor {INDEX}; download it"),
        (listing(first_shard), "source: weight .* is missing, expected is .*; download it again"),
        (listing(lambda files: files | {"one": "../x"}), rf"{INDEX}: weight_map does not give a file's name"),
        (listing(lambda files: files | {"one": "gone"}), "gone: does not exist; download it"),
        (listing(list), rf"{INDEX}: weight_map does not give"),
        (lambda source: (source / SINGLE).unlink(), rf"source: has neither {SINGLE} nor"),
        (cut(SINGLE), rf"{SINGLE}: cannot be read .*; download it again"),
        (rewritten("resampler.query"), r"source: weight resampler\.query is missing, expected is \(8, 128\)"),
        (
            rewritten("", **{"resampler.proj": torch.zeros(2, 2)}),
            rf"{SINGLE}: weight resampler\.proj is \(2, 2\), expected is \(128, 128\)",
        ),
        (rewritten("", other=torch.zeros(1)), rf"{SINGLE}: weight other is \(1,\), expected is no such"),
        (cut("config.json"), r"config\.json: cannot be read .*; download it again"),
        (written("config.json", "[]"), r"config\.json: holds no JSON object; download it again"),
        (stating(hidden_size=100), r"config\.json: cannot be used .*even rotary dim.*"),
        (stating(hidden_size="128"), r"config\.json: cannot be used .*'str'"),
        (stating(hidden_size=64), r"config\.json: cannot be used"),
        (stating(intermediate_size=-1), r"config\.json: cannot be used .*negative"),
        (stating(vision_config="none"), r"config\.json: cannot be used"),
        (stating(vision_config={"patch_size": 0}), r"config\.json: cannot be used .*zero"),
        (stating(torch_dtype="bf16x"), r"config\.json: cannot be used .*bf16x"),
        (lambda source: (source / "config.json").unlink(), r"config\.json: does not exist; give a whole"),
        (cut("tokenizer.json"), r"tokenizer\.json: cannot be read .*; download it again"),
        (written("tokenizer.json", "{}"), r"tokenizer\.json: has no model; download it again"),
        (lambda source: (source / "tokenizer.json").unlink(), r"tokenizer\.json: does not exist; give a"),
        (cut("preprocessor_config.json"), r"preprocessor_config\.json: cannot be read .*; download it again"),
        (
            stating("preprocessor_config.json", max_slice_nums="four"),
            r"preprocessor_config\.json: cannot be used .*max_slice_nums is 'four', no whole number",
        ),
    ],
)
def test_a_source_that_is_not_whole_is_refused_and_nothing_is_written(source, harm, message):
    assert_refused(convert_minicpmv, source, harm, message)


def test_a_tokenizer_of_another_model_is_refused(source, tmp_path):
    text = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(text.replace("</slice>", "</slices>"))
    with pytest.raises(InputError, match=r"tokenizer\.json: no token </slice>; it is not that of MiniCPM"):
        convert_minicpmv(source, tmp_path / "out")


@pytest.mark.parametrize("family", ["internvl2", "minicpmv"])
def test_the_target_is_looked_at_first(tmp_path, capsys, family):
    """What a killed conversion left is cleaned up; a target that cannot be is refused before the source."""
    left, file = tmp_path / ".out.999999.tmp", tmp_path / "file"
    left.mkdir()
    file.touch()
    assert main(["convert", family, str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "config.json: does not exist; give a whole model folder" in capsys.readouterr().err
    assert not left.exists()
    for target, message in [
        (file, "file: exists; remove it, or give another folder"),
        (file / "out", "out: cannot be made (File exists); give another folder"),
        (file / "below" / "out", "out: cannot be made (Not a directory); give another folder"),
    ]:
        assert main(["convert", family, str(tmp_path / "none"), str(target)]) == 2
        assert message in capsys.readouterr().err
