"""What is particular to a family: its choice, names, parts, lengths of prompts, and what it refuses."""

import json
import logging
import random
import re
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from tokenizers.decoders import DecodeStream
from torch.nn.functional import cross_entropy
from transformers import LlavaConfig

from mstar_pl import models
from mstar_pl.data.collate import collate_examples, collate_prompts, join_responses, with_blank_image
from mstar_pl.data.collate_steps import encode_steps
from mstar_pl.models import GROUPS, LMM, InternVL, Llava, Qwen3_VL, adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.families import FAMILIES
from mstar_pl.models.process_reward import ProcessRewardModel, StepReadOut, step_logits
from mstar_pl.types import Example, InputError, Prompt
from tests.tiny import BUILDERS

CONFIGS = Path(__file__).parent.parent.parent / "configs/model"

ADAPTERS = {
    "internvl": "InternVL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen2_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3_VL",
    "idefics3": "Idefics3",
    "smolvlm": "SmolVLM",
    "llava": "Llava",
    "llava_siglip": "Llava",
    "llava_onevision": "LlavaOnevision",
    "gemma3": "Gemma3",
    "minicpmv4_6": "MiniCPMV4_6",
}
OPTIONS = {
    "internvl": {"max_patches": 2},
    "qwen2_5_vl": {"max_pixels": 28 * 28 * 6},
    "qwen2_vl": {"max_pixels": 28 * 28 * 6},
    "qwen3_vl": {"max_pixels": 32 * 32 * 6},
    "idefics3": {"do_image_splitting": False},
    "smolvlm": {"size": {"longest_edge": 84}},
    "minicpmv4_6": {"max_slice_nums": 2},
}
"""Options of processors that change the number of an image's tokens."""

PROJECTORS = {
    "qwen2_5_vl": {"model.visual.merger"},
    "qwen2_vl": {"model.visual.merger"},
    "qwen3_vl": {"model.visual.merger", "model.visual.deepstack_merger_list"},
    "idefics3": {"model.connector"},
    "smolvlm": {"model.connector"},
    "llava_onevision": {"model.multi_modal_projector", "model.image_newline"},
    "minicpmv4_6": {"model.merger"},
}
TOWERS = {
    "qwen2_5_vl": "model.visual.",
    "qwen2_vl": "model.visual.",
    "qwen3_vl": "model.visual.",
    "idefics3": "model.vision_model.",
    "smolvlm": "model.vision_model.",
}

