"""The real vLLM engine against Transformers, on both families."""

import pytest
import torch
from lightning.pytorch import Trainer

from mstar_pl.data.collate import collate_prompts
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.images import load_image
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.models import LoRA, adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.lora import merged_weights
from mstar_pl.modules import PolicyModule
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError, Prompt, SamplingConfig
from tests.engines import assert_faults_are_found

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


def test_engine_and_training_see_the_same_pixels(family, prompts):
    """Tiled and resized pictures, too: another image backend is a grey level off."""
    from vllm.transformers_utils.processor import cached_processor_from_config

    lmm, _, engine = family
    theirs = cached_processor_from_config(engine._llm.llm_engine.vllm_config.model_config)
    for prompt in prompts:
        image = load_image(prompt.images[0])
        pixels = [
            processor.image_processor([image], return_tensors="pt")["pixel_values"]
            for processor in (theirs, lmm.processor)
        ]
        assert torch.equal(*pixels), prompt.id


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


@pytest.mark.parametrize("freeze", [[], ["vision"]], ids=["all trained", "vision frozen"])
def test_parity_holds_after_training(family, prompts, examples, tmp_path, freeze):
    lmm, model, engine = family
    engine.load_policy(model.state_dict().items(), version=0)
    before = engine.generate(prompts, GREEDY)
    rows = str(write_jsonl(tmp_path / "train.jsonl", (example.to_json() for example in examples)))
    policy = PolicyModule(lmm, lambda params: torch.optim.AdamW(params, lr=5e-4), freeze=freeze)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False
    )
    trainer.fit(policy, PolicyDataModule(train=rows, batch_size=4, micro_batch_size=4))
    with policy.policy_weights() as weights:
        engine.load_policy(weights.items(), version=trainer.global_step)
    assert check_parity(engine, lmm, policy.model, prompts) < 1e-3
    after = engine.generate(prompts, GREEDY)
    assert tokens(after) == tokens(TransformersEngine(lmm, policy.model).generate(prompts, GREEDY))
    assert tokens(after) != tokens(before), "training changed the responses"
    assert len({group.rollouts[0].token_ids for group in after}) > 2


def test_the_probe_finds_other_weights(family, prompts):
    lmm, model, engine = family
    engine.load_policy(model.state_dict().items(), version=1)
    assert check_parity(engine, lmm, model, prompts) < 1e-3
    other = lmm.load_model()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    with pytest.raises(RuntimeError, match="nats below the training model's"):
        check_parity(engine, lmm, other, prompts)


@pytest.mark.parametrize("part", [".q_proj.", "norm", "vis", "embed_tokens", ".down_proj."])
def test_a_weight_that_is_missing_or_given_twice_is_found(family, prompts, part):
    lmm, model, engine = family
    weights = model.state_dict()
    assert_faults_are_found(engine, weights, part, prompts)
    engine.load_policy(weights.items(), version=1)
    assert check_parity(engine, lmm, model, prompts) < 1e-3


def test_a_sync_that_breaks_off_leaves_nothing_for_the_next(family, prompts):
    """Neither half a fused layer nor the count of what it had got."""
    lmm, model, engine = family

    def broken():
        for name, weight in model.state_dict().items():
            yield name, weight + 1
            if ".q_proj." in name:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        engine.load_policy(broken(), version=1)
    engine.load_policy(model.state_dict().items(), version=1)
    assert check_parity(engine, lmm, model, prompts) < 1e-3


def test_no_generation_between_wake_and_load(family, prompts):
    _, model, engine = family
    engine.sleep()
    engine.wake()
    with pytest.raises(RuntimeError, match="load_policy before generate"):
        engine.generate(prompts, GREEDY)
    engine.load_policy(model.state_dict().items(), version=1)
    assert engine.generate(prompts, GREEDY)


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
