"""Training group by group: learning rates, updates beside full weights, what is never used, resumption."""

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mstar_pl.data.collate import collate_examples
from mstar_pl.models import GroupLoRA, InternVL, LoRA, adapter_for
from mstar_pl.modules import PolicyModule, ProcessRewardModule
from mstar_pl.types import InputError
from tests.modules.training import Killed, StopAfter, assert_same, run, sgd, state

RATES = {"vision": 0.05, "projector": 0.2}
MIXED = LoRA(
    rank=2, dropout=0.1, groups={"language": GroupLoRA(), "vision": GroupLoRA(), "projector": "full"}
)
ONE_STEP = {"batch_size": 24, "micro_batch_size": 4}


def group_of(policy, name):
    return policy.lmm.group(policy.model, name)


def moves(policy):
    """By how much each parameter has moved."""
    return {
        name: policy.model.get_parameter(name).detach() - before
        for name, before in policy.lmm.load_model().named_parameters()
    }


def test_each_group_moves_by_its_own_rate(internvl_folder, train_file, tmp_path):
    """One step of plain gradient descent, whose moves are proportional to the rates."""
    runs = [
        run(
            internvl_folder,
            tmp_path / str(len(rates)),
            train_file,
            data=ONE_STEP,
            module={"optimizer": sgd, "learning_rates": rates, "lr_scheduler": None},
            max_epochs=1,
        )
        for rates in ({}, RATES)
    ]
    alike, own = (moves(policy) for policy, _ in runs)
    factors = {"vision": 0.5, "projector": 2.0, "language": 1.0}
    for name, move in own.items():
        torch.testing.assert_close(
            move, alike[name] * factors[group_of(runs[0][0], name)], rtol=1e-3, atol=1e-6
        )
    rates = {group["name"]: group["lr"] for group in runs[1][1].optimizers[0].param_groups}
    assert rates == RATES | {"language": 0.1}


def test_updates_move_beside_a_projector_trained_in_full(internvl_folder, train_file, tmp_path):
    module = {"lora": MIXED, "learning_rates": {"projector": 1e-2}}
    policy, trainer = run(internvl_folder, tmp_path, train_file, data=ONE_STEP, module=module, max_epochs=1)
    initial = policy.lmm.load_model().state_dict()
    with policy.policy_weights() as weights:
        moved = {name for name, weight in weights.items() if not torch.equal(weight, initial[name])}
    plain = policy.lmm.load_model()
    layers = {
        f"{one}.weight" for group in ("language", "vision") for one in policy.lmm.lora_targets(plain, group)
    }
    projector = {name for name in initial if policy.lmm.group(plain, name) == "projector"}
    assert moved == layers | projector
    count = {group["name"]: len(group["params"]) for group in trainer.optimizers[0].param_groups}
    assert count["projector"] == len(projector)
    assert sum(count.values()) == len(projector) + 2 * len(layers)


def test_resumed_run_of_groups_equals_the_uninterrupted_one(internvl_folder, train_file, tmp_path):
    module = {"lora": MIXED, "learning_rates": {"projector": 1e-2, "vision": 3e-3}}

    def fit(name, **options):
        return run(internvl_folder, tmp_path / name, train_file, module=module, max_epochs=1, **options)

    whole = state(*fit("whole"))
    assert len({*whole[3]}) == 3, "a rate for each group"
    with pytest.raises(Killed):
        fit("stopped", callback=StopAfter(every_n_steps=3))
    assert_same(state(*fit("stopped", ckpt_path="last")), whole)


@pytest.mark.parametrize("module", [{"lora": MIXED}, {"freeze": ["vision"]}])
def test_a_restart_brings_back_the_initial_weights(internvl_folder, train_file, tmp_path, module):
    policy, _ = run(internvl_folder, tmp_path, train_file, data=ONE_STEP, module=module, max_epochs=1)
    policy.restart_policy()
    initial = policy.lmm.load_model().state_dict()
    with policy.policy_weights() as weights:
        assert all(torch.equal(weight, initial[name]) for name, weight in weights.items())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ({"learning_rates": {"vision": 1e-6}, "freeze": ["vision"]}, "vision is not trained"),
        ({"learning_rates": {"projector": 1e-6}, "lora": LoRA()}, "projector is not trained"),
        ({"learning_rates": {"speech": 1e-6}}, "unknown parameter group 'speech'"),
        ({"learning_rates": {"language": -1e-6}}, "language must be above 0"),
        ({"lora": MIXED, "freeze": ["vision"]}, r"remove model\.freeze"),
    ],
)
def test_rates_of_what_is_not_trained_are_refused(internvl_folder, module, message):
    for kind in (PolicyModule, ProcessRewardModule):
        with pytest.raises(InputError, match=message):
            kind(adapter_for(internvl_folder), **module)


