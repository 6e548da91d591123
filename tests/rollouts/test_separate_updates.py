"""Low-rank updates beside the engine's own weights, against merged ones and Transformers."""

import json
from pathlib import Path

import pytest
import torch

from mstar_pl.models import GroupLoRA, InternVL, LoRA, adapter_for
from mstar_pl.modules import PolicyModule
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError, SamplingConfig

pytestmark = pytest.mark.engine

GREEDY = SamplingConfig(max_tokens=12)


def tokens(groups):
    return [rollout.token_ids for group in groups for rollout in group.rollouts]


def draw(model, seed):
    """Updates as after training."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2, generator=generator)


def sync(engine, policy, version):
    with policy.policy_weights(engine.takes_updates) as weights:
        engine.load_policy(weights.items(), version=version)


def test_updates_beside_the_weights_answer_as_merged_ones(internvl_folder, prompts, monkeypatch):
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    lmm = adapter_for(internvl_folder, question_style="plain")
    policy = PolicyModule(lmm, lora=LoRA(rank=4, alpha=6))
    policy.model = policy.lora.apply(lmm, lmm.load_model())
    engine = VLLMEngine(lmm, max_model_len=256, max_num_seqs=64, lora_rank=8)
    loads = []
    load = engine._load_weights
    monkeypatch.setattr(engine, "_load_weights", lambda weights: (loads.append(1), load(weights)))
    answers = []
    for version in range(3):
        draw(policy.model, version)
        sync(engine, policy, version)
        assert check_parity(engine, lmm, policy.model, prompts) < 1e-3
        answers.append(tokens(engine.generate(prompts, GREEDY)))
        assert answers[-1] == tokens(TransformersEngine(lmm, policy.model).generate(prompts, GREEDY))
        assert answers[-1] not in answers[:-1]
    assert len(loads) == 1, "the weights below come once"

    monkeypatch.setattr(engine, "takes_updates", False)
    sync(engine, policy, 3)
    monkeypatch.setattr(engine, "_updates", None)
    assert tokens(engine.generate(prompts, GREEDY)) == answers[-1], "merged"
    monkeypatch.setattr(engine, "takes_updates", True)

    with policy.policy_weights(True) as weights:
        renamed = {name.replace("layers.1.", "layers.9."): factor for name, factor in weights.items()}
    with pytest.raises(
        RuntimeError, match=r"layers.9.mlp.\w+ has an update but is no layer; .* \(7 problems\)"
    ):
        engine.load_policy(renamed.items(), version=4)

    policy.model = LoRA(rank=16).apply(lmm, lmm.load_model())
    with pytest.raises(InputError, match="rank 16, the engine lora_rank 8"):
        sync(engine, policy, 5)
    with pytest.raises(RuntimeError, match="load_policy before generate"):
        engine.generate(prompts, GREEDY)
    engine.close()


@pytest.mark.parametrize(
    "lora",
    [
        None,
        LoRA(groups={"vision": GroupLoRA()}),
        LoRA(groups={"language": GroupLoRA(), "projector": "full"}),
        LoRA(quantize="nf4"),
    ],
)
def test_what_the_engine_would_not_have_is_refused(internvl_folder, lora):
    policy = PolicyModule(adapter_for(internvl_folder), lora=lora)
    with pytest.raises(InputError, match="leave lora_rank out"), policy.policy_weights(True):
        pass


@pytest.mark.parametrize("name", ["LlavaOnevisionForConditionalGeneration", "Phi3VForCausalLM"])
def test_a_family_without_updates_in_vllm_is_refused_before_the_engine_starts(
    tmp_path, internvl_folder, name
):
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    config = json.loads((Path(internvl_folder) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
    with pytest.raises(InputError, match=f"no low-rank updates for {name}"):
        VLLMEngine(InternVL(str(tmp_path)), max_model_len=256, lora_rank=8)
