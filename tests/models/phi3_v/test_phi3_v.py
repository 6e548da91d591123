"""The adapter of Phi-3.5-vision: prompts, limits, groups, and a model that answers for rows of any kind."""

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from mstar_pl.data.collate import collate_examples, collate_prompts
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.models import LoRA, Phi3V, adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.lora import plain_model
from mstar_pl.modules import PolicyModule
from mstar_pl.rollouts.engine import context_of
from mstar_pl.rollouts.transformers_engine import TransformersEngine, pad_left
from mstar_pl.types import Example, InputError, Prompt, SamplingConfig
from tests.tiny.phi3_v import CHAT_TEMPLATE

TOKENS_A_SQUARE = 313  # two squares of 144 tokens, 24 ends of rows, a separator


@pytest.fixture(scope="module")
def mixed(picture_folder):
    """One image, two images, none."""
    first, second = (str(picture_folder / f"{number}.png") for number in (1, 2))
    return [
        Prompt(id="one", question="What is the area", images=(first,)),
        Prompt(id="two", question="Add the sum of both", images=(second, first)),
        Prompt(id="none", question="How many"),
    ]


def ids(lmm, text):
    return lmm.tokenizer(text, add_special_tokens=False).input_ids


def test_prompts_have_the_published_format(lmm, phi_folder, mixed):
    assert type(lmm) is Phi3V
    assert [lmm.render(prompt) for prompt in mixed] == [
        "<|user|>\n<|image_1|>\nWhat is the area<|end|>\n<|assistant|>\n",
        "<|user|>\n<|image_1|>\n<|image_2|>\nAdd the sum of both<|end|>\n<|assistant|>\n",
        "<|user|>\nHow many<|end|>\n<|assistant|>\n",
    ]
    instructed = adapter_for(phi_folder, question_style="plain", system_prompt="Be exact.")
    assert instructed.render(mixed[2]).startswith("<|system|>\nBe exact.<|end|>\n<|user|>\nHow many")


