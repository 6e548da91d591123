"""Low-rank updates group by group, in 4 bits, and what engines and exports get of them."""

import re
import sys

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from mstar_pl.data.collate import collate_examples
from mstar_pl.models import GROUPS, GroupLoRA, InternVL, LoRA, adapter_for
from mstar_pl.models.export import export_policy
from mstar_pl.models.lora import merged_weights
from mstar_pl.types import InputError

MIXED = {
    "language": GroupLoRA(targets=["q_proj", "v_proj"]),
    "vision": GroupLoRA(rank=3),
    "projector": "full",
}


class WithUnusedHead(InternVL):
    """An adapter whose tower ends in layers that no loss reaches."""

    never_used = r"vision_tower\.encoder\.layer\.1\.|projector\.linear_2\.bias"


def perturb(model):
    """Change all that is trained, as training would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=0.1)


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def assert_merges_without_trace(lmm, tuned, batch):
    """The merged weights, in a model of their own, answer as the tuned model; which is as before."""
    before = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    with torch.no_grad():
        expected = tuned(**batch).logits
        with merged_weights(tuned) as state:
            merged = lmm.load_model()
            merged.load_state_dict(state)
            assert len(state) == len({*state}) == len(merged.state_dict())
        assert (tuned(**batch).logits - expected).abs().max() == 0
    torch.testing.assert_close(merged(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tuned.state_dict().items())


@pytest.mark.parametrize(
    "groups",
    [None, *({group: GroupLoRA()} for group in GROUPS), MIXED],
    ids=["default", *GROUPS, "mixed"],
)
def test_each_group_merges_without_trace_and_is_exported(family_folder, examples, tmp_path, groups):
    lmm = adapter_for(family_folder)
    batch = collate_examples(lmm, examples[:2])
    tuned = LoRA(rank=2, groups=groups).apply(lmm, lmm.load_model())
    perturb(tuned)
    assert_merges_without_trace(lmm, tuned, batch)
    with torch.no_grad():
        again = AutoModelForImageTextToText.from_pretrained(export_policy(lmm, tuned, tmp_path / "policy"))
        assert (again(**batch).logits - lmm.load_model()(**batch).logits).abs().max() > 1e-3
        torch.testing.assert_close(again(**batch).logits, tuned(**batch).logits, rtol=1e-4, atol=1e-4)


def test_each_group_has_its_own_layers_rank_and_scale(family_folder):
    lmm = adapter_for(family_folder)
    groups = {"language": GroupLoRA(targets=["q_proj", "v_proj"]), "vision": GroupLoRA(rank=3, alpha=6)}
    tuned = LoRA(rank=2, alpha=8, groups=groups | {"projector": "full"}).apply(lmm, lmm.load_model())
    plain = tuned.get_base_model()
    layers = {name: module for name, module in plain.named_modules() if hasattr(module, "lora_A")}
    found = {
        (lmm.group(plain, f"{name}.weight"), module.r["default"], module.scaling["default"])
        for name, module in layers.items()
    }
    assert found == {("language", 2, 4.0), ("vision", 3, 2.0)}
    language = {name for name in layers if lmm.group(plain, f"{name}.weight") == "language"}
    assert {name.rpartition(".")[2] for name in language} == {"q_proj", "v_proj"}
    assert {name for name in trained(plain) if "lora_" not in name} == {
        name for name, _ in plain.named_parameters() if lmm.group(plain, name) == "projector"
    }


def test_what_no_loss_reaches_has_no_update_and_is_not_trained(internvl_folder, examples):
    lmm = WithUnusedHead(internvl_folder)
    groups = {"vision": GroupLoRA(), "projector": "full"}
    tuned = LoRA(rank=2, groups=groups).apply(lmm, lmm.load_model())
    assert not [name for name in trained(tuned) if re.search(lmm.never_used, name)]
    assert any("vision_tower.encoder.layer.0." in name for name in trained(tuned))


def test_layers_that_pytorch_reads_but_never_calls_are_no_targets(internvl_folder):
    """The output layer of its multi-head attention: an update of it would be ignored without a word."""
    lmm = adapter_for(internvl_folder)
    model = lmm.load_model()
    model.model.multi_modal_projector.pool = nn.MultiheadAttention(64, 2)
    assert not [name for name in lmm.lora_targets(model, "projector") if "pool" in name]


def test_a_group_without_linear_layers_is_refused(internvl_folder):
    lmm = adapter_for(internvl_folder)
    model = lmm.load_model()
    for name in ("linear_1", "linear_2"):
        setattr(model.model.multi_modal_projector, name, nn.Identity())
    with pytest.raises(InputError, match=r"the projector of .* no linear layer; set projector: full"):
        LoRA(groups={"projector": GroupLoRA()}).apply(lmm, model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"targets": ["q_proj"], "groups": {"language": GroupLoRA()}},
            r"write targets into them: language: \{targets",
        ),
        ({"groups": {"projector": "full"}}, "no group low-rank updates; name one"),
        ({"groups": {}}, "no group low-rank updates"),
        ({"groups": {"speech": GroupLoRA()}}, "unknown parameter group 'speech'; known are vision"),
        ({"groups": {"vision": GroupLoRA(rank=0)}}, "rank must be at least 1"),
        ({"groups": {"vision": GroupLoRA(alpha=0)}}, "alpha must be at least 1"),
        ({"dropout": 1.0}, "dropout is 1; give a share"),
        ({"targets": []}, "targets is empty"),
    ],
)
def test_contradictions_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LoRA(**options)


def test_a_target_that_is_no_layer_of_its_group_is_refused(family_folder):
    lmm = adapter_for(family_folder)
    with pytest.raises(InputError, match="language has no linear layer 'qkv'; it has down_proj, "):
        LoRA(targets=["q_proj", "qkv"]).apply(lmm, lmm.load_model())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_in_4_bits_are_merged_and_exported_in_full(family_folder, examples, tmp_path, dtype):
    """The engine gets what the tuned model computes with: the rounded weights, their updates added."""
    lmm = adapter_for(family_folder, dtype=dtype)
    batch = collate_examples(lmm, examples[:2])
    model = lmm.load_model()
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tuned = LoRA(rank=2, groups=MIXED, quantize="nf4").apply(lmm, model)
    assert {one.dtype for one in tuned.parameters()} >= {torch.uint8, getattr(torch, dtype)}
    perturb(tuned)
    tuned(**batch).loss.backward()
    assert all(tuned.get_parameter(name).grad.abs().sum() > 0 for name in trained(tuned) if "lora_" in name)
    if dtype == "float32":
        assert_merges_without_trace(lmm, tuned, batch)
    exported = AutoModelForImageTextToText.from_pretrained(export_policy(lmm, tuned, tmp_path), dtype="auto")
    assert not hasattr(exported.config, "quantization_config")
    with merged_weights(tuned) as state:
        assert all(torch.equal(tensor, state[name]) for name, tensor in exported.state_dict().items())
        assert {tensor.dtype for tensor in state.values()} == {getattr(torch, dtype)}
    kept = [name for name in initial if torch.equal(initial[name], exported.state_dict()[name])]
    assert "lm_head.weight" in kept
    assert not [name for name in kept if ".q_proj.weight" in name]


def test_without_bitsandbytes_4_bits_are_refused(internvl_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.delitem(sys.modules, "mstar_pl.models.quantized", raising=False)
    lmm = adapter_for(internvl_folder)
    with pytest.raises(InputError, match=r"pip install .mstar_pl\[qlora\]"):
        LoRA(quantize="nf4").apply(lmm, lmm.load_model())
