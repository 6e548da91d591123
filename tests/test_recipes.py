"""The recipes: one file for each row of the paper's tables, and what it differs in."""

import pytest

from mstar_pl.commands.bases import with_bases
from mstar_pl.types import InputError
from tests.recipes import EXPERIMENTS, SCALE, check_chain, commands_of, settings_of

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


def test_the_row_with_phi_3_5_vision_differs_in_the_model_alone():
    base, found = (settings_of("mstar", one) for one in ("mathv360k_prm", "phi_3_5_vision"))
    assert found.items() >= PAPER.items()
    assert {key: value for key, value in found.items() if base.get(key) != value} == {
        "lmm": "Phi3V",
        "lmm.path": "runs/phi_3_5_vision/sft/policy",
        "num_crops": 4,
        "reward.path": "runs/phi_3_5_vision/mprm/mprm",
        "default_root_dir": "runs/phi_3_5_vision/mstar",
    }
    assert base.keys() <= found.keys() | {"max_patches"}


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
        "micro_batch_size": 4,
        "reward.path": "runs/internvl2_2b/mprm/mprm",
        "default_root_dir": "runs/internvl2_2b/mstar",
    }
    assert base.keys() <= found.keys()


@pytest.mark.parametrize(
    "overlays",
    [
        ("internvl2_2b",),
        ("phi_3_5_vision",),
        ("minicpm_llama3_v_2_5",),
        ("mathv360k_prm", "mathv360k_sft", "mathv360k_mprm"),
    ],
    ids=lambda overlays: overlays[0],
)
def test_commands_of_an_overlay_lead_to_it(overlays):
    evolve, *before = (one for name in overlays for one in commands_of(SCALE / f"{name}.yaml"))
    check_chain([*before, evolve])


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