families = pytest.mark.parametrize("name", ADAPTERS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Give the adapter of a tiny model, which is built once."""
    folders = {}

    def adapter(name, **options):
        if name not in folders:
            torch.manual_seed(0)
            folders[name] = str(BUILDERS[name](tmp_path_factory.mktemp(name)))
        return adapter_for(folders[name], question_style="plain", **options)

    return adapter


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Give a picture of a size."""
    folder = tmp_path_factory.mktemp("sizes")

    def path(size):
        file = folder / f"{size[0]}x{size[1]}.png"
        if not file.exists():
            Image.effect_noise(size, 60).convert("RGB").save(file)
        return str(file)

    return path


@families
def test_the_adapter_is_chosen_by_model_type(tiny, name):
    assert type(tiny(name)).__name__ == ADAPTERS[name]


@families
def test_every_parameter_has_one_group(tiny, name):
    lmm = tiny(name)
    model = lmm.load_model()
    groups = {parameter: lmm.group(model, parameter) for parameter, _ in model.named_parameters()}
    assert set(groups.values()) == set(GROUPS)
    projector = PROJECTORS.get(name, {"model.multi_modal_projector"})
    assert {".".join(one.split(".")[:3]) for one in groups if groups[one] == "projector"} >= {
        one for one in projector if one.count(".") == 2
    }
    for parameter, group in groups.items():
        if parameter.startswith(tuple(projector)):
            assert group == "projector", parameter
        elif parameter.startswith(TOWERS.get(name, "model.vision_tower.")):
            assert group == "vision", parameter
        else:
            assert group == "language", parameter


@pytest.mark.parametrize(("name", "options"), [*((name, None) for name in ADAPTERS), *OPTIONS.items()])
def test_the_length_of_a_prompt_is_read_off_headers(tiny, picture, name, options):
    lmm = tiny(name, processor_options=options)
    drawn = random.Random(name)
    sizes = [(84, 84), (168, 168), (96, 97), (300, 40), (40, 300)]
    sizes += [(drawn.randrange(20, 400), drawn.randrange(20, 400)) for _ in range(12)]
    shown = [(), *[(size,) for size in sizes]]
    if lmm.max_images != 1:
        shown += [tuple(sizes[:2]), tuple(sizes[4:7])]
    for images in shown:
        prompt = Prompt(id="1", question="How many?", images=tuple(map(picture, images)))
        length = collate_prompts(lmm, [prompt])["input_ids"].shape[1]
        assert lmm.num_prompt_tokens(prompt) == length, images


@torch.no_grad()
def losses(model, batch):
    """The losses of each row's response tokens."""
    labels = batch["labels"][:, 1:]
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    found = cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    return [row[mask] for row, mask in zip(found, labels != -100, strict=True)]


@families
def test_batches_of_one_several_and_no_images_have_the_losses_of_their_examples(tiny, picture, name):
    lmm = tiny(name)
    model = lmm.load_model()
    shown = [[(96, 96)], [], [(131, 77), (60, 200)], [(250, 90)]]
    if lmm.max_images == 1:
        shown[2] = shown[2][:1]
    examples = [
        Example(
            prompt=Prompt(id=str(k), question="What is it?"[: 6 + k], images=tuple(map(picture, images))),
            response="The answer is 4.\n\n# Answer\n\n4"[6 * k :],
        )
        for k, images in enumerate(shown)
    ]
    single = [losses(model, collate_examples(lmm, [example]))[0] for example in examples]
    torch.testing.assert_close(losses(model, collate_examples(lmm, examples)), single, atol=1e-5, rtol=0)
    text = losses(model, with_blank_image(lmm, collate_examples(lmm, [examples[1]] * 2)))
    torch.testing.assert_close(text[:2], [single[1]] * 2, atol=1e-5, rtol=0)
    assert len(text[2]) == 0, "the blank image carries no loss"


@pytest.mark.parametrize("name", ["gemma3", "qwen2_5_vl", "qwen3_vl"])
def test_types_of_tokens_mark_the_images_alone(tiny, picture, name):
    """Without these inputs Gemma3 reads images causally, and Qwen-VL gives them positions of text."""
    lmm = tiny(name)
    prompt = Prompt(id="1", question="How many?", images=(picture((96, 96)),))
    batch = collate_examples(lmm, [Example(prompt=prompt, response="4")])
    types = batch["token_type_ids" if name == "gemma3" else "mm_token_type_ids"]
    image = lmm.processor.image_token_ids[0]
    assert torch.equal(types == 1, batch["input_ids"] == image)
    assert int(types.sum()) > 3


@pytest.mark.parametrize(
    ("name", "first"), [("llava", "<s>"), ("idefics3", "<|begin_of_text|>"), ("gemma3", "<bos>")]
)
def test_a_prompt_has_one_first_token(tiny, name, first):
    """Of the template or, where that has none, of the tokenizer."""
    lmm = tiny(name)
    prompt = Prompt(id="1", question="How many?")
    ids = collate_prompts(lmm, [prompt])["input_ids"][0].tolist()
    assert ids == lmm.prompt_tokens(lmm.render(prompt))
    assert ids[0] == lmm.tokenizer.convert_tokens_to_ids(first)
    assert ids.count(ids[0]) == 1


@families
def test_placeholders_are_banned_and_turns_end_as_in_the_template(tiny, name):
    lmm = tiny(name)
    assert lmm.load_model().config.image_token_id in lmm.banned_token_ids
    ends = {"gemma3": "<end_of_turn>", "idefics3": "<end_of_utterance>", "smolvlm": "<end_of_utterance>"}
    ends |= {"llava": "</s>", "llava_siglip": "</s>"}
    assert lmm.tokenizer.decode([lmm.end_token_id]) == ends.get(name, "<|im_end|>")


@pytest.mark.parametrize(
    ("chosen", "unused"), [(-2, [23]), (-1, []), ([-2, -5], [23]), ([3, 7], list(range(7, 24)))]
)
def test_layers_behind_the_features_of_llava_are_never_used(tmp_path, chosen, unused):
    """As many as the published 24 layers of CLIP: layer 2 is not taken for layer 23."""
    LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "num_hidden_layers": 24},
        vision_feature_layer=chosen,
    ).save_pretrained(tmp_path)
    lmm = Llava(str(tmp_path))
    names = [f"model.vision_tower.encoder.layers.{layer}.mlp.fc1.weight" for layer in range(24)]
    assert [layer for layer in range(24) if re.search(lmm.never_used, names[layer])] == unused
    assert re.search(lmm.never_used, "model.vision_tower.post_layernorm.bias")
    assert not re.search(lmm.never_used, "lm_head.weight")


@pytest.mark.parametrize("name", ["llava", "llava_siglip", "llava_onevision", "gemma3"])
def test_engine_and_exports_know_the_tower_by_its_published_names(tiny, tmp_path, name):
    lmm = tiny(name)
    model = lmm.load_model()
    names = [given for given, _ in lmm.engine_weights(model.state_dict().items())]
    assert [one.replace("vision_tower.vision_model.", "vision_tower.") for one in names] == [
        *model.state_dict()
    ]
    tower = {one.removeprefix("model.") for one in names if ".vision_tower." in one}
    for folder in (lmm.path, export_policy(lmm, model, tmp_path / "policy")):
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            assert tower == {one for one in file.keys() if "vision_tower." in one}  # noqa: SIM118


