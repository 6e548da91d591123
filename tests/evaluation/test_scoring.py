"""Scoring of response files: grouping, shards that survive a crash, and settings that do not mix."""

import pyarrow.parquet as pq
import pytest

from mstar_pl.cli import main
from mstar_pl.data.format import split_steps
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.evaluation.scoring import read_responses, score_responses
from mstar_pl.models import adapter_for
from mstar_pl.models.export import export_process_reward
from mstar_pl.models.process_reward import ProcessRewardModel, StepReadOut
from mstar_pl.types import InputError

GROUPED = {
    "p0": ["red 4.\n\n# Answer\n\n4", "4", "red 4.\n\n# Answer\n\n4"],
    "p1": ["blue 3.\n\n2 + 3 = 5.\n\n# Answer\n\n5"],
    "p2": ["", "The answer is 4."],
    "p3": ["4"],
    "p4": ["I count 7.\n\n7"],
}


class Crash(Exception):
    """Stands for a crash."""


class CountingModel(ProcessRewardModel):
    """The real model, which notes what it scores and may stop after some prompts."""

    stop_after = None

    def score(self, prompt, responses):
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise Crash
        self.seen.append(prompt.id)
        return super().score(prompt, responses)


@pytest.fixture(scope="module")
def loaded(internvl_folder):
    lmm = adapter_for(internvl_folder, question_style="plain")
    model = lmm.load_model()
    return CountingModel(lmm, model, StepReadOut(lmm, model))


@pytest.fixture
def model(loaded):
    loaded.seen, loaded.stop_after = [], None
    return loaded


@pytest.fixture
def by_id(prompts):
    return {prompt.id: prompt for prompt in prompts}


def save(path, *rows):
    return write_jsonl(path, rows)


def test_responses_are_grouped_by_prompt_in_their_order(by_id, tmp_path):
    file = save(
        tmp_path / "r.jsonl",
        {"id": "p1", "response": "4", "temperature": 1.0},
        {"pid": "p0", "response": ""},  # MathVista's name of the field
        {"id": "p1", "response": "5"},
        {"id": "p1", "response": "4"},
    )
    assert read_responses(file, by_id) == {"p1": ["4", "5", "4"], "p0": [""]}
    numbered = save(tmp_path / "n.jsonl", {"id": 7, "response": "4"})
    assert read_responses(numbered, {"7": by_id["p0"]}) == {"7": ["4"]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "p1"}, "field 'response' must be a string"),
        ({"id": "p1", "response": ["4"]}, "field 'response' must be a string"),
        ({"id": "p1", "response": None}, "field 'response' must be a string"),
        ({"id": "p99", "response": "4"}, "id 'p99' is not among the questions; give the matching file"),
        ({"response": "4"}, "id '' is not among the questions; give the matching file"),
    ],
)
def test_malformed_rows_are_refused_with_file_and_line(by_id, tmp_path, row, message):
    file = save(tmp_path / "r.jsonl", {"id": "p0", "response": "4"}, row)
    with pytest.raises(InputError, match=rf"{file}:2: {message}"):
        read_responses(file, by_id)


def test_files_without_rows_or_of_another_format_are_refused(by_id, tmp_path):
    with pytest.raises(InputError, match=r"r\.jsonl: no rows"):
        read_responses(save(tmp_path / "r.jsonl"), by_id)
    (tmp_path / "r.jsonl").write_text('\n{"id": "p0", "resp')
    with pytest.raises(InputError, match=r"r\.jsonl:2: "):
        read_responses(tmp_path / "r.jsonl", by_id)
    with pytest.raises(InputError, match="no such file"):
        read_responses(tmp_path / "missing.jsonl", by_id)


def score(model, by_id, folder, *, aggregate="min", grouped=GROUPED, settings=("weights",), shard=2):
    return list(score_responses(model, by_id, grouped, aggregate, folder, settings, shard))