@pytest.mark.parametrize("kind", ["token", "head"])
def test_a_read_out_of_its_own_leaves_the_vocabulary_untrained(qwen_folder, kind):
    lmm = adapter_for(qwen_folder)
    judge = ProcessRewardModule(lmm, read_out=kind, learning_rates={"language": 1e-5})
    judge.trainer = Trainer(accelerator="cpu", barebones=True)
    judge.configure_model()
    assert judge.model.lm_head.weight.requires_grad == (kind == "token")
    groups = {group["name"]: group for group in judge.configure_optimizers().param_groups}
    assert groups.keys() == {"projector", "language"}
    assert {*judge.read_out.parameters()} <= {*groups["language"]["params"]}


def test_a_vocabulary_that_is_the_input_embedding_too_is_trained(internvl_folder):
    judge = ProcessRewardModule(adapter_for(internvl_folder), read_out="head")
    judge.trainer = Trainer(accelerator="cpu", barebones=True)
    judge.configure_model()
    assert judge.model.lm_head.weight is judge.model.get_input_embeddings().weight
    assert judge.model.lm_head.weight.requires_grad


class WithUnusedPart(InternVL):
    """A model with a part that no loss reaches, as the pooling heads of some vision towers."""

    never_used = r"\.pooling\."

    def load_model(self, device="cpu"):
        model = super().load_model(device)
        model.model.vision_tower.pooling = nn.Linear(64, 64)
        return model


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "module",
    [{}, {"lora": LoRA(rank=2, groups={"vision": GroupLoRA()})}, {"learning_rates": {"vision": 1e-3}}],
)
def test_what_is_never_used_is_neither_stepped_nor_awaited(
    internvl_folder, examples, process_group, module, tmp_path
):
    """DDP waits for the gradient of each parameter that it was given, and ends in the next step."""
    policy = PolicyModule(WithUnusedPart(internvl_folder, question_style="plain"), **module)
    policy.trainer = Trainer(accelerator="cpu", barebones=True)
    policy.configure_model()
    assert not [name for name, one in policy.named_parameters() if "pooling" in name and one.requires_grad]
    unused = {one for name, one in policy.named_parameters() if "pooling" in name}
    assert unused
    optimizer = policy.configure_optimizers()
    stepped = {one for group in optimizer.param_groups for one in group["params"]}
    assert stepped == {one for one in policy.parameters() if one.requires_grad}
    replica = DistributedDataParallel(policy.model)
    batch = collate_examples(policy.lmm, examples[:2])
    for _ in range(2):
        replica(**batch, use_cache=False).loss.backward()
    assert all(one.grad is not None for one in stepped)


def test_a_run_in_4_bits_goes_on_from_a_checkpoint_without_the_frozen_weights(
    internvl_folder, train_file, tmp_path
):
    module = {"lora": LoRA(rank=2, quantize="nf4")}
    policy, trainer = run(internvl_folder, tmp_path / "whole", train_file, module=module)
    whole = state(policy, trainer)
    root = tmp_path / "stopped"
    with pytest.raises(Killed):
        run(internvl_folder, root, train_file, module=module, callback=StopAfter(every_n_steps=3))
    saved = torch.load(root / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in saved if "q_proj.base_layer.weight" in name]
    assert any("q_proj.lora_A" in name for name in saved)
    assert_same(state(*run(internvl_folder, root, train_file, ckpt_path="last", module=module)), whole)
    policy.restart_policy()
    with policy.policy_weights() as weights:
        assert weights.keys() == policy.lmm.load_model().state_dict().keys()
