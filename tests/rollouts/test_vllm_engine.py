"""The real vLLM engine against Transformers, on both families."""

import pytest
import torch

from mstar_pl.data.collate import collate_prompts
from mstar_pl.models import LoRA, adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.lora import merged_weights
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError, Prompt, SamplingConfig

pytestmark = pytest.mark.engine

GREEDY = SamplingConfig(max_tokens=12)
DRAWN = SamplingConfig(num_samples=4, temperature=1.0, max_tokens=12, seed=3)


@pytest.fixture(scope="module", params=["internvl_folder", "qwen_folder"])
def family(request):
    """An adapter, its model, and a running engine with the model's weights."""
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    lmm = adapter_for(request.getfixturevalue(request.param), question_style="plain")
    model = lmm.load_model()
    engine = VLLMEngine(lmm, max_model_len=256, max_num_seqs=64)
    with pytest.raises(RuntimeError, match="load_policy"):
        engine.generate([], GREEDY)
    engine.load_policy(model.state_dict().items(), version=1)
    return lmm, model, engine


def tokens(groups):
    return [[rollout.token_ids for rollout in group.rollouts] for group in groups]


def test_greedy_responses_and_prompt_tokens_equal_transformers(family, prompts):
    lmm, model, engine = family
    expected = TransformersEngine(lmm, model).generate(prompts, GREEDY)
    got = engine.generate(prompts, GREEDY)
    assert tokens(got) == tokens(expected)
    assert [group.prompt_token_ids for group in got] == [group.prompt_token_ids for group in expected]
    assert len({group.rollouts[0].token_ids for group in got}) > 4, (
        "the comparison says little if responses are alike"
    )
    batch = collate_prompts(lmm, prompts)
    rows = [
        tuple(row[mask.bool()].tolist())
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert [group.prompt_token_ids for group in got] == rows


def test_new_weights_are_used_and_old_caches_dropped(family, prompts):
    lmm, model, engine = family
    before = engine.generate(prompts, GREEDY)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    engine.load_policy(model.state_dict().items(), version=2)
    after = engine.generate(prompts, GREEDY)
    assert tokens(after) == tokens(TransformersEngine(lmm, model).generate(prompts, GREEDY))
    assert tokens(after) != tokens(before)
    assert {group.weight_version for group in after} == {2}
    model.load_state_dict(kept)
    engine.load_policy(model.state_dict().items(), version=3)
    assert tokens(engine.generate(prompts, GREEDY)) == tokens(before)


def test_draws_do_not_depend_on_order_or_batch(family, prompts):
    _, _, engine = family
    whole = {group.prompt.id: group.rollouts for group in engine.generate(prompts, DRAWN)}
    parts = [*engine.generate(prompts[5:][::-1], DRAWN), *engine.generate(prompts[:5], DRAWN)]
    assert {group.prompt.id: group.rollouts for group in parts} == whole
    other = engine.generate(prompts, DRAWN, iteration=1)
    assert {group.prompt.id: group.rollouts for group in other} != whole


def test_placeholders_are_never_sampled(family, prompts):
    lmm, _, engine = family
    hot = SamplingConfig(num_samples=32, temperature=2.0, max_tokens=24)
    seen = {
        token
        for group in engine.generate(prompts, hot)
        for rollout in group.rollouts
        for token in rollout.token_ids
    }
    assert len(seen) > 100
    assert not seen & set(lmm.banned_token_ids)


def test_what_does_not_fit_is_refused_before_generation(family, prompts):
    _, _, engine = family
    with pytest.raises(InputError, match=r"prompt 'p0'.*exceed the context of 256"):
        engine.generate(prompts, SamplingConfig(max_tokens=250))
    two = Prompt(id="two", question="What", images=prompts[0].images * 2)
    with pytest.raises(InputError, match="'two' has 2 images"):
        engine.generate([two], GREEDY)


def test_merged_lora_weights_reach_the_engine(family, prompts):
    lmm, _, engine = family
    tuned = LoRA(rank=4).apply(lmm, lmm.load_model())
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2, generator=torch.Generator().manual_seed(2))
    expected = TransformersEngine(lmm, tuned).generate(prompts, GREEDY)
    with merged_weights(tuned) as state:
        engine.load_policy(state.items(), version=4)
    assert tokens(engine.generate(prompts, GREEDY)) == tokens(expected)


def test_export_loads_in_plain_vllm(family, prompts, tmp_path):
    """A policy folder without anything of this package around it."""
    from PIL import Image
    from vllm import LLM, SamplingParams

    lmm, model, _ = family
    folder = export_policy(lmm, model, tmp_path / "policy")
    plain = LLM(
        str(folder), dtype="float32", enforce_eager=True, max_model_len=256, max_num_batched_tokens=4096
    )
    square = prompts[0]  # needs no resizing for InternVL, whose other image backend resizes differently
    expected = TransformersEngine(lmm, model).generate([square], GREEDY)
    with Image.open(square.images[0]) as image:
        request = {"prompt": lmm.render(square), "multi_modal_data": {"image": image.convert("RGB")}}
        output = plain.generate(
            [request],
            SamplingParams(
                temperature=0, max_tokens=12, logit_bias=dict.fromkeys(lmm.banned_token_ids, -100.0)
            ),
        )[0]
    assert tuple(output.outputs[0].token_ids) == expected[0].rollouts[0].token_ids