@pytest.mark.parametrize("name", ["gemma3", "qwen3_vl", "minicpmv4_6"])
def test_steps_are_scored_behind_a_shared_prompt_as_in_whole_forwards(tiny, picture, name):
    """Sliding windows, positions of three axes and the states of linear attention go on where it ended."""
    lmm = tiny(name)
    model = lmm.load_model()
    scorer = ProcessRewardModel(lmm, model, StepReadOut(lmm, model))
    responses = [["red 2.", "blue 2.", "Add: 4."], ["4"], ["I count 7 red bars.", "# Answer\n\n4"]]
    for images in ([], [(131, 77)], [(96, 96), (60, 200)]):
        prompt = Prompt(id="1", question="How many bars?", images=tuple(map(picture, images)))
        inputs = collate_prompts(lmm, [prompt])
        found = scorer.score(prompt, responses)
        for scores, steps in zip(found, responses, strict=True):
            ids, ends = encode_steps(lmm, steps)
            whole, (start,) = join_responses(lmm, inputs, [ids])
            places = torch.tensor(ends) + start
            with torch.no_grad():
                logits = step_logits(model, scorer.read_out, whole, torch.zeros_like(places), places)
            assert scores == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)


def a_folder(tmp_path, **config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_an_adapter_refuses_the_folder_of_another_family(tiny):
    with pytest.raises(
        InputError, match=r"Qwen3_VL is for model_type qwen3_vl, not 'qwen2_5_vl'; docs/models"
    ):
        Qwen3_VL(tiny("qwen2_5_vl").path)


def test_what_nobody_has_tried_warns(tmp_path, tiny, caplog):
    adapter_for(a_folder(tmp_path, model_type="llava_next"))
    assert "LMM has not been tried with model_type 'llava_next'" in caplog.text
    caplog.clear()

    class Mine(LMM):
        model_types = ("llava_next",)

    Mine(str(tmp_path))
    InternVL()
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("gemma3", "bfloat16", "tokens of an image see only those before them"),
        ("minicpmv4_6", "float32", "in bfloat16 only; give the engine dtype: bfloat16"),
        ("minicpmv4_6", "bfloat16", None),
    ],
)
def test_what_the_engine_cannot_do_without_a_gpu_is_said(tiny, caplog, monkeypatch, name, dtype, reason):
    for there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        with caplog.at_level(logging.WARNING):
            tiny(name, dtype=dtype)
        if there or reason is None:
            assert not caplog.records
        else:
            assert reason in caplog.text


@families
def test_a_sampled_response_is_trained_on_under_its_own_tokens(tiny, name):
    lmm = tiny(name)
    prompt, sampled = lmm.prompt_tokens(lmm.chat("the sum", 0)), lmm.encode_response("the answer is 4")[:-1]
    stream = DecodeStream(ids=prompt, skip_special_tokens=True)  # as vLLM makes texts
    text = "".join(filter(None, (stream.step(lmm.tokenizer.backend_tokenizer, one) for one in sampled)))
    assert text.strip() == "the answer is 4"
    assert lmm.encode_response(text)[:-1] == sampled


@families
def test_a_response_goes_on_behind_the_tokens_that_training_gives_its_beginning(tiny, name):
    lmm, prompt = tiny(name), Prompt(id="1", question="the sum")
    for beginning in ("", "the answer is 4.\n\n"):
        expected = lmm.prompt_tokens(lmm.render(prompt)) + lmm.encode_response(beginning)[:-1]
        assert lmm.prompt_tokens(lmm.begun(prompt, beginning)) == expected


def test_several_images_are_refused_where_the_engine_sees_others(tiny, picture):
    prompt = Prompt(id="1", question="Which?", images=(picture((96, 96)), picture((84, 84))))
    with pytest.raises(InputError, match="takes one image a prompt here, not 2: vLLM tiles each of them"):
        tiny("llava_onevision").render(prompt)


def test_crops_of_gemma3_are_refused(tiny, picture):
    prompt = Prompt(id="1", question="Which?", images=(picture((300, 40)),))
    with pytest.raises(InputError, match="do_pan_and_scan of Gemma3 is not supported"):
        tiny("gemma3", processor_options={"do_pan_and_scan": True}).num_prompt_tokens(prompt)


def test_each_family_has_a_config_that_names_its_folder_on_the_hub(tiny):
    found = set()
    for file in CONFIGS.glob("*.yaml"):
        text = file.read_text()
        chosen = yaml.safe_load(text)["init_args"]["lmm"]
        family = getattr(models, chosen["class_path"].rpartition(".")[2])
        folder = tiny(family.model_types[0]).path
        assert family(**chosen["init_args"] | {"path": folder}).path == folder
        if f"/{Path(chosen['init_args']['path']).name}" in text.partition("class_path")[0]:
            found.add(family)
    assert found == set(FAMILIES)
