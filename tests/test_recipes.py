"""The recipes: one file for each row of the paper's tables, and what it differs in."""

import io
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import yaml

from mstar_pl.cli import main
from mstar_pl.commands.bases import with_bases
from mstar_pl.types import InputError

EXPERIMENTS = Path(__file__).parent.parent / "configs/experiments"
SCALE = EXPERIMENTS.parent / "scale"
PRM = {"reward": "ProcessReward", "reward.path": "runs/mprm/mprm"}
ROWS = {
    "continuous": {},
    "continuous_100": {"interval": 100, "max_epochs": 2},
    "continuous_50": {"interval": 50, "max_epochs": 4},
    "continuous_12_5": {"interval": 12.5, "max_epochs": 16},
    "continuous_6_25": {"interval": 6.25, "max_epochs": 32},
    "iterative_rft": {"interval": 100, "max_epochs": 2, "restart_optimizer": True},
    "rest_em": {"interval": 100, "max_epochs": 2, "restart_optimizer": True, "restart_policy": True},
    "random_k": {"selection": "RandomK", "selection.k": 2},
    "prm_threshold": PRM | {"selection": "Threshold", "alpha": 0.5},
    "prm_top1": PRM | {"selection": "TopK", "selection.k": 1},
    "prm_topk": PRM | {"selection": "TopK", "selection.k": 2},
    "prm_top4": PRM | {"selection": "TopK", "selection.k": 4},
    "mstar": PRM | {"selection": "TopK", "selection.k": 2, "metric": "reward_pass"},
    "temperature_by_pass": PRM | {"selection": "TopK", "selection.k": 2, "metric": "pass"},
}
PSEUDO = {"reward": "PseudoAnswerReward", "prompts": "runs/minivista/half.jsonl", "t_mixin": 0}
WEIGHTED = PSEUDO | {
    "inner": "ProcessReward",
    "reward.path": "runs/mprm/mprm",
    "selection": "TopK",
    "selection.k": 2,
}
ROWS |= {
    "unlabelled": WEIGHTED | {"vote": "weighted"},
    **{f"unlabelled_{t}": WEIGHTED | {"vote": "weighted", "t_mixin": t} for t in (25, 50, 75)},
    "unlabelled_oracle_prm": WEIGHTED | {"vote": "oracle"},
    "unlabelled_oracle": PSEUDO | {"inner": "AnswerReward", "vote": "oracle"},
}
MSTAR = ROWS["mstar"]
ROWS |= {
    "mstar_second_chance": MSTAR | {"rounds": 1, "restart": False, "threshold": 0.5},
    "mstar_restart": MSTAR | {"rounds": 1, "restart": True, "threshold": 0.5},
    "mstar_padded": MSTAR | {"min_per_prompt": 2},
    "mstar_hard_labels": MSTAR | {"reward.path": "runs/mprm_hard/mprm"},
    "mstar_refreshed": MSTAR | {"reward.path": "runs/mprm_refreshed/mprm"},
}
OTHERS = {"sft", "mprm"}
PAPER = {"batch_size": 128, "lr": 1e-6, "devices": 8, "freeze.0": "vision", "precision": "bf16-mixed"}
"""What the paper's trainings share, as `settings_of` names it."""
OWNED = ("path", "k", "num_samples", "0")
"""Options that are named with their owner."""


@cache
def settings_of(name, overlay=None):
    """Return what the parser makes of a recipe, by its last name, those of OWNED by their owner, too."""
    configs = ["--config", str(EXPERIMENTS / f"{name}.yaml")]
    configs += ["--config", str(SCALE / f"{overlay}.yaml")] if overlay else []
    printed = io.StringIO()
    with pytest.raises(SystemExit) as leave, redirect_stdout(printed):
        main(["fit", *configs, "--print_config"])
    assert leave.value.code in (0, None), name
    found = {}

    def walk(node, names):
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


def test_each_row_has_its_file_and_each_file_is_a_row():
    assert {path.stem for path in EXPERIMENTS.glob("*.yaml")} == ROWS.keys() | OTHERS


