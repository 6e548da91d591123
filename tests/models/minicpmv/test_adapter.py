"""The adapter of MiniCPM-Llama3-V-2.5: conversion, refusals, prompts, batches, exports."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoProcessor, dynamic_module_utils

from mstar_pl.cli import main
from mstar_pl.data.collate import collate_examples, collate_prompts, with_blank_image
from mstar_pl.models import adapter_for, register
from mstar_pl.models.export import export_policy
from mstar_pl.models.minicpmv import MiniCPMVProcessor
from mstar_pl.models.minicpmv.adapter import MiniCPMV
from mstar_pl.models.minicpmv.conversion import convert_minicpmv
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import Example, InputError, Prompt, SamplingConfig
from tests.test_recipes import PAPER, ROWS, settings_of
from tests.tiny.minicpmv import build_published


@pytest.fixture
def published(tmp_path):
    (tmp_path / "published").mkdir()
    return build_published(tmp_path / "published")


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(
        json.dumps({key: one for key, one in config.items() if one is not None})
    )


def test_conversion_keeps_weights_and_needs_no_published_code(published, tmp_path, capsys):
    out = tmp_path / "converted"
    assert main(["convert", "minicpmv", str(published), str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert type(adapter_for(str(out))) is MiniCPMV
    expected, found = (
        load_file(published / "model.safetensors"),
        adapter_for(str(out)).load_model().state_dict(),
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    config = json.loads((out / "config.json").read_text())
    assert set(config["auto_map"].values()) == {"configuration.MiniCPMVConfig", "modeling.MiniCPMV"}
    assert main(["convert", "minicpmv", str(published), str(out)]) == 2


def test_the_first_token_is_there_once(published, minicpmv):
    """An engine tokenises prompts itself, and with the published file it would add a second one."""
    text = minicpmv.chat("How many?", 0)
    raw = Tokenizer.from_file(str(published / "tokenizer.json"))
    assert raw.encode(text).tokens[:2] == ["<|begin_of_text|>"] * 2
    found = minicpmv.tokenizer(text)["input_ids"]
    assert found == minicpmv.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert minicpmv.tokenizer.convert_ids_to_tokens(found).count("<|begin_of_text|>") == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 2.6}, r"MiniCPM-V 2\.6 is not ported \(its language model is Qwen2"),
        ({"version": "4.0"}, r"MiniCPM-V 4\.0 is not ported \(it has 64 queries"),
        ({"version": 4.5}, r"MiniCPM-V 4\.5 is not ported \(its language model is Qwen3"),
        ({"version": None, "hidden_size": 2304}, r"MiniCPM-V 2\.0 is not ported"),
        ({"version": "3.0"}, r"MiniCPM-V 3\.0 is not ported \(an unknown version\)"),
        ({"drop_vision_last_layer": True}, "drop_vision_last_layer is set"),
    ],
)
def test_other_versions_are_refused_with_the_reason(published, tmp_path, values, message):
    change(published, **values)
    with pytest.raises(InputError, match=message):
        convert_minicpmv(published, tmp_path / "out")
    with pytest.raises(InputError, match=message):
        MiniCPMV(str(published))


def test_published_files_are_to_be_converted(published):
    change(published, version=None)  # the first revisions state none
    with pytest.raises(InputError, match=f"mstar-pl convert minicpmv {published} OUT"):
        adapter_for(str(published))


def test_unknown_processor_options_are_refused(minicpmv_folder):
    with pytest.raises(
        InputError, match="unknown processor option 'max_patches'; MiniCPMV has max_slice_nums"
    ):
        adapter_for(minicpmv_folder, processor_options={"max_patches": 2})


def test_registering_again_changes_nothing(minicpmv_folder):
    register()
    assert type(AutoProcessor.from_pretrained(minicpmv_folder)) is MiniCPMVProcessor
    if not torch.backends.cuda.is_built():
        assert torch.cuda.is_current_stream_capturing() is False, "vLLM's resampler asks"


def test_prompts_have_llama_3s_format(minicpmv):
    assert minicpmv.chat("How many?", 2) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        "(<image>./</image>)\n(<image>./</image>)\nHow many?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    minicpmv.system_prompt = "Be exact."
    assert minicpmv.chat("Hi", 0).startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe exact.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    )
    names = minicpmv.tokenizer.convert_ids_to_tokens
    assert names(minicpmv.stop_token_ids) == ["<|eot_id|>", "<|end_of_text|>"]
    assert names(minicpmv.end_token_id) == "<|eot_id|>"
    assert {"<unk>", "<image>", "</image>", "<slice>", "</slice>"} <= set(names(minicpmv.banned_token_ids))
    with pytest.raises(InputError, match="spells the special token '<slice>'"):
        minicpmv.render(Prompt(id="1", question="<slice>"))


def mixed(prompts):
    several = Prompt(id="several", question="Compare", images=prompts[1].images + prompts[5].images)
    return [several, Prompt(id="none", question="What is the sum?"), *prompts[:4]]


@pytest.mark.parametrize("options", [{}, {"max_slice_nums": 2}])
def test_prompts_are_counted_from_headers(minicpmv_folder, prompts, options):
    lmm = adapter_for(minicpmv_folder, processor_options=options)
    batch = collate_prompts(lmm, mixed(prompts))
    assert batch["attention_mask"].sum(1).tolist() == [lmm.num_prompt_tokens(one) for one in mixed(prompts)]
    num_slices = (batch["input_ids"] == lmm.load_model().config.image_token_id).sum() // 8
    assert len(batch["pixel_values"]) == len(batch["tgt_sizes"]) == num_slices


def test_mixed_batches_answer_as_single_prompts(minicpmv, prompts):
    model = minicpmv.load_model()
    sampling = SamplingConfig(num_samples=2, temperature=1.0, max_tokens=6, seed=1)
    together, alone = (
        TransformersEngine(minicpmv, model, batch_size=size).generate(mixed(prompts), sampling)
        for size in (12, 1)
    )
    assert [group.rollouts for group in together] == [group.rollouts for group in alone]
    assert len({rollout.token_ids for group in together for rollout in group.rollouts}) > 8


def test_a_blank_image_beside_text_changes_no_loss(minicpmv):
    model = minicpmv.load_model()
    batch = collate_examples(minicpmv, [Example(prompt=Prompt(id="1", question="2 + 2"), response="4")])
    with torch.no_grad():
        losses = [model(**one).loss for one in (batch, with_blank_image(minicpmv, batch))]
    torch.testing.assert_close(*losses)


def test_attention_implementations_agree(minicpmv_folder, prompts):
    logits = []
    for attention in ("eager", "sdpa"):
        lmm = adapter_for(minicpmv_folder, attention=attention, question_style="plain")
        model = lmm.load_model()
        assert {part.config._attn_implementation for part in (model.vpm, model.llm)} == {attention}
        with torch.no_grad():
            logits.append(model(**collate_prompts(lmm, prompts[:3]), logits_to_keep=1).logits)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_an_export_is_whole_without_this_package(minicpmv, prompts, tmp_path, monkeypatch):
    model = minicpmv.load_model()
    folder = export_policy(minicpmv, model, tmp_path / "policy")
    assert not [file for file in folder.glob("*.py") if "mstar_pl" in file.read_text()]
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    names = ("config", "processor_config")
    config, processing = (json.loads((folder / f"{one}.json").read_text()) for one in names)
    places = config["auto_map"] | processing["image_processor"]["auto_map"]
    classes = {
        name: dynamic_module_utils.get_class_from_dynamic_module(place, folder)
        for name, place in places.items()
    }
    assert {one.__module__.split(".")[0] for one in classes.values()} == {"transformers_modules"}
    theirs = classes["AutoModelForImageTextToText"].from_pretrained(folder)
    assert type(theirs.config).__module__.startswith("transformers_modules.")
    images = classes["AutoImageProcessor"].from_pretrained(folder)
    lmm = adapter_for(str(folder))
    assert type(lmm) is MiniCPMV
    again = lmm.load_model().state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in model.state_dict().items())
    lmm.processor = classes["AutoProcessor"](images, lmm.tokenizer)
    found, expected = (collate_prompts(one, mixed(prompts)) for one in (lmm, minicpmv))
    assert all(torch.equal(found[key], one) for key, one in expected.items())
    with torch.no_grad():
        assert torch.equal(theirs(**found).logits, model(**expected).logits)


def test_the_paper_s_row_with_this_model():
    found = settings_of("mstar", "minicpm_llama3_v_2_5")
    home = "runs/minicpm_llama3_v_2_5"
    paths = {
        "lmm.path": f"{home}/sft/policy",
        "reward.path": f"{home}/mprm/mprm",
        "default_root_dir": f"{home}/mstar",
    }
    assert found.items() >= (PAPER | ROWS["mstar"] | paths | {"lmm": "MiniCPMV", "max_length": 4096}).items()
