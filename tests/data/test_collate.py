"""Collation against expectations written by hand, on both families."""

import pytest
import torch

from mstar_pl.data.collate import IGNORE, collate_examples, example_lengths, with_blank_image
from mstar_pl.data.collate_steps import collate_steps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.models import adapter_for
from mstar_pl.modules import PolicyModule
from mstar_pl.types import Example, InputError, Prompt


def spell(lmm, row):
    """Return a row of ids as token texts, runs of image placeholders counted."""
    out = []
    for token in lmm.tokenizer.convert_ids_to_tokens(row):
        if out and out[-1][0] == token and token in ("<IMG_CONTEXT>", "<|image_pad|>"):
            out[-1][1] += 1
        else:
            out.append([token, 1])
    return [
        f"{token}*{count}" if token in ("<IMG_CONTEXT>", "<|image_pad|>") else token for token, count in out
    ]


USER = ["<|im_start|>", "user", "Ċ"]
ASSISTANT = ["<|im_end|>", "Ċ", "<|im_start|>", "assistant", "Ċ"]

# 96 x 96 is one tile of 16 tokens; 131 x 77 is closest to 2 x 1 tiles, with the thumbnail 3 x 16 tokens.
INTERNVL = [
    [*USER, "<img>", "<IMG_CONTEXT>*16", "</img>", "Ċ", "What", "Ġis", *ASSISTANT],
    [*USER, "<img>", "<IMG_CONTEXT>*48", "</img>", "Ċ", "What", "Ġis", "Ġthe", *ASSISTANT],
]
# Sides are rounded to multiples of 28: 96 x 96 gives 84 x 84 = 3 x 3 tokens, 131 x 77 gives 140 x 84 = 5 x 3.
QWEN = [
    [*USER, "<|vision_start|>", "<|image_pad|>*9", "<|vision_end|>", "What", "Ġis", *ASSISTANT],
    [*USER, "<|vision_start|>", "<|image_pad|>*15", "<|vision_end|>", "What", "Ġis", "Ġthe", *ASSISTANT],
]
RESPONSE = ["The", "Ġanswer", "Ġis", "Ġ4", ".", "ĊĊ", "#", "ĠAnswer", "ĊĊ", "4", "<|im_end|>"]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("internvl_folder", INTERNVL), ("qwen_folder", QWEN)],
    ids=["internvl", "qwen2_5_vl"],
)
def test_rows_labels_and_image_positions(folder, expected, examples, request):
    lmm = adapter_for(request.getfixturevalue(folder), question_style="plain")
    batch = collate_examples(lmm, examples[:2])
    for row, (prompt, response) in enumerate([(expected[0], RESPONSE), (expected[1], ["4", "<|im_end|>"])]):
        mask = batch["attention_mask"][row].bool()
        ids = batch["input_ids"][row]
        assert spell(lmm, ids[mask].tolist()) == prompt + response
        labelled = batch["labels"][row] != IGNORE
        assert lmm.tokenizer.convert_ids_to_tokens(ids[labelled].tolist()) == response
        assert torch.equal(batch["labels"][row][labelled], ids[labelled])
        assert (ids[~mask] == lmm.pad_token_id).all()
        assert not (labelled & ~mask).any()


def test_lengths_are_known_without_encoding(family_folder, examples):
    lmm = adapter_for(family_folder)
    batch = collate_examples(lmm, examples)
    lengths = [example_lengths(lmm, example) for example in examples]
    assert [length["total"] for length in lengths] == batch["attention_mask"].sum(1).tolist()
    assert [length["losses"] for length in lengths] == (batch["labels"] != IGNORE).sum(1).tolist()


def test_token_types_mark_the_image_tokens_only(qwen_folder, examples):
    lmm = adapter_for(qwen_folder)
    batch = collate_examples(lmm, examples)
    is_image = batch["input_ids"] == lmm.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert torch.equal(batch["mm_token_type_ids"].bool(), is_image)


def test_padded_batch_has_the_losses_of_single_rows(family_folder, examples):
    lmm = adapter_for(family_folder)
    model = lmm.load_model()

    def losses(rows):
        batch = collate_examples(lmm, rows)
        labels = batch.pop("labels")
        logits = model(**batch).logits[:, :-1].flatten(0, 1)
        values = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="none")
        return values.view(len(rows), -1).sum(1)

    with torch.no_grad():
        single = torch.cat([losses([example]) for example in examples])
        torch.testing.assert_close(losses(examples), single, rtol=1e-5, atol=1e-5)


def test_prompt_without_images_and_mixed_batch(internvl_folder, examples):
    lmm = adapter_for(internvl_folder, question_style="plain")
    text_only = Example(prompt=Prompt(id="t", question="What is 2 + 2", answer="4"), response="4")
    batch = collate_examples(lmm, [text_only, examples[0]])
    context = lmm.tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>")
    assert (batch["input_ids"] == context).sum(1).tolist() == [0, 16]
    assert batch["pixel_values"].shape == (1, 3, 96, 96)
    assert "pixel_values" not in collate_examples(lmm, [text_only])


def test_response_with_a_placeholder_is_refused(family_folder, examples):
    lmm = adapter_for(family_folder)
    placeholder = lmm.tokenizer.convert_ids_to_tokens(lmm.banned_token_ids[-1])
    bad = Example(prompt=examples[0].prompt, response=f"see {placeholder} here")
    with pytest.raises(InputError, match=r"prompt 'p0'.*special token"):
        collate_examples(lmm, [bad])


def test_a_blank_image_changes_no_loss_and_gives_the_vision_tower_gradients(family_folder):
    """Zeros, but not nothing: with several processes the others wait for them."""
    policy = PolicyModule(adapter_for(family_folder))
    policy.model = policy.lmm.load_model()
    texts = ("The answer is 4.", "4")
    batch = collate_examples(
        policy.lmm,
        [Example(prompt=Prompt(id=text, question="What is 2 + 2?"), response=text) for text in texts],
    )
    losses, _, labels = policy.token_losses(batch)
    vision = [p for n, p in policy.model.named_parameters() if policy.lmm.group(policy.model, n) == "vision"]
    losses.sum().backward()
    assert all(parameter.grad is None for parameter in vision)
    rows = with_blank_image(policy.lmm, batch)
    assert [len(rows[key]) for key in ("input_ids", "attention_mask", "labels")] == [3, 3, 3]
    same, _, same_labels = policy.token_losses(rows)
    torch.testing.assert_close(same, losses, rtol=1e-5, atol=1e-5)
    assert torch.equal(same_labels, labels)
    same.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in vision)


def test_a_blank_image_changes_no_step(family_folder):
    lmm = adapter_for(family_folder)
    record = StepLabels(prompt=Prompt(id="1", question="2 + 2?"), steps=("Add.", "4"), labels=(1.0, 0.0))
    batch = collate_steps(lmm, [record])
    rows = with_blank_image(lmm, batch)
    assert "labels" not in rows
    assert all(torch.equal(rows[key], batch[key]) for key in batch if key.startswith("step_"))
    assert torch.equal(rows["input_ids"][0, : batch["input_ids"].shape[1]], batch["input_ids"][0])
