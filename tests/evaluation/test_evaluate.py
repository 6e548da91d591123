"""Evaluation: chunks that survive an interruption, summaries, tables."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from mstar_pl.data.digests import records_digest
from mstar_pl.data.jsonl import read_rows
from mstar_pl.evaluation import evaluate as module
from mstar_pl.evaluation.benchmarks import PromptFile
from mstar_pl.evaluation.evaluate import PARTIAL, answer_prompts, write_results
from mstar_pl.evaluation.summary import summarise
from mstar_pl.evaluation.table import accuracy_table, paired_gain
from mstar_pl.models import adapter_for
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import SamplingConfig

GREEDY = SamplingConfig(max_tokens=6)
FILE = PromptFile("prompts.jsonl")


class Interrupted(Exception):
    pass


class CountingEngine(TransformersEngine):
    """The real engine, which counts prompts and may stop after some chunks."""

    seen = 0
    stop_after = None

    def generate(self, prompts, *args, **kwargs):
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise Interrupted
        self.seen += len(prompts)
        return super().generate(prompts, *args, **kwargs)


@pytest.fixture
def engine(internvl_folder):
    lmm = adapter_for(internvl_folder)
    return CountingEngine(lmm, lmm.load_model())


def test_interrupted_evaluation_goes_on_and_gives_the_same(engine, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3)
    (tmp_path / "whole").mkdir()
    whole = answer_prompts(engine, prompts, GREEDY, FILE, tmp_path / "whole", "f")
    engine.seen, engine.stop_after = 0, 6
    with pytest.raises(Interrupted):
        answer_prompts(engine, prompts, GREEDY, FILE, tmp_path, "f")
    with (tmp_path / PARTIAL).open("a") as file:
        file.write('{"id": "p6", "resp')  # a line cut off by a kill
    engine.seen, engine.stop_after = 0, None
    assert answer_prompts(engine, prompts, GREEDY, FILE, tmp_path, "f") == whole
    assert engine.seen == 2, "only what was missing is generated"


def test_partial_results_of_other_settings_are_set_aside(engine, prompts, tmp_path):
    answer_prompts(engine, prompts[:2], GREEDY, FILE, tmp_path, "old")
    engine.seen = 0
    answer_prompts(engine, prompts[:2], GREEDY, FILE, tmp_path, "new")
    assert engine.seen == 2
    kept = (tmp_path / "responses.partial.stale.jsonl").read_text().splitlines()
    assert json.loads(kept[0]) == {"fingerprint": "old"}
    assert len(kept) == 3


def test_digest_is_of_contents_and_not_of_places(tmp_path, prompts):
    def digest(color):
        image = tmp_path / f"{color}.png"
        Image.new("RGB", (8, 8), color).save(image)
        return records_digest([replace(prompts[0], images=(str(image),))])

    red = digest("red")
    shutil.copy(tmp_path / "red.png", tmp_path / "copy.png")
    assert records_digest([replace(prompts[0], images=(str(tmp_path / "copy.png"),))]) == red
    assert digest("blue") != red
    assert records_digest([replace(prompts[0], images=(str(tmp_path / "red.png"),), query="?")]) != red


def rows(*outcomes, groups=()):
    return [
        {
            "id": str(index),
            "extraction": "4",
            "groups": [*groups],
            "outcome": outcome,
            "finish_reason": "stop",
        }
        for index, outcome in enumerate(outcomes)
    ]


def test_undecided_is_counted_and_not_wrong():
    summary = summarise(rows("correct", "wrong", "undecided", "correct"))["all"]
    assert summary["mean"] == pytest.approx(2 / 3)
    assert summary["undecided"] == 1
    assert summary["num"] == 4
    assert 0 <= summary["low"] <= summary["mean"] <= summary["high"] <= 1


def test_table_has_a_row_for_all_and_each_task():
    summary = summarise(
        rows("correct", groups=["visual question answering"]) + rows("wrong", groups=["own task"])
    )
    lines = accuracy_table({"x": summary}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ALL", "own task", "VQA"]


def test_gain_is_paired_over_common_prompts():
    before = {"a": "wrong", "b": "wrong", "c": "correct", "d": "undecided"}
    after = {"a": "correct", "b": "wrong", "c": "correct", "d": "correct", "e": "correct"}
    assert paired_gain(before, after).mean == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="no decided prompt in common"):
        paired_gain({"a": "wrong"}, {"b": "wrong"})


def test_former_results_do_not_stand_beside_other_rows(tmp_path, monkeypatch):
    """As after a kill between the writing of the rows and of their results."""
    write_results(tmp_path, FILE, [], rows("correct", "wrong"), {"policy": "x"}, "f")

    def killed(*_):
        raise Interrupted

    monkeypatch.setattr(module, "write_json", killed)
    with pytest.raises(Interrupted):
        write_results(tmp_path, FILE, [], rows("wrong", "wrong"), {"policy": "y"}, "g")
    assert not (tmp_path / "results.json").exists()


def test_results_are_read_back(tmp_path):
    (tmp_path / PARTIAL).write_text("")
    results = write_results(tmp_path, FILE, [], rows("correct", "wrong"), {"policy": "x"}, "f")
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert [row["outcome"] for _, row in read_rows(tmp_path / "responses.jsonl")] == ["correct", "wrong"]
    assert not (tmp_path / PARTIAL).exists()
