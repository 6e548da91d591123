"""The example package, installed alone: its family and its loss term, by class_path only."""

import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from mstar_pl.cli import main
from mstar_pl.data.collate import collate_examples
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.models import LMM, LoRA, adapter_for
from mstar_pl.models.process_reward import ProcessRewardModel, StepReadOut
from mstar_pl.modules import PolicyModule
from mstar_pl.types import Example, InputError, Prompt
from tests.examples.conftest import EXAMPLE


def arguments(recipe, tiny, root):
    """Arguments of a small run of a recipe of the package on the tiny model."""
    paths = ["--config", str(EXAMPLE / recipe), "--model", str(EXAMPLE / "model.yaml")]
    lmm = {"path": tiny, "dtype": "float32", "question_style": "plain"}
    options = [f"--model.init_args.lmm.init_args.{name}={value}" for name, value in lmm.items()]
    options += ["--model.init_args.optimizer.init_args.lr=1e-2", "--data.init_args.batch_size=4"]
    options += ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
    return [*paths, *options, f"--trainer.default_root_dir={root}"]


def prompt_file(folder, prompts):
    return str(write_jsonl(folder / "prompts.jsonl", (prompt.to_json() for prompt in prompts)))


def test_fit_and_evaluate_by_class_path(installed, tiny, train_file, prompts, tmp_path, monkeypatch):
    """Away from the repository: the classes come from the installed package, as does the export's adapter."""
    import mstar_pl_glm4v

    assert mstar_pl_glm4v.__file__ == str(installed / "mstar_pl_glm4v/__init__.py")
    monkeypatch.chdir(tmp_path)
    files = [f"--data.init_args.{split}={train_file}" for split in ("train", "val")]
    assert main(["fit", *arguments("sft.yaml", tiny, tmp_path / "run"), *files]) == 0
    policy = tmp_path / "run/policy"
    saved = json.loads((policy / "mstar_pl.json").read_text())
    assert saved["class_path"] == "mstar_pl_glm4v.adapter.GLM4V"
    assert type(adapter_for(str(policy))) is mstar_pl_glm4v.GLM4V
    used = yaml.safe_load(next((tmp_path / "run").rglob("config.yaml")).read_text())["model"]
    assert used["class_path"] == "mstar_pl_glm4v.ReferencePolicyModule"
    assert used["init_args"]["kl_weight"] == 0.1
    data = prompt_file(tmp_path, prompts[:2])
    evaluate = ["evaluate", "--policy", str(policy), "--data", data, "--engine", "transformers"]
    assert main([*evaluate, "--max_tokens", "4", "--out", str(tmp_path / "results")]) == 0
    results = json.loads((tmp_path / "results/results.json").read_text())
    assert results["settings"]["lmm"]["processor_options"]["size"]["longest_edge"] == 2007040


def test_what_the_generic_adapter_gets_wrong_and_the_overrides_mend(installed, tiny):
    from mstar_pl_glm4v import GLM4V

    generic, lmm = (kind(tiny, question_style="plain", system_prompt="Be exact.") for kind in (LMM, GLM4V))
    with pytest.raises(InputError, match="ends a turn with the text"):
        _ = generic.end_token_id
    assert lmm.tokenizer.decode(lmm.stop_token_ids) == "<|user|><|endoftext|>"
    prompt = Prompt(id="1", question="How many?", images=("a.png",))
    turns = "[gMASK]<sop><|system|>\n{}<|user|>\n<|begin_of_image|><|image|><|end_of_image|>{}<|assistant|>\n"
    assert lmm.render(prompt) == turns.format("Be exact.", "How many?")
    assert "'type': 'text'" in generic.chat("How many?", 1)
    model = lmm.load_model()
    groups = {
        name: (generic.group(model, name), lmm.group(model, name)) for name, _ in model.named_parameters()
    }
    assert {name.split(".")[2] for name, pair in groups.items() if pair[0] != pair[1]} == {
        "merger",
        "downsample",
    }
    assert set(groups.values()) == {("vision", "vision"), ("vision", "projector"), ("language", "language")}


def test_scores_of_a_prompt_without_images_do_not_depend_on_what_came_before(installed, tiny, prompts):
    from mstar_pl_glm4v import GLM4V

    lmm = GLM4V(tiny, question_style="plain")
    model = lmm.load_model()
    judge = ProcessRewardModel(lmm, model, StepReadOut(lmm, model, "token"))
    text, steps = Prompt(id="t", question="What is 2 + 2"), [["2 + 2 = 4.", "# Answer\n\n4"]]
    first = judge.score(text, steps)
    judge.score(prompts[4], steps)
    assert judge.score(text, steps) == first


