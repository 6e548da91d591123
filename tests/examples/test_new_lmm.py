"""What docs/new_lmm.md says can be run, and says the truth."""

import json
import re
import shlex
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
import torch

from mstar_pl.cli import main
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.models import LMM, InternVL, adapter_for
from mstar_pl.parity import CHECKS
from tests.examples.conftest import EXAMPLE
from tests.recipes import fit_settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/new_lmm.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
QUOTED = re.compile(r"# (\w+\.py)\n")

SMALL = {
    "check-lmm": ["--engine", "none"],
    "fit": [
        *(f"--model.init_args.lmm.init_args.{one}" for one in ("path=runs/glm4v-tiny", "dtype=float32")),
        *(
            "--data.init_args.batch_size=4",
            "--trainer.accelerator=cpu",
            "--trainer.enable_progress_bar=false",
        ),
    ],
    "evaluate": ["--engine", "transformers", "--max_tokens", "4", "--limit", "2"],
}
"""What makes a command of the document small enough for a test."""


def blocks(language):
    return [text for kind, text in BLOCKS if kind == language]


@pytest.fixture(scope="module")
def workplace(installed, published, train_file, prompts, tmp_path_factory):
    """A folder with what the document takes for granted."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("models", "data", "runs"):
        (folder / name).mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "models/GLM-4.1V-9B-Thinking").symlink_to(published)
    for name in ("train", "val"):
        (folder / f"data/{name}.jsonl").symlink_to(train_file)
    write_jsonl(folder / "data/test.jsonl", (prompt.to_json() for prompt in prompts))
    return folder


def test_commands_run_in_their_order(workplace, monkeypatch, capsys):
    from mstar_pl_glm4v.tiny import shrink

    monkeypatch.chdir(workplace)
    commands = [shlex.split(line) for text in blocks("bash") for line in text.splitlines()]
    outcomes = {}
    for command in commands:
        if command[:3] == ["python", "-m", "mstar_pl_glm4v.tiny"]:
            shrink(*command[3:])
        elif command[0] == "mstar-pl":
            capsys.readouterr()
            code = main([*command[1:], *SMALL[command[1]]])
            outcomes.setdefault(command[1], []).append((code, capsys.readouterr()))
        else:
            assert command == ["pip", "install", "examples/mstar_pl_glm4v"]  # the fixture did
    assert {name: [code for code, _ in found] for name, found in outcomes.items()} == {
        "check-lmm": [2, 0],
        "fit": [0],
        "evaluate": [0],
    }
    assert outcomes["check-lmm"][0][1].err.splitlines()[-1] == blocks("text")[0].strip()
    assert "failed" not in outcomes["check-lmm"][1][1].out


def test_snippets_are_the_example_or_run():
    names = {}
    for text in blocks("python"):
        if quoted := QUOTED.match(text):
            assert text[quoted.end() :] in (EXAMPLE / EXAMPLE.name / quoted[1]).read_text()
        else:
            exec(text, names)
    module = names["ZLossModule"](InternVL(), z_weight=0.5)
    logits_NV, labels_N = torch.randn(3, 7), torch.tensor([1, 2, 6])
    plain_N = -logits_NV.log_softmax(-1)[torch.arange(3), labels_N]
    losses_N = module.training_losses(logits_NV, labels_N, {})
    torch.testing.assert_close(losses_N, plain_N + 0.5 * logits_NV.exp().sum(-1).log() ** 2)


def test_the_model_files_and_the_adapter_file_are_understood(workplace, tiny, monkeypatch, tmp_path):
    import mstar_pl_glm4v

    monkeypatch.chdir(workplace)
    for recipe, text in zip(("sft", "mprm"), blocks("yaml"), strict=True):
        file = tmp_path / "model.yaml"
        file.write_text(text)
        found = fit_settings(
            *("--config", str(ROOT / f"configs/experiments/{recipe}.yaml"), "--model", str(file)),
            f"--model.init_args.lmm.init_args.path={tiny}",
        )
        module = {"sft": "ReferencePolicyModule", "mprm": "ProcessRewardModule"}[recipe]
        assert found.items() >= {"model": module, "lmm": "GLM4V", "instruction": None}.items()
        assert recipe == "sft" or found.items() >= {"lr": 2e-6, "freeze.0": "vision"}.items()
    base = tmp_path / "base"
    base.mkdir()
    for file in Path(tiny).iterdir():
        (base / file.name).symlink_to(file)
    (base / "mstar_pl.json").write_text(blocks("json")[0])
    assert type(adapter_for(str(base))) is mstar_pl_glm4v.GLM4V
    assert json.loads(blocks("json")[0])["init_args"].keys() <= adapter_for(str(base)).options.keys()


def test_names_and_links_lead_somewhere():
    for name in re.findall(r"`LMM\.(\w+)", TEXT):
        assert hasattr(LMM, name), name
    for check in re.findall(r'check "([\w -]+)"', TEXT):
        assert check in {one.name for one in CHECKS}
    table = blocks("text")[1].splitlines()[2:]
    assert [row.split("|")[1].strip() for row in table] == [one.name for one in CHECKS]
    for path in re.findall(r"`((?:examples|mstar_pl|configs)/[\w/.]+)`", TEXT):
        assert (ROOT / path).exists(), path
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    [(group, _)] = tomllib.loads(blocks("toml")[0])["project"]["entry-points"].items()
    assert group in setup["options.entry_points"]