@pytest.mark.parametrize("shard", [1, 2, 256])
def test_rows_are_what_the_model_says_of_each_response(model, by_id, tmp_path, shard):
    rows = score(model, by_id, tmp_path / "shards", shard=shard)
    expected = []
    for key, texts in GROUPED.items():
        steps = [split_steps(text) for text in texts]
        for text, own, found in zip(
            texts, steps, ProcessRewardModel.score(model, by_id[key], steps), strict=True
        ):
            expected.append(
                {
                    "id": key,
                    "response": text,
                    "steps": own,
                    "step_scores": list(found),
                    "process": min(found, default=0.0),
                }
            )
    assert rows == expected
    assert [len(row["steps"]) for row in rows] == [2, 1, 2, 3, 0, 1, 1, 2]
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == -(-len(GROUPED) // shard)


def test_total_is_the_aggregate_that_was_asked_for(model, by_id, tmp_path):
    for row in score(model, by_id, tmp_path / "shards", aggregate="mean"):
        scores = row["step_scores"]
        assert row["process"] == pytest.approx(sum(scores) / max(1, len(scores)))


def test_crash_in_the_second_shard_loses_that_one_only(model, by_id, tmp_path):
    whole = score(model, by_id, tmp_path / "whole")
    model.seen, model.stop_after = [], 3
    folder = tmp_path / "shards"
    with pytest.raises(Crash):
        score(model, by_id, folder)
    (kept,) = folder.glob("*.parquet")
    assert pq.read_table(kept)["id"].unique().to_pylist() == ["p0", "p1"]
    assert not (folder / "manifest.json").exists(), "the manifest would mean complete"
    model.seen, model.stop_after = [], None
    assert score(model, by_id, folder) == whole
    assert model.seen == ["p2", "p3", "p4"]


def test_finished_scores_are_not_computed_again(model, by_id, tmp_path):
    whole = score(model, by_id, tmp_path / "shards")
    model.seen = []
    assert score(model, by_id, tmp_path / "shards") == whole
    assert model.seen == []


@pytest.mark.parametrize(
    "change",
    [{"settings": ("other weights",)}, {"grouped": GROUPED | {"p3": ["5"]}}],
    ids=["settings", "responses"],
)
@pytest.mark.parametrize("stop_after", [None, 3], ids=["finished", "crashed"])
def test_scores_of_other_settings_or_responses_are_set_aside(model, by_id, tmp_path, change, stop_after):
    folder = tmp_path / "shards"
    model.stop_after = stop_after
    if stop_after is None:
        score(model, by_id, folder)
    else:
        with pytest.raises(Crash):
            score(model, by_id, folder)
    old = {path.name: path.read_bytes() for path in folder.iterdir()}
    model.seen, model.stop_after = [], None
    rows = score(model, by_id, folder, **change)
    assert model.seen == list(GROUPED)
    assert [row["response"] for row in rows if row["id"] == "p3"] == change.get("grouped", GROUPED)["p3"]
    aside = tmp_path / "shards.stale-1"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == old


def test_scores_of_another_type_of_weights_are_other_scores(internvl_folder, by_id, tmp_path):
    """Weights that are stored in bfloat16 are the same in float32, and do not give the same scores."""
    lmm = adapter_for(internvl_folder, question_style="plain", dtype="bfloat16")
    stored = lmm.load_model()
    judge = export_process_reward(lmm, stored, StepReadOut(lmm, stored), tmp_path / "mprm")
    questions = save(tmp_path / "questions.jsonl", by_id["p0"].to_json())
    responses = save(tmp_path / "responses.jsonl", {"id": "p0", "response": GROUPED["p0"][0]})
    run = ["score", "--process_reward", str(judge), "--questions", str(questions)]
    run += ["--responses", str(responses), "--out", str(tmp_path / "out.jsonl")]
    scores = []
    for dtype in ("float32", "float32", "bfloat16"):
        assert main([*run, "--dtype", dtype]) == 0
        scores.append((tmp_path / "out.jsonl").read_text())
        assert (tmp_path / "out.jsonl.shards.stale-1").exists() == (dtype == "bfloat16")
    assert scores[0] == scores[1] != scores[2]


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--shard", "0", "--shard 0: must be at least 1"),
        ("--shard", "-1", "--shard -1: must be at least 1"),
        ("--out", ".", ".: is a folder; give the name of a file"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_anything_is_read(option, value, reason, capsys):
    run = ["score", "--process_reward", "none", "--questions", "none", "--responses", "none", "--out", "none"]
    assert main([*run, option, value]) == 2
    assert capsys.readouterr().err == f"mstar-pl: error: {reason}\n"