@pytest.mark.parametrize("name", ROWS)
def test_a_row_differs_from_continuous_training_in_what_the_paper_says(name):
    base, found = (settings_of(one) for one in ("continuous", name))
    expected = base | ROWS[name]
    ignored = {"default_root_dir", "aggregate", "dtype", "rules", "seed"}
    ignored |= {"2"}  # the third callback
    ignored |= {"every_n_iterations", "temperatures", "at_start"} & (found.keys() - base.keys())
    differing = {
        key: (found.get(key), expected.get(key))
        for key in (found.keys() | expected.keys()) - ignored
        if found.get(key) != expected.get(key)
    }
    assert not differing
    assert ("AdaptiveTemperature" in found.values()) == ("metric" in ROWS[name])
    assert name == "continuous" or found["default_root_dir"] == f"runs/{name}"


@pytest.mark.parametrize("name", ROWS)
def test_each_row_has_the_values_of_the_paper(name):
    judged = "reward.path" in ROWS[name]
    half = "vote" in ROWS[name]
    overlay = {
        (False, False): "mathv360k",
        (True, False): "mathv360k_prm",
        (True, True): "mathv360k_unlabelled",
        (False, True): "mathv360k_half",
    }[judged, half]
    row, found = settings_of(name), settings_of(name, overlay)
    assert found.items() >= PAPER.items()
    assert found.get("reward.path") == ("runs/mathv360k/mprm/mprm" if judged else None)
    assert found["sampling.num_samples"] == found["validation.num_samples"] == 16
    assert found["temperature"] == 1.0
    for key in (
        "interval",
        "max_epochs",
        "reward",
        "inner",
        "vote",
        "selection",
        "t_mixin",
        "metric",
        "rounds",
    ):
        assert found.get(key) == row.get(key), "the overlay says nothing of what makes the row"
    assert found["prompts"] == f"data/mathv360k/{'half' if half else 'train'}.jsonl"
    assert found["default_root_dir"] == "runs/mathv360k/evolved"
    assert "embedded" not in found.values()


def test_warm_up_and_process_reward_model_at_the_scale_of_the_paper():
    warmup = settings_of("sft", "mathv360k_sft")
    judge = settings_of("mprm", "mathv360k_mprm")
    assert warmup.items() >= (PAPER | {"max_epochs": 1}).items()
    assert judge.items() >= (PAPER | {"lr": 2e-6, "max_epochs": 2, "instruction": None}).items()
    for found in (warmup, judge):
        assert found["lmm.path"] == "models/InternVL3-8B-hf"


def test_overlay_of_a_model_of_the_paper_changes_the_model_alone():
    base, found = (settings_of("mstar", one) for one in ("mathv360k_prm", "internvl2_2b"))
    assert found.items() >= PAPER.items()
    assert {key: value for key, value in found.items() if base.get(key) != value} == {
        "lmm.path": "runs/internvl2_2b/sft/policy",
        "max_patches": 6,
        "micro_batch_size": 4,
        "reward.path": "runs/internvl2_2b/mprm/mprm",
        "default_root_dir": "runs/internvl2_2b/mstar",
    }
    assert base.keys() <= found.keys() | {"processor_options"}


def test_bases_come_before_what_names_them(tmp_path):
    (tmp_path / "low.yaml").write_text("a: 1\nb: 1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/mid.yaml").write_text("base: ../low.yaml\nb: 2\n")
    top = tmp_path / "top.yaml"
    top.write_text("c: 3\nbase: sub/mid.yaml\n")
    low = str(tmp_path / "sub/../low.yaml")
    for given in (["--config", str(top)], [f"--config={top}"], ["-c", str(top)]):
        found = with_bases(["fit", *given, "--x", "1"])
        assert found == ["fit", "--config", low, "--config", "b: 2\n", "--config", "c: 3\n", "--x", "1"]
    plain = ["fit", "--config", str(tmp_path / "low.yaml"), "--config", "missing.yaml", "--config"]
    assert with_bases(plain) == plain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: other.yaml\n", r"top\.yaml: base .*other\.yaml does not exist; the path is relative"),
        ("base: top.yaml\n", r"top\.yaml: is its own base; remove the line"),
    ],
)
def test_a_base_that_leads_nowhere_is_refused(tmp_path, text, message):
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        with_bases(["--config", str(tmp_path / "top.yaml")])


def test_what_is_no_mapping_is_left_to_the_parser(tmp_path):
    for text in ("- 1\n", "a: [\n", "\xff"):
        (tmp_path / "odd.yaml").write_text(text, encoding="latin-1")
        given = ["--config", str(tmp_path / "odd.yaml")]
        assert with_bases(given) == given
