"""Published models: they load without this package, the card parses, and what is not whole is refused."""

import json
import re
import shutil
import textwrap

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from mstar_pl.cli import main
from mstar_pl.data.collate import collate_examples
from mstar_pl.data.jsonl import write_json
from mstar_pl.data.recipe import find_recipe
from mstar_pl.models import adapter_for
from mstar_pl.models.export import export_policy, export_process_reward
from mstar_pl.models.process_reward import HEAD_FILE, ProcessRewardModel, StepReadOut
from mstar_pl.models.publish import publish_model
from mstar_pl.types import InputError
from tests.evaluation.test_comparison import evaluated

CONFIG = {
    "seed_everything": 7,
    "model": {"class_path": "PolicyModule"},
    "data": {"class_path": "PolicyDataModule", "init_args": {"train": "my``train.jsonl", "seed": 3}},
    "trainer": {"evolution": {"init_args": {"sampling": {"seed": 5, "temperature": 1.0}}}},
}


@pytest.fixture
def run(internvl_folder, tmp_path):
    """What a training leaves: a policy and its configuration."""
    lmm = adapter_for(internvl_folder, question_style="plain")
    export_policy(lmm, lmm.load_model(), tmp_path / "run/policy", "Base: `x`.")
    log = tmp_path / "run/lightning_logs/version_0"
    log.mkdir(parents=True)
    (log / "config.yaml").write_text("# lightning.pytorch==2.6.6\n" + yaml.safe_dump(CONFIG))
    return tmp_path / "run"


def test_published_policy_loads_and_its_card_tells_all(run, examples, tmp_path):
    evaluated(tmp_path / "results/a", "1110" * 100, benchmark="mathvista", rules="official")
    evaluated(tmp_path / "results/b", "10" * 100, benchmark="ai2d", rules="ai2d")
    out = tmp_path / "mine: *a* | <b>"
    arguments = ["--source", run / "policy", "--out", out, "--results", tmp_path / "results"]
    given = ["--base-model", "org/base", "--license", "mit", "--datasets", '["org/data"]']
    assert main(["export", "model", *map(str, arguments), *given]) == 0
    card = ModelCard.load(out / "README.md")
    assert (card.data.license, card.data.base_model, card.data.datasets) == ("mit", "org/base", ["org/data"])
    assert card.data.library_name == "transformers"
    assert card.data.model_name == out.name
    values = {one.dataset_type: one.metric_value for one in card.data.eval_results}
    assert values == {"mathvista": 75.0, "ai2d": 50.0}
    for line in (
        "Base: `x`.",
        "- `seed_everything`: `7`",
        "- `data.init_args.seed`: `3`",
        "- `trainer.evolution.init_args.sampling.seed`: `5`",
        "- `data.init_args.train`: ```my``train.jsonl```",
        "- `lightning.pytorch`: `2.6.6`",
        "vllm serve",
    ):
        assert line in card.text
    assert "75.0 (" in card.text
    assert "<b>" not in card.text
    assert r"| mine\: \*a\* \| &lt;b&gt; | 75.0 (" in card.text, "a name stays in its cell"
    assert yaml.safe_load((out / "recipe.yaml").read_text()) == CONFIG
    assert adapter_for(str(out)).options["question_style"] == "plain"
    batch = collate_examples(adapter_for(str(run / "policy")), examples[:2])
    first, second = (AutoModelForImageTextToText.from_pretrained(one) for one in (run / "policy", out))
    with torch.no_grad():
        assert torch.equal(first(**batch).logits, second(**batch).logits)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_code_of_the_card_runs(run, picture_folder, capsys):
    (code,) = re.findall(
        r"## How to use it\n\n(.*?)\n\n`vllm", (run / "policy/README.md").read_text(), re.DOTALL
    )
    given = {"FOLDER": str(run / "policy"), "picture.png": str(picture_folder / "0.png"), "=512": "=2"}
    for name, value in given.items():
        code = code.replace(name, value)
    exec(textwrap.dedent(code), {})
    assert "How many trees?" in capsys.readouterr().out, "the prompt, then the response"


def test_card_of_a_judge_has_its_scores_on_labelled_steps(run, internvl_folder, tmp_path):
    lmm = adapter_for(internvl_folder)
    model = lmm.load_model()
    source = export_process_reward(lmm, model, StepReadOut(lmm, model), run / "mprm")
    scores = {"all": {"macro_f1": 0.625, "num": 8}, "MathVerse": {"macro_f1": 0.5, "num": 3}}
    named = {"benchmark": "visualprocessbench", "rules": "threshold", "scores": scores, "settings": {}}
    (tmp_path / "results/visualprocessbench").mkdir(parents=True)
    write_json(tmp_path / "results/visualprocessbench/results.json", named)
    arguments = ["--source", source, "--out", tmp_path / "out", "--results", tmp_path / "results"]
    assert main(["export", "model", *map(str, arguments)]) == 0
    card = ModelCard.load(tmp_path / "out/README.md")
    (listed,) = card.data.eval_results
    assert (listed.dataset_type, listed.metric_type, listed.metric_value) == (
        "visualprocessbench",
        "macro_f1",
        62.5,
    )
    assert "| MathVerse | 50.0 " in card.text