@pytest.fixture
def module(installed, tiny):
    """A module with updates that change something."""
    from mstar_pl_glm4v import GLM4V, ReferencePolicyModule

    policy = ReferencePolicyModule(GLM4V(tiny, question_style="plain"), kl_weight=0.3, lora=LoRA(rank=2))
    policy.model = policy.lora.apply(policy.lmm, policy.lmm.load_model())
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    return policy


def test_the_term_is_the_divergence_from_the_model_without_updates(module, examples):
    batch = collate_examples(module.lmm, examples[:3])
    plain = PolicyModule(module.lmm)
    plain.model = module.lmm.load_model()
    with torch.no_grad():
        logits_NV, labels_N = module.token_logits(batch)
        losses_N = module.training_losses(logits_NV, labels_N, batch)
        policy_NV, reference_NV = (
            one.double().softmax(-1) for one in (logits_NV, plain.token_logits(batch)[0])
        )
    divergence_N = (policy_NV * (policy_NV / reference_NV).log()).sum(-1)
    assert divergence_N.min() > 1e-3
    cross_entropy_N = -policy_NV[torch.arange(len(labels_N)), labels_N].log()
    torch.testing.assert_close(losses_N.double(), cross_entropy_N + 0.3 * divergence_N, rtol=1e-4, atol=1e-5)


def test_more_weight_keeps_the_policy_nearer(installed, tiny, train_file, examples, tmp_path):
    from mstar_pl_glm4v import GLM4V, ReferencePolicyModule

    moved = []
    for weight in (0.0, 10.0):
        policy = ReferencePolicyModule(
            GLM4V(tiny, question_style="plain"),
            kl_weight=weight,
            lora=LoRA(rank=2),
            optimizer=lambda params: torch.optim.AdamW(params, lr=1e-2),
        )
        trainer = Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
        )
        trainer.fit(policy, PolicyDataModule(train=train_file, batch_size=2, micro_batch_size=2))
        moved.append(float(trainer.callback_metrics["train/kl"]))
    assert moved[1] < moved[0] / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, r"needs model\.lora"), ({"lora": LoRA(), "kl_weight": -1.0}, "give 0 or more")],
)
def test_contradictions_are_refused(installed, tiny, options, message):
    from mstar_pl_glm4v import GLM4V, ReferencePolicyModule

    with pytest.raises(InputError, match=message):
        ReferencePolicyModule(GLM4V(tiny), **options)


class WithHead(LoRA):
    """Low-rank updates, and the head itself."""

    def apply(self, *args, **options):
        tuned = super().apply(*args, **options)
        tuned.get_output_embeddings().weight.requires_grad_(True)
        return tuned


def test_a_reference_that_would_move_is_refused(installed, tiny, train_file, tmp_path):
    from mstar_pl_glm4v import GLM4V, ReferencePolicyModule

    policy = ReferencePolicyModule(GLM4V(tiny), lora=WithHead(rank=2))
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", max_epochs=1, logger=False)
    with pytest.raises(InputError, match=r"lm_head\.weight is trained itself"):
        trainer.fit(policy, PolicyDataModule(train=train_file))


@pytest.mark.engine
def test_an_iteration_of_self_evolution_from_elsewhere(installed, tiny, prompts, tmp_path):
    """In a process of its own, with the real engine; the first sync compares responses token by token."""
    rows = [Example(prompt=prompt, response="# Answer\n\n4").to_json() for prompt in prompts * 6]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    warm_up = [*arguments("sft.yaml", tiny, tmp_path / "sft"), "--trainer.max_epochs=2"]
    assert main(["fit", *warm_up, *(f"--data.init_args.{split}={train}" for split in ("train", "val"))]) == 0
    data = prompt_file(tmp_path, prompts)
    options = [f"--data.init_args.{name}={data}" for name in ("prompts", "val_prompts")]
    options += ["--data.init_args.interval=100"]
    evolution = "--trainer.evolution.init_args"
    options += [f"{evolution}.engine.init_args.max_model_len=512", f"{evolution}.sampling.max_tokens=16"]
    options += [f"{evolution}.sampling.temperature=0.3"]
    evolve = arguments("evolve.yaml", str(tmp_path / "sft/policy"), tmp_path / "run")
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = subprocess.run(
        [sys.executable, "-m", "mstar_pl", "fit", *evolve, *options],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    manifest = json.loads((tmp_path / "run/rollouts/iteration-0000/manifest.json").read_text())
    assert manifest["metrics"]["reward/pass@1"] > 0.1
    assert manifest["metrics"]["reward/selected"] > 4
    assert type(adapter_for(str(tmp_path / "run/policy"))).__module__ == "mstar_pl_glm4v.adapter"
