"""Figures of a study against the manifests they are drawn from."""

import json

import pytest

from mstar_pl.data.jsonl import write_json
from mstar_pl.evaluation.figures import figures, sweeps, validation, verifier
from mstar_pl.evaluation.study import Study

VALUES = {(seed, iteration): seed / 10 + iteration / 100 for seed in (1, 2) for iteration in (0, 2)}


@pytest.fixture
def plan(tmp_path):
    """Two seeds of a row with sweeps after 0 and 2 iterations, and a row that measured nothing."""
    study = Study(
        out=tmp_path,
        seeds=(1, 2),
        each_seed={"warmup": "fit", "samples": "evaluate --samples 16"},
        recipe="fit",
        rows={"mstar": "", "empty": ""},
        test="evaluate",
    )
    for (seed, iteration), value in VALUES.items():
        root = study.folder("mstar", seed)
        metrics = {f"T{t:g}/{name}": value + t for t in (0.3, 1.2) for name in ("pass@1", "reward_pass@2")}
        for store, found in [
            ("sweep", metrics | {"rollout/seconds": 1}),
            ("validation", {"reward/pass@1": value}),
        ]:
            folder = root / store / f"iteration-{iteration:04d}"
            folder.mkdir(parents=True)
            write_json(folder / "manifest.json", {"metrics": found})
        stale = root / "sweep/iteration-0000.stale-1"
        stale.mkdir(exist_ok=True)
        write_json(stale / "manifest.json", {"metrics": {"T0.3/reward_pass@2": 99.0}})
        for file in (root / "test/verifier.json", study.folder("samples", seed) / "verifier.json"):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"best-of-N": {"1": [0.1 * seed, 0, 1], "16": [0.2, 0, 1]}})
    return study


def test_curves_are_means_over_the_seeds(plan):
    curves = sweeps(plan, "mstar")
    assert curves.keys() == {"pass@1", "reward_pass@2"}
    for iteration in (0, 2):
        mean = (VALUES[1, iteration] + VALUES[2, iteration]) / 2
        assert curves["reward_pass@2"][iteration] == pytest.approx({0.3: mean + 0.3, 1.2: mean + 1.2})
        assert validation(plan, "mstar")[iteration] == pytest.approx(mean)
    for step in ("mstar", "samples"):
        assert verifier(plan, step)["best-of-N"] == pytest.approx({1: 0.15, 16: 0.2})
    assert not sweeps(plan, "empty")
    assert not validation(plan, "empty")


def test_each_figure_comes_with_its_numbers(plan, tmp_path):
    written = figures(plan, tmp_path / "figures")
    assert {path.name for path in written} == {
        f"{stem}.{kind}"
        for stem in ("temperatures-mstar", "verifier-mstar", "samples", "validation")
        for kind in ("svg", "json")
    }
    assert all("<svg" in path.read_text() for path in written if path.suffix == ".svg")
    numbers = json.loads((tmp_path / "figures/temperatures-mstar.json").read_text())
    assert numbers["reward_pass@2"]["after 2"]["1.2"] == pytest.approx(
        sweeps(plan, "mstar")["reward_pass@2"][2][1.2]
    )
    assert json.loads((tmp_path / "figures/validation.json").read_text()).popitem()[1].keys() == {"mstar"}
    before = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in figures(plan, tmp_path / "figures")} == before


def test_a_study_without_measurements_has_no_figures(tmp_path):
    plan = Study(
        out=tmp_path, seeds=(1,), each_seed={"warmup": "fit"}, recipe="fit", rows={"a": ""}, test="x"
    )
    assert figures(plan, tmp_path / "figures") == []
