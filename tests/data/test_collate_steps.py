"""Where the steps of a response end, against places counted by hand, on both families."""

import re

import pytest
import torch

from mstar_pl.data.collate import collate_examples
from mstar_pl.data.collate_steps import collate_steps, encode_steps, step_lengths
from mstar_pl.data.format import join_steps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.models import adapter_for
from mstar_pl.types import Example, InputError, Prompt

STEPS = ("red 4.", "2 + 2 = 4.", "# Answer\n\n4")
FIRST = ["red", "Ġ4", ".", "ĊĊ"]
SECOND = ["2", "Ġ", "+", "Ġ2", "Ġ", "=", "Ġ4", ".", "ĊĊ"]
ANSWER = ["#", "ĠAnswer", "ĊĊ", "4", "<|im_end|>"]


@pytest.fixture
def lmm(family_folder):
    return adapter_for(family_folder, question_style="plain")


@pytest.fixture
def records(prompts):
    """Prompts and responses of different lengths; the third has no picture."""
    text_only = Prompt(id="t", question="What is 2 + 2", answer="4")
    return [
        StepLabels(prompt=prompts[0], steps=STEPS, labels=(1.0, None, 0.25)),
        StepLabels(prompt=prompts[1], steps=("4",), labels=(0.0,)),
        StepLabels(prompt=text_only, steps=("I count 4.", "# Answer\n\n4"), labels=(None, 1.0)),
        StepLabels(prompt=prompts[4], steps=STEPS[:2], labels=(0.0, 1.0)),
    ]


def tokens_of(lmm, ids):
    return lmm.tokenizer.convert_ids_to_tokens(ids)


def test_a_step_ends_with_its_separator_and_the_last_with_the_end_of_the_turn(lmm):
    ids, ends = encode_steps(lmm, STEPS)
    assert tokens_of(lmm, ids) == FIRST + SECOND + ANSWER
    # The blank line inside the answer, token 15, ends no step.
    assert ends == [3, 12, 17]
    assert tokens_of(lmm, [ids[end] for end in ends]) == ["ĊĊ", "ĊĊ", "<|im_end|>"]


def test_a_step_that_ends_with_a_line_break_ends_at_the_last_token_of_the_separator(lmm):
    ids, ends = encode_steps(lmm, ["red 4.\n", "4"])
    assert tokens_of(lmm, ids) == ["red", "Ġ4", ".", "ĊĊ", "Ċ", "4", "<|im_end|>"]
    assert ends == [4, 6]


def test_no_steps_have_no_tokens(lmm):
    assert encode_steps(lmm, []) == ([], [])


class GreedyEncoder:
    """A tokenizer that joins a blank line with the capital letter behind it, as some large ones do."""

    def encode_response(self, text):
        return [*re.findall(r"\n\n[A-Z]|\n\n|.", text), "END"]


def test_steps_are_tokenised_apart():
    tokens, ends = encode_steps(GreedyEncoder(), ["a", "B", "C"])
    assert tokens == ["a", "\n\n", "B", "\n\n", "C", "END"]
    assert ends == [1, 3, 5]
    assert "\n\nB" in GreedyEncoder().encode_response("a\n\nB"), "the response as one text has other tokens"


def test_rows_are_those_of_whole_responses_where_the_tokenizer_does_not_join_across_steps(lmm, records):
    batch = collate_steps(lmm, records)
    responses = [join_steps(list(record.steps)) for record in records]
    whole = collate_examples(
        lmm, [Example(prompt=one.prompt, response=text) for one, text in zip(records, responses, strict=True)]
    )
    del whole["labels"]
    assert batch.keys() - whole.keys() == {"step_rows", "step_places", "step_labels"}
    for key, value in whole.items():
        assert torch.equal(batch[key], value), key


def test_places_count_from_the_beginning_of_the_row(lmm, records):
    batch = collate_steps(lmm, records)
    assert batch["step_rows"].tolist() == [0, 0, 0, 1, 2, 2, 3, 3]
    found = batch["input_ids"][batch["step_rows"], batch["step_places"]].tolist()
    ends = ["ĊĊ", "ĊĊ", "<|im_end|>", "<|im_end|>", "ĊĊ", "<|im_end|>", "ĊĊ", "<|im_end|>"]
    assert tokens_of(lmm, found) == ends
    # Before the response stand the prompt's tokens, the image's included.
    starts = [lmm.num_prompt_tokens(record.prompt) for record in records]
    expected = [starts[0] + 3, starts[0] + 12, starts[0] + 17, starts[1] + 1]
    expected += [starts[2] + 4, starts[2] + 9, starts[3] + 3, starts[3] + 12]
    assert batch["step_places"].tolist() == expected
    assert batch["attention_mask"][batch["step_rows"], batch["step_places"]].all()


def test_labels_that_are_not_known_are_nan(lmm, records):
    labels = collate_steps(lmm, records)["step_labels"]
    assert labels.isnan().tolist() == [False, True, False, False, True, False, False, False]
    assert labels[~labels.isnan()].tolist() == [1.0, 0.25, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("number", [0, 1])
def test_a_special_token_in_a_step_is_refused_with_the_prompt(lmm, records, prompts, number):
    placeholder = tokens_of(lmm, lmm.banned_token_ids[-1])
    steps = ["red 4.", "4"]
    steps[number] += f" {placeholder}"
    bad = StepLabels(prompt=prompts[5], steps=tuple(steps), labels=(1.0, 0.0))
    with pytest.raises(InputError, match=r"prompt 'p5'.*special token"):
        collate_steps(lmm, [records[0], bad])


def test_lengths_are_those_of_the_collated_rows(lmm, records):
    batch = collate_steps(lmm, records)
    lengths = [step_lengths(lmm, record) for record in records]
    assert [length["total"] for length in lengths] == batch["attention_mask"].sum(1).tolist()
    known = batch["step_rows"][~batch["step_labels"].isnan()]
    assert [length["losses"] for length in lengths] == known.bincount(minlength=len(records)).tolist()
    assert [length["losses"] for length in lengths] == [2, 1, 1, 2]
