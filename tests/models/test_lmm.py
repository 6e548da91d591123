"""The adapter: groups, freezing, low-rank updates, tokens, export."""

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from mstar_pl.data.collate import collate_examples, collate_prompts
from mstar_pl.models import GROUPS, LMM, InternVL, LoRA, Qwen2_5_VL, adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.lora import merged_weights
from mstar_pl.types import InputError, Prompt


class CustomLMM(InternVL):
    """An adapter of somebody else."""


def test_family_is_chosen_by_model_type(internvl_folder, qwen_folder):
    assert type(adapter_for(internvl_folder)) is InternVL
    assert type(adapter_for(qwen_folder)) is Qwen2_5_VL


def test_every_parameter_has_one_group(family_folder):
    lmm = adapter_for(family_folder)
    model = lmm.load_model()
    groups = {name: lmm.group(model, name) for name, _ in model.named_parameters()}
    assert set(groups.values()) == set(GROUPS)
    markers = {"vision": ("vision_tower", "visual"), "projector": ("multi_modal_projector", "merger")}
    for name, group in groups.items():
        if any(marker in name for marker in markers["projector"]):
            assert group == "projector"
        elif any(marker in name for marker in markers["vision"]):
            assert group == "vision"
        else:
            assert group == "language"


@pytest.mark.parametrize("frozen", [["vision"], ["vision", "projector"], ["language"], []])
def test_gradients_reach_what_is_not_frozen_and_nothing_else(family_folder, examples, frozen):
    lmm = adapter_for(family_folder)
    model = lmm.load_model()
    lmm.freeze(model, frozen)
    model(**collate_examples(lmm, examples[:2])).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (lmm.group(model, name) in frozen), name


def test_freezing_everything_or_the_unknown_is_refused(internvl_folder):
    lmm = adapter_for(internvl_folder)
    model = lmm.load_model()
    with pytest.raises(InputError, match="leave one out"):
        lmm.freeze(model, GROUPS)
    with pytest.raises(InputError, match="unknown parameter group 'audio'"):
        lmm.freeze(model, ["audio"])


def test_shard_blocks_are_the_layers_of_both_towers(family_folder):
    lmm = adapter_for(family_folder)
    groups = [group for group, _ in lmm.shard_blocks(lmm.load_model())]
    assert groups == ["vision"] * 2 + ["language"] * 2


def test_end_of_turn_stops_and_placeholders_are_banned(family_folder):
    lmm = adapter_for(family_folder)
    assert lmm.tokenizer.decode([lmm.end_token_id]) == "<|im_end|>"
    assert lmm.end_token_id in lmm.stop_token_ids
    image = lmm.tokenizer.convert_tokens_to_ids(
        "<|image_pad|>" if isinstance(lmm, Qwen2_5_VL) else "<IMG_CONTEXT>"
    )
    assert image in lmm.banned_token_ids
    assert not set(lmm.stop_token_ids) & set(lmm.banned_token_ids)


def test_a_turn_that_ends_with_text_is_refused(internvl_folder):
    """Some templates write an assistant's content as it stands, list and all."""
    lmm = LMM(internvl_folder)
    lmm.processor.chat_template = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    with pytest.raises(InputError, match=r"ends a turn with the text \"'}\]\"; give the token"):
        _ = lmm.end_token_id


def test_the_instruction_follows_the_question(internvl_folder):
    prompt = Prompt(id="1", question="How many bars", images=("a.png",))
    plain, asked = (
        adapter_for(internvl_folder, question_style="plain", instruction=text) for text in (None, "+ or -?")
    )
    assert asked.render(prompt) == plain.chat("How many bars\n+ or -?", 1)
    assert asked.options["instruction"] == "+ or -?"


def test_system_prompt_and_question_style_are_in_the_text(internvl_folder):
    prompt = Prompt(
        id="1", question="How many?", images=("x.png", "y.png"), answer_type="integer", answer="3"
    )
    text = adapter_for(internvl_folder, system_prompt="Be exact.").render(prompt)
    assert text.startswith(
        "<|im_start|>system\nBe exact.<|im_end|>\n<|im_start|>user\n<IMG_CONTEXT>\n<IMG_CONTEXT>\nHint: "
    )
    assert text.endswith("Question: How many?<|im_end|>\n<|im_start|>assistant\n")


