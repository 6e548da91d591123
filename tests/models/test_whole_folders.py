"""Model folders that are not whole, and options that would be ignored, are refused before any training."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mstar_pl.models import LMM, adapter_for
from mstar_pl.types import InputError, Prompt
from tests.tiny import BUILDERS

PROMPT = Prompt(id="1", question="How many?")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Give the folder of a tiny model, which is built once."""
    folders = {}

    def folder(name):
        if name not in folders:
            torch.manual_seed(0)
            folders[name] = BUILDERS[name](tmp_path_factory.mktemp(name))
        return folders[name]

    return folder


@pytest.fixture
def copied(tiny, tmp_path):
    """Give a copy of a folder with other files: their content, or None for none."""

    def copy(name, **files):
        folder = tmp_path / name
        shutil.copytree(tiny(name), folder)
        for file, content in files.items():
            if content is None:
                (folder / file).unlink()
            else:
                (folder / file).write_text(content)
        return folder

    return copy


def without_weights(folder: Path, *names: str) -> Path:
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in names:
        del weights[name]
    save_file(weights, file, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"tokenizer.json": None}, "no tokenizer.json or tokenizer.model; download all files"),
        ({"tokenizer_config.json": None}, "no tokenizer_config.json; download all files"),
        (
            {"processor_config.json": None},
            "no processor_config.json or preprocessor_config.json; download all",
        ),
        ({"processor_config.json": "{"}, r"processor_config\.json: cannot be read"),
        ({"tokenizer.json": "version https://git-lfs.github.com"}, r"tokenizer\.json: cannot be read"),
        ({"chat_template.jinja": None}, r"no chat template .* or override LMM\.chat"),
    ],
)
def test_a_folder_without_a_whole_processor_is_refused(copied, files, reason):
    lmm = adapter_for(str(copied("qwen2_5_vl", **files)))
    with pytest.raises(InputError, match=reason):
        lmm.render(PROMPT)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": "[]"}, r"config\.json: holds no JSON object"),
        ({"mstar_pl.json": '{"class'}, r"mstar_pl\.json: cannot be read"),
        ({"mstar_pl.json": "{}"}, r"mstar_pl\.json: no class_path with init_args"),
        (
            {"mstar_pl.json": '{"class_path": "mstar_pl.models.Qwen2_5_VL", "init_args": {"foo": 1}}'},
            r"Qwen2_5_VL does not take these options \(.*'foo'\)",
        ),
    ],
)
def test_a_folder_whose_settings_are_broken_is_refused(copied, files, reason):
    with pytest.raises(InputError, match=reason):
        adapter_for(str(copied("qwen2_5_vl", **files)))


def test_options_that_an_adapter_does_not_take_are_refused(tiny):
    with pytest.raises(InputError, match=r"Qwen2_5_VL does not take these options \(.*'foo'\)"):
        adapter_for(str(tiny("qwen2_5_vl")), foo=1)


def test_a_folder_without_weights_is_refused(copied):
    lmm = adapter_for(str(copied("qwen2_5_vl", **{"model.safetensors": None})))
    with pytest.raises(InputError, match=r"has neither model\.safetensors nor"):
        lmm.load_model()
    lmm.weightless = True
    assert lmm.load_model().num_parameters() > 0, "a plan needs none"


def test_weights_that_are_cut_off_are_refused(copied):
    folder = copied("qwen2_5_vl")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read .*; download it again"):
        adapter_for(str(folder)).load_model()


def test_a_missing_shard_is_named(copied):
    folder = copied("qwen2_5_vl")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors: does not exist"):
        adapter_for(str(folder)).load_model()


def test_weights_that_would_be_made_up_are_refused(copied):
    lost = [f"model.layers.1.mlp.{one}_proj.weight" for one in ("down", "gate", "up")]
    lost.append("model.norm.weight")
    folder = without_weights(copied("qwen2_5_vl"), *lost)
    with pytest.raises(
        InputError, match=r"4 weights are missing.*\(model\.language_model\.layers\.1\.mlp\.down_proj"
    ):
        adapter_for(str(folder)).load_model()


def test_weights_of_another_shape_are_refused_by_name(copied):
    folder = copied("qwen2_5_vl")
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"model.norm.weight": torch.ones(7)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"1 weights .* \(model\.language_model\.norm\.weight\)"):
        adapter_for(str(folder)).load_model()


def test_weights_that_no_loss_reaches_may_be_missing(copied):
    folder = copied("llava")
    names = [name for name in load_file(folder / "model.safetensors") if "post_layernorm" in name]
    assert names
    assert adapter_for(str(without_weights(folder, *names))).load_model()


@pytest.mark.parametrize("name", BUILDERS)
def test_whole_folders_load_and_unknown_options_are_refused(tiny, name):
    folder = str(tiny(name))
    assert adapter_for(folder).load_model()
    with pytest.raises(InputError, match=r"unknown processor option 'max_patch'; .* has .*"):
        adapter_for(folder, processor_options={"max_patch": 2}).render(PROMPT)
    with pytest.raises(InputError, match=r"unknown processor option 'return_tensors'"):
        adapter_for(folder, processor_options={"return_tensors": "np"}).render(PROMPT)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        (
            "minicpmv4_6",
            {"slice_mode": False},
            "option 'slice_mode'; MiniCPMV4_6 has max_slice_nums",
        ),
        ("minicpmv4_6", {"use_image_id": False}, "unknown processor option 'use_image_id'"),
        ("minicpmv4_6", {"downsample_mode": "4x"}, "unknown processor option 'downsample_mode'"),
        ("minicpmv", {"max_slice_nums": 0}, "max_slice_nums is 0; give a whole number from 1 on"),
        ("minicpmv", {"max_slice_nums": -3}, "max_slice_nums is -3"),
        ("phi3_v", {"num_crops": "4"}, "num_crops is '4'"),
    ],
)
def test_options_that_vllm_ignores_and_numbers_of_nothing_are_refused(tiny, name, options, reason):
    with pytest.raises(InputError, match=reason):
        adapter_for(str(tiny(name)), processor_options=options)


def test_an_adapter_says_which_options_it_takes(tiny):
    class Mine(LMM):
        model_types = ("qwen2_5_vl",)
        known_options = ("max_pixels",)

    with pytest.raises(InputError, match="unknown processor option 'size'; Mine has max_pixels"):
        Mine(str(tiny("qwen2_5_vl")), processor_options={"size": {}})
    with pytest.raises(InputError, match="max_pixels is 0"):
        Mine(str(tiny("qwen2_5_vl")), processor_options={"max_pixels": 0})


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("internvl_chat", "does not work: its published code .* `mstar-pl convert internvl2 SRC OUT`"),
        ("phi4_multimodal", "does not work: an image's features change with the images"),
        ("mllama", "does not work: vLLM has dropped it"),
        ("molmo", "Transformers has no image-text-to-text model of model_type 'molmo', and published code"),
        ("qwen2", "Transformers has no image-text-to-text model of model_type 'qwen2'"),
        (None, "Transformers has no image-text-to-text model of model_type None"),
    ],
)
def test_what_does_not_work_says_why_when_it_is_chosen(tmp_path, model_type, reason):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(InputError, match=reason):
        adapter_for(str(tmp_path))