def test_what_results_name_stays_text_in_the_card(run, tmp_path):
    """Names of benchmarks, groups and rules, settings in notes; scores of answers and of steps together."""
    evil = "<b>*x*</b> [a](b)"
    evaluated(tmp_path / "results/a", "10", benchmark=evil, rules=evil, limit=evil)
    scores = {"all": {"f1": 0.5, "num": 8}, evil: {"f1": 0.5, "num": 3}}
    named = {"benchmark": evil, "rules": evil, "scores": scores, "settings": {}}
    (tmp_path / "results/b").mkdir()
    write_json(tmp_path / "results/b/results.json", named)
    arguments = ["--source", run / "policy", "--out", tmp_path / "out", "--results", tmp_path / "results"]
    assert main(["export", "model", *map(str, arguments)]) == 0
    card = ModelCard.load(tmp_path / "out/README.md")
    assert "<b>" not in card.text
    assert card.text.count(r"&lt;b&gt;\*x\*&lt;/b&gt; \[a\]\(b\)") == 7
    assert {one.metric_type for one in card.data.eval_results} == {"accuracy", "f1"}


def test_published_judge_scores_as_before(run, internvl_folder, prompts, tmp_path):
    lmm = adapter_for(internvl_folder, question_style="plain")
    model = lmm.load_model()
    source = export_process_reward(lmm, model, StepReadOut(lmm, model, "head"), tmp_path / "run/mprm")
    out = publish_model(source, tmp_path / "out", find_recipe(run), {})
    steps = [["4 red.", "# Answer\n\n4"]]
    scores = [ProcessRewardModel.load(str(one)).score(prompts[0], steps) for one in (source, out)]
    assert scores[0] == scores[1]
    card = ModelCard.load(out / "README.md")
    assert "process-reward-model" in card.data.tags
    assert card.text.count("How to score with it") == 1
    assert card.data.license is None, "a licence is never guessed"
    (source / HEAD_FILE).unlink()
    with pytest.raises(InputError, match=HEAD_FILE):
        publish_model(source, tmp_path / "again", find_recipe(run), {})


def weights_without_a_layer(state):
    return {name: weight for name, weight in state.items() if "layers.0.mlp.down" not in name}


def weights_with_a_nan(state):
    return state | {name: weight * torch.nan for name, weight in state.items() if "norm" in name}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (weights_without_a_layer, r"1 faulty weights \(.*down_proj.weight is missing\)"),
        (weights_with_a_nan, "is not finite"),
        ("cut", "cannot be loaded"),
        ("gone", "cannot be loaded"),
        ("mstar_pl.json", "not what a training exported"),
        ("README.md", "not what a training exported"),
        ("config.json", "not what a training exported"),
        ("exists", "exists; remove it, or give another folder"),
        ("recipe", "is no configuration"),
        ("row", "is no configuration with model, data, trainer"),
    ],
)
def test_what_is_not_whole_is_refused_and_nothing_is_left(run, tmp_path, harm, message):
    source, out, recipe = run / "policy", tmp_path / "out", find_recipe(run)
    file = source / "model.safetensors"
    if callable(harm):
        save_file(harm(load_file(file)), file, metadata={"format": "pt"})
    elif harm == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif harm == "gone":
        file.unlink()
    elif harm.endswith((".json", ".md")):
        (source / harm).unlink()
    elif harm == "exists":
        shutil.copytree(source, out)
    elif harm == "recipe":
        recipe.write_text("- a list\n")
    elif harm == "row":
        recipe.write_text('{"id": "1", "response": "4"}\n')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        publish_model(source, out, recipe, {})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_shard_that_the_index_names_is_missed(run, tmp_path):
    source = run / "policy"
    model = AutoModelForImageTextToText.from_pretrained(source)
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="2MB")
    shards = json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]
    assert publish_model(source, tmp_path / "whole", find_recipe(run), {}).is_dir()
    (source / sorted(set(shards.values()))[1]).unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        publish_model(source, tmp_path / "out", find_recipe(run), {})


def test_without_a_recipe_it_is_asked_for(run, tmp_path, capsys):
    shutil.rmtree(run / "lightning_logs")
    assert main(["export", "model", "--source", str(run / "policy"), "--out", str(tmp_path / "out")]) == 2
    assert "give it as --recipe" in capsys.readouterr().err


def test_the_recipe_is_that_of_the_last_start_whenever_it_was_copied(run):
    for version in ("10", "9"):
        log = run / f"lightning_logs/version_{version}"
        log.mkdir()
        shutil.copyfile(run / "lightning_logs/version_0/config.yaml", log / "config.yaml")
    assert find_recipe(run).parent.name == "version_10"
    shutil.copyfile(find_recipe(run), run / "config.yaml")
    with pytest.raises(InputError, match=r"version_10/config.yaml and .*/run/config.yaml; give it"):
        find_recipe(run)
