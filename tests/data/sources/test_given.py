"""Data modules and commands take a source, or a table, where they take a prompt file."""

import json
import pickle

import datasets
import pytest

from mstar_pl.cli import main
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.data.sources.dataset import DatasetExamples, DatasetPrompts
from mstar_pl.data.sources.given import load_examples, load_prompts, load_steps
from mstar_pl.data.sources.source import Source
from mstar_pl.data.steps import StepDataModule
from mstar_pl.types import Example, InputError, Prompt
from tests.tables import png, write_table

ROWS = [
    {"id": str(number), "images": ["a.png"], "question": f"{number}+1?", "answer": "2"} for number in range(4)
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.png").write_bytes(png("red"))
    return tmp_path


@pytest.mark.parametrize("name", ["b.list.json", "b.parquet", "b.arrow"])
def test_a_path_of_any_form_gives_the_same_prompts(folder, name):
    expected = list(load_prompts(write_jsonl(folder / "a.jsonl", ROWS)))
    assert [one.id for one in expected] == ["0", "1", "2", "3"]
    path = write_table(folder / name, [row | {"images": [str(folder / "a.png")]} for row in ROWS])
    # Paths in a table may not lead out of its folder, or that of its images.
    assert list(load_prompts(DatasetPrompts(path, images=folder) if path.is_dir() else str(path))) == expected
    path = write_table(
        folder / f"e-{name}", [row | {"response": "2", "images": [str(folder / "a.png")]} for row in ROWS]
    )
    given = DatasetExamples(DatasetPrompts(path, images=folder)) if path.is_dir() else path
    assert list(load_examples(given)) == [Example(prompt=one, response="2") for one in expected]


def test_training_checks_every_row_of_a_source_first(folder):
    path = write_table(folder / "b.list.json", [*ROWS, ROWS[1]])
    with pytest.raises(
        InputError, match=r"b.list.json: row 4: id '1' was already used; .* faulty: skip leaves"
    ):
        load_prompts(DatasetPrompts(path))
    assert len(load_prompts(DatasetPrompts(path, faulty="skip"))) == 4
    with pytest.raises(InputError, match="DatasetPrompts gives a Prompt, needed is a Example"):
        load_examples(DatasetPrompts(path))
    with pytest.raises(InputError, match="'response'"):
        load_examples(DatasetExamples(DatasetPrompts(path)))


def test_labelled_steps_of_a_table_are_training_data(folder):
    rows = [{"prompt": "?", "completions": ["1", "2"], "labels": [True, False]}]
    path = write_table(folder / "steps.parquet", rows)
    assert load_steps(path)[0].labels == (1.0, 0.0)
    assert StepDataModule(train=str(path)).given["train"] == str(path)


def test_the_check_lists_the_faults_of_any_table(folder, capsys):
    path = write_table(
        folder / "b.parquet", [ROWS[0], ROWS[1] | {"images": ["gone.png"]}, ROWS[2] | {"id": "0"}]
    )
    assert main(["data", "check", "--source", str(path)]) == 2
    said = capsys.readouterr()
    assert "b.parquet: row 1: image 'gone.png' does not exist" in said.out
    assert "row 2: id '0' was already used" in said.out
    assert "2 of 3 rows are faulty" in said.err
    (folder / "b.png").write_text("no image")
    rows = [{"Q": "1+1?", "answer": "2", "images": ["b.png"]}, {"Q": "1+2?", "answer": "3", "images": []}]
    named = ["--source", "DatasetPrompts", "--source.path", str(write_table(folder / "c.list.json", rows))]
    assert (
        main(
            [
                "data",
                "check",
                *named,
                "--source.fields",
                '{"question": "Q"}',
                "--out",
                str(folder / "o.jsonl"),
            ]
        )
        == 2
    )
    assert "c.list.json: row 0: " in capsys.readouterr().out
    (kept,) = [json.loads(line) for line in (folder / "o.jsonl").read_text().splitlines()]
    assert kept["question"] == "1+2?"


class Made(Source[Prompt]):
    """A source of someone's own, without a file."""

    def load(self):
        return [Prompt(id=str(number), question=f"{number}+1?", answer="2") for number in range(3)]


def test_a_data_module_takes_a_path_a_source_and_one_of_your_own(folder):
    inside = [row | {"images": [{"bytes": png("red"), "path": None}]} for row in ROWS]
    features = datasets.Dataset.from_list(ROWS).features | {"images": datasets.List(datasets.Image())}
    data = datasets.Dataset.from_list(inside, datasets.Features(features))
    data.to_parquet(folder / "b.parquet")
    for given in (str(folder / "b.parquet"), DatasetPrompts(folder / "b.parquet"), Made()):
        module = PolicyDataModule(test=given, eval_batch_size=3, images_within=str(folder))
        module.setup("test")
        batches = list(module.test_dataloader())
        assert [prompt.id for prompt in batches[0]] == ["0", "1", "2"]
    elsewhere = PolicyDataModule(test=str(folder / "b.parquet"), images_within=str(folder / "gone"))
    with pytest.raises(
        InputError, match=r"b.parquet: prompt '0': .*b.parquet::0::images::0: lies outside of"
    ):
        elsewhere.setup("test")
    with pytest.raises(InputError, match="needed is a Example"):
        load_examples(Made())


def test_an_answer_that_a_test_needs_is_missed_by_name(folder):
    path = write_table(folder / "b.parquet", [ROWS[0] | {"answer": None, "images": []}])
    with pytest.raises(InputError, match=r"b\.parquet: prompt '0' has no answer"):
        PolicyDataModule(test=DatasetPrompts(path)).setup("test")


def test_prompts_of_a_source_travel_to_other_processes(folder):
    path = write_table(folder / "b.parquet", [row | {"images": [str(folder / "a.png")]} for row in ROWS])
    steps = [{"prompt": "?", "completions": ["1", "2"], "labels": [True, False]}]
    for records in (
        load_prompts(path),
        load_prompts(write_jsonl(folder / "a.jsonl", ROWS)),
        load_steps(write_jsonl(folder / "steps.jsonl", steps)),
        load_steps(write_table(folder / "steps.parquet", steps)),
    ):
        assert list(pickle.loads(pickle.dumps(records))) == list(records)
