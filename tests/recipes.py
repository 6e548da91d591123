"""What the parser makes of recipes and of the commands in documents."""

import io
import json
import re
import shlex
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml

from mstar_pl.cli import COMMANDS, main

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "configs/experiments"
SCALE = ROOT / "configs/scale"
OWNED = ("path", "k", "num_samples", "0")
"""Options that are named with their owner."""
PROCESSOR_OPTIONS = ("max_patches", "num_crops")


def settings_of(name: str, overlay: str | None = None) -> dict[str, Any]:
    """Return what the parser makes of a recipe, laid under an overlay of the paper's scale."""
    configs = ["--config", str(EXPERIMENTS / f"{name}.yaml")]
    return fit_settings(*configs, *(["--config", str(SCALE / f"{overlay}.yaml")] if overlay else []))


@cache
def fit_settings(*args: str) -> dict[str, Any]:
    """Return what the parser makes of arguments of `fit`: by last name, of OWNED with the owner's."""
    printed = io.StringIO()
    with pytest.raises(SystemExit) as leave, redirect_stdout(printed):
        main(["fit", *args, "--print_config"])
    assert leave.value.code in (0, None), args
    found = {}

    def walk(node: Any, names: tuple[str, ...]) -> None:
        if isinstance(node, (list, dict)):
            for key, value in node.items() if isinstance(node, dict) else enumerate(node):
                walk(value, names if key == "init_args" else (*names, str(key)))
        elif names[-1] == "class_path":
            found["inner" if names[-3:-1] == ("reward", "reward") else names[-2]] = node.rpartition(".")[2]
        else:
            found[".".join(names[-2:] if names[-1] in OWNED else names[-1:])] = node

    out = printed.getvalue()
    walk(yaml.safe_load(out[out.index("seed_everything") :]), ("",))
    return found


def commands_of(path: Path) -> list[list[str]]:
    """Return the commands in the comments of a configuration, from the project's folder."""
    lines = re.findall(r"^#   mstar-pl (.*)$", path.read_text(), re.MULTILINE)
    return [shlex.split(line) for line in lines]


def check_chain(commands: Sequence[Sequence[str]]) -> None:
    """Check that bootstrap, warm-up, labels, process reward model and evolution find each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        explained, warmup, labels, judge, evolved = map(_settings, commands)
    assert warmup["train"] == f"{explained['out']}/train.jsonl"
    assert labels["policy"] == evolved["lmm.path"] == f"{warmup['default_root_dir']}/policy"
    assert [judge["train"], judge["val"]] == [f"{labels['out']}/{split}.jsonl" for split in ("train", "val")]
    assert evolved["reward.path"] == f"{judge['default_root_dir']}/mprm"
    assert explained["prompts"] == labels["prompts"] == evolved["prompts"]
    assert explained["max_tokens"] == labels["max_tokens"] == evolved["max_tokens"]
    assert explained["policy"] == warmup["lmm.path"] == judge["lmm.path"], "the process reward model, too"
    assert warmup["lmm"] == judge["lmm"] == evolved["lmm"]
    images = [{key: one[key] for key in PROCESSOR_OPTIONS if key in one} for one in (warmup, judge, evolved)]
    assert images == [explained["lmm"].get("processor_options", {})] * 3
    assert warmup["question_style"] == evolved["question_style"]
    assert explained["lmm"].get("question_style", "mathvista") == warmup["question_style"]


def _settings(command: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a command: what the parser says for `fit`, else what is given."""
    name, *args = command
    if name == "fit":
        return fit_settings(*args)
    given = dict(zip((one.removeprefix("--") for one in args[::2]), args[1::2], strict=True))
    found = yaml.safe_load(Path(given.pop("config")).read_text()) if "config" in given else {}
    assert found.keys() | given.keys() <= signature(COMMANDS[name]).parameters.keys()
    lmm = {"lmm": json.loads(given.pop("lmm"))} if "lmm" in given else {}
    return {"lmm": {}} | found | {key: yaml.safe_load(value) for key, value in given.items()} | lmm