def test_lora_trains_updates_only_and_merges_without_trace(family_folder, examples):
    lmm = adapter_for(family_folder)
    model = lmm.load_model()
    plain_names = set(model.state_dict())
    tuned = LoRA(rank=2).apply(lmm, model)
    assert {name for name, parameter in tuned.named_parameters() if parameter.requires_grad} == {
        name for name, _ in tuned.named_parameters() if "lora_" in name
    }
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    batch = collate_examples(lmm, examples[:2])
    with torch.no_grad():
        expected = tuned(**batch).logits
        with merged_weights(tuned) as state:
            assert set(state) == plain_names
            merged = lmm.load_model()
            merged.load_state_dict(state)
        torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tuned.state_dict().items())


@pytest.mark.parametrize("lora", [None, LoRA(rank=2)])
def test_export_loads_in_plain_transformers(family_folder, examples, tmp_path, lora):
    lmm = adapter_for(family_folder, question_style="plain")
    model = lmm.load_model()
    tuned = lora.apply(lmm, model) if lora else model
    folder = export_policy(lmm, tuned, tmp_path / "policy", "Trained in a test.")
    export_policy(lmm, tuned, folder)  # replaces
    assert [path.name for path in tmp_path.iterdir()] == ["policy"], "temporary folders are gone"
    again = AutoModelForImageTextToText.from_pretrained(folder)
    batch = collate_examples(lmm, examples[:2])
    with torch.no_grad():
        torch.testing.assert_close(again(**batch).logits, tuned(**batch).logits, rtol=1e-5, atol=1e-5)
    assert AutoProcessor.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}], tokenize=False
    )


def test_export_remembers_adapter_and_prompt_format(internvl_folder, tmp_path):
    lmm = CustomLMM(internvl_folder, question_style="plain", processor_options={"max_patches": 2})
    folder = str(export_policy(lmm, lmm.load_model(), tmp_path / "policy"))
    again = adapter_for(folder)
    assert type(again) is CustomLMM
    assert again.options == lmm.options
    assert adapter_for(folder, question_style="mathvista").question_style == "mathvista"
    saved = json.loads((tmp_path / "policy/mstar_pl.json").read_text())
    saved["class_path"] = "nowhere.Adapter"
    (tmp_path / "policy/mstar_pl.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match=r"cannot import nowhere\.Adapter"):
        adapter_for(folder)


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a model folder"):
        LMM(str(tmp_path))


def test_rotary_frequencies_stay_in_float32_when_loaded_in_bfloat16(family_folder):
    model = adapter_for(family_folder, dtype="bfloat16").load_model()
    frequencies = {name: buffer.dtype for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    assert frequencies
    assert set(frequencies.values()) == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("folder", ["internvl_folder", "qwen_folder"])
def test_no_question_becomes_an_image_or_ends_the_turn(folder, request):
    adapter = adapter_for(request.getfixturevalue(folder), question_style="plain")
    tokens = {*adapter.banned_token_ids, *adapter.stop_token_ids}
    spelt = [adapter.tokenizer.decode([token]) for token in sorted(tokens)]
    assert len(spelt) > 3
    for text in spelt:
        for prompt in (
            Prompt(id="7", question=f"Read{text}this."),
            Prompt(id="7", question="?", choices=("a", text), question_type="multi_choice"),
        ):
            with pytest.raises(
                InputError, match=f"prompt '7' spells the special token {text!r}".replace("|", r"\|")
            ):
                adapter.render(prompt)


def test_options_of_one_adapter_are_not_those_of_another(internvl_folder, picture_folder):
    prompt = Prompt(id="1", question="?", images=(str(picture_folder / "4.png"),))
    whole, small = InternVL(internvl_folder), InternVL(internvl_folder, processor_options={"max_patches": 1})
    length = whole.num_prompt_tokens(prompt)
    assert small.num_prompt_tokens(prompt) < length
    assert whole.num_prompt_tokens(prompt) == length
    assert collate_prompts(whole, [prompt])["input_ids"].shape[1] == length


def test_an_export_does_not_depend_on_what_the_tokenizer_did_last(internvl_folder, tmp_path):
    adapter = adapter_for(internvl_folder, question_style="plain")
    model = adapter.load_model()
    texts = [adapter.render(Prompt(id="1", question=text)) for text in ("How many?", "How many are there?")]
    exports = []
    for name in ("before", "after"):
        exports.append(export_policy(adapter, model, tmp_path / name))
        adapter.encode(texts, [[], []])
    files = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in exports]
    assert files[0] == files[1]