def test_a_conversation_of_texts_is_what_the_published_template_makes_of_it(lmm):
    turns = [
        {"role": role, "content": text}
        for role, text in (("system", "A"), ("user", "B"), ("assistant", "C"), ("user", "D"))
    ]
    expected = lmm.tokenizer.apply_chat_template(
        turns, chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    assert lmm.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == expected


def test_a_turn_ends_and_placeholders_are_banned(lmm):
    named = lmm.tokenizer.convert_tokens_to_ids
    assert lmm.stop_token_ids == (named("<|end|>"), named("<|endoftext|>"))
    assert {named("<|image|>"), named("<|user|>"), named("<|assistant|>"), 1} <= {*lmm.banned_token_ids}


def test_each_piece_around_an_image_begins_with_a_bos(lmm, mixed):
    batch = collate_prompts(lmm, mixed)
    rows = [
        row[mask.bool()].tolist()
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    image = [lmm.processor.image_token_id] * TOKENS_A_SQUARE
    tail = "<|end|>\n<|assistant|>\n"
    start, end = [1, *ids(lmm, "<|user|>\n")], ids(lmm, f"\nWhat is the area{tail}")
    assert rows[0] == start + image + [1] + end
    assert rows[1] == start + image + [1, *ids(lmm, "\n")] + image + [
        1,
        *ids(lmm, f"\nAdd the sum of both{tail}"),
    ]
    assert rows[2] == [1, *ids(lmm, f"<|user|>\nHow many{tail}")]
    assert [lmm.num_prompt_tokens(prompt) for prompt in mixed] == [len(row) for row in rows]
    assert batch["pixel_values"].shape == (3, 2, 3, 336, 336)


def test_the_tokenizer_is_the_published_file_whatever_class_it_names(lmm, model, phi_folder, tmp_path):
    text = "<|user|>\n<|image_1|>\n  Add é →\t3:  x<|end|>\n<|assistant|>\n The answer"
    expected = Tokenizer.from_file(f"{phi_folder}/tokenizer.json").encode(text).ids
    assert expected[:4] == [1, lmm.tokenizer.convert_tokens_to_ids("<|user|>"), *ids(lmm, "\n")]
    export = export_policy(lmm, model, tmp_path / "policy")
    for folder in (phi_folder, export):
        assert AutoTokenizer.from_pretrained(folder)(text).input_ids == expected, folder
        assert AutoProcessor.from_pretrained(folder).tokenizer(text).input_ids == expected, folder


def test_a_response_has_the_tokens_that_were_sampled(lmm):
    sampled = [*ids(lmm, "the answer is 4"), lmm.end_token_id]
    for text in ("the answer is 4", " the answer is 4"):  # as decoded alone, and behind a prompt
        assert lmm.encode_response(text) == sampled


def test_a_question_spells_no_placeholder(lmm):
    with pytest.raises(InputError, match=r"spells the special token '<\|image_2\|>'"):
        lmm.render(Prompt(id="7", question="See <|image_2|>."))


@pytest.mark.parametrize("text", ["<|image_2|>", "<|image_1|><|image_1|>", "none"])
def test_placeholders_count_the_images(lmm, text):
    with pytest.raises(ValueError, match="images"):
        lmm.processor(text, [Image.new("RGB", (30, 30))] * 2)


def test_num_crops_reaches_processor_and_count(phi_folder, picture_folder):
    wide = Prompt(id="w", question="What", images=(str(picture_folder / "4.png"),))  # 250 x 90
    lengths = {}
    for num_crops in (1, 4):
        adapter = adapter_for(phi_folder, processor_options={"num_crops": num_crops})
        batch = collate_prompts(adapter, [wide])
        assert batch["pixel_values"].shape[1] == num_crops + 1
        lengths[num_crops] = batch["input_ids"].shape[1]
        assert adapter.num_prompt_tokens(wide) == lengths[num_crops]
    columns, rows = 2, 1
    assert lengths[4] - lengths[1] == (columns * rows - 1) * 144


def test_options_that_do_not_exist_or_cut_nothing_are_refused(phi_folder, mixed):
    for options, message in (
        ({"max_patches": 4}, "unknown processor option 'max_patches'; Phi3V has num_crops"),
        ({"num_crops": 0}, "processor option num_crops is 0; give a whole number from 1 on"),
    ):
        with pytest.raises(InputError, match=message):
            adapter_for(phi_folder, processor_options=options).num_prompt_tokens(mixed[0])


def test_more_tokens_than_longrope_starts_from_are_refused_with_the_reason(lmm, train_file, tmp_path):
    reason = "8192 is over 4096: with a longer context vLLM turns every position by the long factors"
    assert context_of(lmm, None) == context_of(lmm, 4096) == 4096
    with pytest.raises(InputError, match=f"max_model_len {reason}"):
        context_of(lmm, 8192)
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match=f"data.max_length {reason}"):
        trainer.fit(PolicyModule(lmm), PolicyDataModule(train=train_file, max_length=8192))


def test_a_narrow_image_is_refused_by_name(lmm, tmp_path):
    Image.new("RGB", (5000, 1)).save(tmp_path / "line.png")
    with pytest.raises(
        InputError, match=r"prompt 'l': .*line\.png: an image of 5000 to 1 pixels is too narrow"
    ):
        lmm.num_prompt_tokens(Prompt(id="l", question="?", images=(str(tmp_path / "line.png"),)))


def test_groups_targets_and_blocks(lmm):
    model = lmm.load_model()
    images = "model.vision_embed_tokens"
    for name, group in {
        f"{images}.img_processor.vision_model.embeddings.class_embedding": "vision",
        f"{images}.glb_GN": "projector",
        f"{images}.sub_GN": "projector",
        f"{images}.img_projection.2.bias": "projector",
        "model.embed_tokens.weight": "language",
        "model.norm.weight": "language",
        "lm_head.weight": "language",
    }.items():
        assert lmm.group(model, name) == group
    assert [group for group, _ in lmm.shard_blocks(model)] == ["language"] * 2 + ["vision"] * 3
    tuned = LoRA(rank=2).apply(lmm, model)
    blocks = lmm.shard_blocks(plain_model(tuned))
    assert [group for group, _ in blocks] == ["language"] * 2 + ["vision"] * 3
    updated = {
        name.split(".lora_")[0].rpartition(".")[2] for name, _ in tuned.named_parameters() if "lora_" in name
    }
    assert updated == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


def test_the_engine_gets_the_token_embeddings_twice(lmm, model):
    weights = dict(lmm.engine_weights(model.state_dict().items()))
    alias = weights.pop("model.vision_embed_tokens.wte.weight")
    assert alias is weights["model.embed_tokens.weight"]
    assert weights.keys() == model.state_dict().keys()


@torch.no_grad()
def test_an_image_is_arranged_as_published(model):
    """A grid of two by two squares: each token of the result is found by its row and column."""
    part = model.model.vision_embed_tokens
    rows, columns = 2, 2
    pixels = torch.randn(1, 5, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    tower = part.img_processor["vision_model"]
    seen = tower(pixels[0], output_hidden_states=True).hidden_states[-2][:, 1:].reshape(5, 24, 24, -1)

    def token(square, row, column):
        """Two by two patches, those of a row together."""
        patches = [(row * 2, column * 2), (row * 2, column * 2 + 1), (row * 2 + 1, column * 2)]
        return torch.cat([seen[square][place] for place in [*patches, (row * 2 + 1, column * 2 + 1)]])

    expected = []
    for row in range(rows * 12):
        for column in range(columns * 12):
            expected.append(token(1 + row // 12 * columns + column // 12, row % 12, column % 12))
        expected.append(part.sub_GN.flatten())
    expected.append(part.glb_GN.flatten())
    for row in range(12):
        expected += [token(0, row, column) for column in range(12)] + [part.sub_GN.flatten()]
    got = part(pixels, torch.tensor([[336 * rows, 336 * columns]]))[0]
    torch.testing.assert_close(got, part.img_projection(torch.stack(expected)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_rows_with_two_images_one_and_none_do_not_disturb_each_other(lmm, model, mixed):
    together = model(**pad_left(collate_prompts(lmm, mixed)), logits_to_keep=1).logits[:, 0]
    alone = [model(**collate_prompts(lmm, [prompt])).logits[0, -1] for prompt in mixed]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)


def test_samples_of_prompts_with_several_images_see_their_own(lmm, model, mixed):
    drawn = SamplingConfig(num_samples=2, temperature=1.0, max_tokens=4)
    together = TransformersEngine(lmm, model).generate(mixed, drawn)
    assert together == TransformersEngine(lmm, model, batch_size=1).generate(mixed, drawn)


@torch.no_grad()
def test_an_export_loads_in_transformers_with_all_that_no_file_holds(lmm, model, mixed, tmp_path):
    folder = export_policy(lmm, model, tmp_path / "policy")
    again = AutoModelForImageTextToText.from_pretrained(folder)
    batch = collate_examples(lmm, [Example(prompt=mixed[1], response="the answer is 4")])
    assert torch.equal(again(**batch).loss, model(**batch).loss)
    rotary: nn.Module = again.model.rotary_emb
    assert torch.equal(rotary.inv_freq, lmm.empty_model().model.rotary_emb.inv_freq)
    assert torch.equal(
        again.model.vision_embed_tokens.img_processor["vision_model"].embeddings.position_ids[0],
        torch.arange(577),
    )


def test_the_card_of_an_export_says_what_loading_needs_and_its_example_runs(lmm, model, tmp_path):
    folder = export_policy(lmm, model, tmp_path / "policy")
    card = (folder / "README.md").read_text()
    assert "load it where `mstar_pl` is installed, Transformers after `import mstar_pl.models`." in card
    picture = {"type": "image", "image": Image.new("RGB", (40, 30))}
    content = [picture, {"type": "text", "text": "How many"}]
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert inputs["input_ids"].shape[1] > TOKENS_A_SQUARE
    assert processor.decode(model.generate(**inputs, max_new_tokens=2)[0], skip_special_tokens=True)


def test_image_tokens_without_an_image_are_refused(lmm, model, mixed):
    batch = collate_prompts(lmm, mixed[:1])
    batch["input_ids"][0, 0] = lmm.processor.image_token_id
    with pytest.raises(ValueError, match="314 image tokens for images of 313 tokens"):
        model(**batch)
