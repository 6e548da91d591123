"""Scoring with a process reward model: against plain forwards of whole responses, and through an export."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from mstar_pl.data.format import split_steps
from mstar_pl.models import adapter_for, process_reward
from mstar_pl.models.export import export_policy, export_process_reward
from mstar_pl.models.process_reward import HEAD_FILE, ProcessRewardModel, StepReadOut
from mstar_pl.rewards.process import ProcessReward
from mstar_pl.rewards.reward import ModelReward
from mstar_pl.types import InputError, Prompt, Rollout, RolloutGroup

RESPONSES = [
    ["red 4.", "2 + 2 = 4.", "# Answer\n\n4"],
    ["4"],
    ["The answer is 4, I count 2 and 2.", "# Answer\n\n4"],
    ["red 2, blue 2."] * 5 + ["# Answer\n\n7"],
    ["blue 3.", "The sum is 5."],
]
KINDS = ["token", "head"]


@pytest.fixture
def text_only():
    return Prompt(id="t", question="What is 2 + 2", answer="4")


def process_model(folder, kind="token", **options):
    """A process reward model on the random weights of a tiny model."""
    torch.manual_seed(7)
    lmm = adapter_for(folder, question_style="plain")
    model = lmm.load_model()
    return ProcessRewardModel(lmm, model, StepReadOut(lmm, model, kind, **options))


def plain_inputs(processor, prompt, steps):
    """Return model inputs of one whole response, and where its steps end, by the public API alone."""
    content = [*[{"type": "image"}] * len(prompt.images), {"type": "text", "text": prompt.question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    images = [Image.open(image).convert("RGB") for image in prompt.images] or None
    inputs = dict(processor(text=[text], images=images, return_tensors="pt"))
    ends = []
    for number, step in enumerate(steps, start=1):
        part = step + ("\n\n" if number < len(steps) else "<|im_end|>")
        ids = torch.tensor([processor.tokenizer.encode(part, add_special_tokens=False)])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], 1)
        ends.append(inputs["input_ids"].shape[1] - 1)
    for key, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if key in inputs:
            missing = inputs["input_ids"].shape[1] - inputs[key].shape[1]
            inputs[key] = torch.nn.functional.pad(inputs[key], (0, missing), value=fill)
    return inputs, ends


@torch.no_grad()
def plain_scores(model, processor, prompt, steps, head=None):
    """Score one response by the definition: + against - in the softmax of both logits, or the linear head."""
    inputs, ends = plain_inputs(processor, prompt, steps)
    if head is not None:
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1][0, ends]
        return torch.sigmoid(hidden @ head["weight"][0] + head["bias"]).tolist()
    signs = processor.tokenizer.convert_tokens_to_ids(["+", "-"])
    return model(**inputs).logits[0, ends][:, signs].softmax(-1)[:, 0].tolist()


def close(scores):
    return [pytest.approx(one, abs=1e-5) for one in scores]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_responses", [1, 5])
def test_shared_prefix_gives_the_scores_of_single_whole_forwards(family_folder, prompts, num_responses, kind):
    scorer = process_model(family_folder, kind)
    plain = AutoModelForImageTextToText.from_pretrained(family_folder)
    head = scorer.read_out.head.state_dict() if kind == "head" else None
    for prompt in (prompts[1], prompts[4]):  # for InternVL three and four tiles
        found = scorer.score(prompt, RESPONSES[:num_responses])
        expected = [
            plain_scores(plain, scorer.lmm.processor, prompt, steps, head)
            for steps in RESPONSES[:num_responses]
        ]
        assert found == close(expected)
        assert [len(scores) for scores in found] == [len(steps) for steps in RESPONSES[:num_responses]]
        values = [score for scores in expected for score in scores]
        assert len({round(value, 5) for value in values}) == len(values), "the scores tell steps apart"


def test_scores_depend_on_the_picture(family_folder, prompts, text_only):
    """Otherwise agreement with the plain forward would show nothing about images."""
    scorer = process_model(family_folder)
    with_picture = Prompt(id="t", question=text_only.question, images=prompts[1].images, answer="4")
    (first,), (second,) = (scorer.score(prompt, RESPONSES[:1]) for prompt in (with_picture, text_only))
    assert max(abs(one - other) for one, other in zip(first, second, strict=True)) > 1e-3


@pytest.mark.parametrize(
    ("most_tokens", "num_forwards"), [(1, 5), (100, 3), (8192, 1)], ids=["alone", "in pairs", "together"]
)
def test_several_forwards_share_one_encoding_of_the_prompt(
    family_folder, prompts, monkeypatch, most_tokens, num_forwards
):
    scorer = process_model(family_folder)
    together = scorer.score(prompts[1], RESPONSES)
    # The longest response has 45 tokens.
    monkeypatch.setattr(process_reward, "TAIL_TOKENS", most_tokens)
    calls = {"vision": 0, "language": 0}

    def count(part):
        calls[part] += 1

    scorer.model.get_encoder(modality="image").register_forward_hook(lambda *_: count("vision"))
    scorer.model.get_decoder().register_forward_hook(lambda *_: count("language"))
    assert scorer.score(prompts[1], RESPONSES) == close(together)
    assert calls == {"vision": 1, "language": 1 + num_forwards}


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_without_a_picture_is_scored_the_same_before_and_after_one_with(
    family_folder, prompts, text_only, kind
):
    """Qwen2.5-VL keeps the position offset of the last prompt with images."""
    scorer = process_model(family_folder, kind)
    plain = AutoModelForImageTextToText.from_pretrained(family_folder)
    head = scorer.read_out.head.state_dict() if kind == "head" else None
    expected = [plain_scores(plain, scorer.lmm.processor, text_only, steps, head) for steps in RESPONSES]
    assert scorer.score(text_only, RESPONSES) == close(expected)
    scorer.score(prompts[1], RESPONSES)
    assert scorer.score(text_only, RESPONSES) == close(expected)


def test_response_that_spells_a_special_token_scores_zero_and_leaves_the_others_alone(family_folder, prompts):
    scorer = process_model(family_folder)
    image, pad = scorer.lmm.tokenizer.convert_ids_to_tokens(
        [scorer.model.config.image_token_id, scorer.lmm.pad_token_id]
    )
    bad = [["I see", f"{image} and 4"], [f"{pad}", "4", "5"]]
    first, second, *others = scorer.score(prompts[1], [bad[0], bad[1], *RESPONSES])
    assert (first, second) == ((0.0, 0.0), (0.0, 0.0, 0.0))
    assert others == close(scorer.score(prompts[1], RESPONSES))
    assert scorer.score(prompts[1], bad) == [(0.0, 0.0), (0.0, 0.0, 0.0)]


def test_empty_response_has_no_scores_and_leaves_the_others_alone(family_folder, prompts):
    scorer = process_model(family_folder)
    assert scorer.score(prompts[1], [[]]) == [()]
    empty, *others = scorer.score(prompts[1], [[], *RESPONSES])
    assert empty == ()
    assert others == close(scorer.score(prompts[1], RESPONSES))
    assert scorer.score(prompts[1], []) == []


@pytest.mark.parametrize("kind", KINDS)
def test_exported_model_scores_bit_for_bit_the_same(family_folder, prompts, tmp_path, kind):
    scorer = process_model(family_folder, kind, positive="blue", negative="red")
    folder = export_process_reward(scorer.lmm, scorer.model, scorer.read_out, tmp_path / "prm", "A note.")
    again = ProcessRewardModel.load(str(folder))
    assert again.read_out.options == {"kind": kind, "positive": "blue", "negative": "red"}
    assert again.score(prompts[4], RESPONSES) == scorer.score(prompts[4], RESPONSES)
    assert again.digest() == scorer.digest()
    assert (folder / HEAD_FILE).exists() == (kind == "head")
    assert "A note." in (folder / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_formula_of_the_card_gives_the_score_in_plain_transformers(family_folder, prompts, tmp_path, kind):
    scorer = process_model(family_folder, kind)
    folder = export_process_reward(scorer.lmm, scorer.model, scorer.read_out, tmp_path / "prm")
    card = (folder / "README.md").read_text()
    plain, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), "no weight is missing, unexpected or of another shape"
    inputs, ends = plain_inputs(scorer.lmm.processor, prompts[1], RESPONSES[0])
    with torch.no_grad():
        output = plain(**inputs, output_hidden_states=True)
    if kind == "token":
        assert "`sigmoid(logit('+') - logit('-'))`" in card
        positive, negative = scorer.lmm.tokenizer.convert_tokens_to_ids(["+", "-"])
        logits = output.logits[0, ends]
        expected = (logits[:, positive] - logits[:, negative]).sigmoid()
    else:
        assert f"`sigmoid(head(h))` of the last hidden state h, with the linear head in `{HEAD_FILE}`" in card
        head = load_file(folder / HEAD_FILE)
        hidden = output.hidden_states[-1][0, ends]
        expected = torch.nn.functional.linear(hidden, head["weight"], head["bias"])[:, 0].sigmoid()
    (found,) = ProcessRewardModel.load(str(folder)).score(prompts[1], RESPONSES[:1])
    assert found == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_scores_are_near_those_of_float32(family_folder, prompts, tmp_path, kind):
    scorer = process_model(family_folder, kind)
    folder = export_process_reward(scorer.lmm, scorer.model, scorer.read_out, tmp_path / "prm")
    coarse = ProcessRewardModel.load(str(folder), dtype="bfloat16")
    assert coarse.model.dtype == torch.bfloat16
    for found, exact in zip(
        coarse.score(prompts[1], RESPONSES), scorer.score(prompts[1], RESPONSES), strict=True
    ):
        assert found == pytest.approx(exact, abs=0.05)
        assert found != exact


def test_policy_is_not_taken_for_a_process_reward_model(internvl_folder, tmp_path):
    lmm = adapter_for(internvl_folder)
    policy = export_policy(lmm, lmm.load_model(), tmp_path / "policy")
    for folder in (str(policy), internvl_folder):  # with and without an adapter file
        with pytest.raises(InputError, match=rf"{folder}: not a process .*mstar_pl\.json.*mprm\.yaml"):
            ProcessRewardModel.load(folder)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"positive": "good"}, "'good' is 4 tokens"),
        ({"negative": "red blue"}, "'red blue' is 2 tokens"),
        ({"negative": ""}, "'' is 0 tokens"),
        ({"positive": "-"}, r"the same \('-'\); choose two"),
    ],
)
def test_texts_that_are_not_two_single_tokens_are_refused(internvl_folder, texts, message):
    with pytest.raises(InputError, match=message):
        process_model(internvl_folder, **texts)


def test_model_moves_with_its_read_out(internvl_folder):
    scorer = process_model(internvl_folder, "head")
    scorer.to("meta")
    parameters = [*scorer.model.parameters(), *scorer.read_out.parameters()]
    assert {parameter.device.type for parameter in parameters} == {"meta"}


TEXTS = ["red 4.\n\n# Answer\n\n4", "blue 3.\n\nred 4.\n\n# Answer\n\n7", ""]


@pytest.fixture
def group(prompts):
    """Four rollouts, two of them alike: correct, wrong, empty, correct."""
    said = [*TEXTS, TEXTS[0]]
    rollouts = tuple(Rollout(text=text, token_ids=(1,), finish_reason="stop") for text in said)
    return RolloutGroup(prompt=prompts[1], prompt_token_ids=(), rollouts=rollouts, weight_version=0)


@pytest.fixture(scope="module")
def exported(internvl_folder, tmp_path_factory):
    scorer = process_model(internvl_folder, "head")
    folder = tmp_path_factory.mktemp("exported") / "prm"
    return str(export_process_reward(scorer.lmm, scorer.model, scorer.read_out, folder))


AGGREGATES = {
    "min": min,
    "last": lambda scores: scores[-1],
    "mean": lambda scores: sum(scores) / len(scores),
    "product": lambda scores: torch.tensor(scores, dtype=torch.float64).prod().item(),
}


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_reward_grades_and_scores_each_rollout(exported, group, aggregate):
    scores = ProcessReward(exported, aggregate)(group)
    assert [score.outcome for score in scores] == ["correct", "wrong", "wrong", "correct"]
    steps = ProcessRewardModel.load(exported).score(group.prompt, [split_steps(text) for text in TEXTS[:2]])
    assert [len(one) for one in steps] == [2, 3]
    assert len(set(steps[1])) == 3
    first, second = (AGGREGATES[aggregate](one) for one in steps)
    assert [score.process for score in scores] == pytest.approx([first, second, 0.0, first], abs=1e-6)
    # A wrong answer is worth nothing, whatever its steps are worth.
    assert [score.reward for score in scores] == pytest.approx([first, 0.0, 0.0, first], abs=1e-6)


def test_each_distinct_response_is_scored_once(exported, group, monkeypatch):
    seen = []
    score = ProcessRewardModel.score

    def recorded(self, prompt, responses):
        seen.append(list(responses))
        return score(self, prompt, responses)

    monkeypatch.setattr(ProcessRewardModel, "score", recorded)
    scores = ProcessReward(exported)(group)
    assert seen == [[split_steps(text) for text in TEXTS]]
    assert scores[0] == scores[3]


def test_digest_is_that_of_the_weights_and_of_what_is_asked(exported, tmp_path):
    weights = ProcessReward(exported).weights
    assert ProcessReward(exported, "mean").weights == weights
    scorer = ProcessRewardModel.load(exported)
    copy = export_process_reward(scorer.lmm, scorer.model, scorer.read_out, tmp_path / "copy")
    assert ProcessReward(str(copy)).weights == weights
    found = {weights}
    for part in (scorer.read_out.head.bias, scorer.model.get_output_embeddings().weight):
        with torch.no_grad():
            part += 0.01
        changed = export_process_reward(scorer.lmm, scorer.model, scorer.read_out, tmp_path / "changed")
        found.add(ProcessReward(str(changed)).weights)
    asked = adapter_for(exported, instruction="another question")
    found.add(ProcessRewardModel(asked, scorer.model, scorer.read_out).digest())
    assert len(found) == 4


def test_reward_scores_the_same_after_a_sleep(exported, group):
    reward = ProcessReward(exported)
    assert isinstance(reward, ModelReward)
    before = reward(group)
    reward.sleep()
    reward.wake("cpu")
    assert reward(group) == before


def test_export_names_the_read_out_beside_the_adapter(exported):
    saved = json.loads(Path(exported, "mstar_pl.json").read_text())
    assert saved["class_path"] == "mstar_pl.models.families.InternVL"
    assert saved["process_reward"] == {"kind": "head", "positive": "+", "negative": "-"}
