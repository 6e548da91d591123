"""M-STAR's sets and the process-supervision sets, in each form in which they are published."""

import json
from zipfile import ZipFile

import pytest

from mstar_pl.cli import main
from mstar_pl.data.sources.given import load_steps
from mstar_pl.data.sources.mstar import CotExamples, MprmSteps
from mstar_pl.data.sources.steps import Prm800k, StepRows
from mstar_pl.data.step_formats import read_steps
from mstar_pl.types import Example, InputError, Prompt
from tests.tables import png, write_table

IMAGE = "TabMWP/images/1.png"
MPRM = {
    "image": IMAGE,
    "input": "Which stall sold more?",
    "output": ["North sold 4.", "South sold 9.", "# Answer\n\nB"],
    "label": [1, 0.5, 0],
}
RAW = {
    "image": "demo/1.png",
    "question": "Think. How many cubes?",
    "question_orig": "How many cubes?",
    "answer": "2",
    "response": "Five.\n\nTwo.",
    "num_mc_sequences": 16,
    "steps_with_score": [
        {"step": "Five.", "score": 0.5, "num_mc_correct": 8, "num_mc_total": 16},
        {"step": "Two.", "score": 0.0, "num_mc_correct": 0, "num_mc_total": 16},
    ],
}
SHEPHERD = {
    "input": "Ann has 2 pens and buys 3. How many? Step 1: She has 5 pens. ки\nStep 2: The answer is: 6 ки",
    "value": ["+", "-"],
}
TURNS = ["Judge.", "### Question:\nHow many?\n\n### Solution Process:\nFive.", "+", "Two.", "-"]
VISUAL = {
    "id": -1,
    "image": "demo/1.png",
    "conversations": [
        {"from": speaker, "value": value}
        for speaker, value in zip(["system", "human", "gpt", "human", "gpt"], TURNS, strict=True)
    ],
}


@pytest.fixture
def folder(tmp_path):
    for name in (IMAGE, "demo/1.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        (tmp_path / "images" / name).write_bytes(png("red"))
    return tmp_path


@pytest.mark.parametrize("name", ["a.jsonl", "a.list.json", "a.parquet", "a.arrow"])
def test_labelled_steps_of_mstar(folder, name):
    (only,) = MprmSteps(write_table(folder / name, [MPRM]), images=folder / "images").load()
    assert only.prompt.question == MPRM["input"]
    assert only.prompt.images == (f"{folder}/images/{IMAGE}",)
    assert (only.steps, only.labels) == (tuple(MPRM["output"]), (1.0, 0.5, 0.0))


def test_chains_of_thought_of_mstar_in_columns_and_turns(folder):
    turns = [
        {"from": "human", "value": "<image>\nQuestion: How many?"},
        {"from": "gpt", "value": "# Answer\n\n2"},
    ]
    rows = [{"id": "x", "image": IMAGE, "conversations": turns}]
    columns = [{"id": "x", "image_path": IMAGE, "query": "How many?", "solution": "# Answer\n\n2"}]
    expected = [
        Example(
            prompt=Prompt(id="x", question="How many?", images=(f"{folder}/images/{IMAGE}",)),
            response="# Answer\n\n2",
        )
    ]
    for number, one in enumerate([rows, columns]):
        for form in ("jsonl", "list.json", "parquet"):
            path = write_table(folder / f"{number}.{form}", one)
            assert list(CotExamples(path, images=folder / "images").load()) == expected


def test_a_response_is_named_where_several_columns_may_be_it(tmp_path):
    rows = [{"question": "Which?", "answer": "B", "output": "Step one. It is B."}]
    path = write_table(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=r"a\.jsonl:1: columns answer, output may be the response; name it"):
        CotExamples(path).load()
    (named,) = CotExamples(path, fields={"response": "output"}).load()
    assert named.response == "Step one. It is B."


def test_the_column_of_images_may_be_named_beside_turns(folder):
    turns = [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "2"}]
    path = write_table(folder / "a.jsonl", [{"picture": IMAGE, "conversations": turns}])
    (only,) = CotExamples(path, fields={"images": "picture"}, images=folder / "images").load()
    assert only.prompt.images == (f"{folder}/images/{IMAGE}",)


def test_unknown_columns_fail_with_those_that_there_are(folder):
    path = write_table(folder / "a.jsonl", [{"ask": "How many?", "tell": "2"}])
    with pytest.raises(
        InputError, match=r"no column question or query or prompt or input .*only ask, tell; name it"
    ):
        CotExamples(path).load()
    (named,) = CotExamples(path, fields={"question": "ask", "response": "tell"}).load()
    assert named.response == "2"
    with pytest.raises(InputError, match="steps and labels must be lists"):
        MprmSteps(write_table(folder / "b.jsonl", [MPRM | {"label": "++-"}]), images=folder / "images").load()


@pytest.mark.parametrize("name", ["a.jsonl", "a.list.json", "a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("row", "question", "steps", "labels"),
    [
        (RAW, "How many cubes?", ("Five.", "Two."), (0.5, 0.0)),
        (VISUAL, "How many?", ("Five.", "Two."), (1.0, 0.0)),
        (
            SHEPHERD,
            "Ann has 2 pens and buys 3. How many?",
            ("She has 5 pens.", "The answer is: 6"),
            (1.0, 0.0),
        ),
    ],
    ids=["visualprm raw", "visualprm", "math-shepherd with values"],
)
def test_published_steps_in_every_form(folder, name, row, question, steps, labels):
    (one, other) = StepRows(write_table(folder / name, [row, row]), images=folder / "images").load()
    assert one.prompt.question == question
    assert (one.steps, one.labels) == (other.steps, other.labels) == (steps, labels)
    assert one.prompt.images == ((f"{folder}/images/demo/1.png",) if "image" in row else ())
    assert one.prompt.id != other.prompt.id


@pytest.mark.parametrize("name", ["a.jsonl", "a.list.json", "a.parquet"])
def test_a_row_without_an_image_is_read_whatever_the_form(folder, name):
    path = write_table(folder / name, [VISUAL | {"image": None}, VISUAL])
    records = StepRows(path, images=folder / "images").load()
    assert [len(one.prompt.images) for one in records] == [0, 1]


def test_images_outside_of_the_folder_are_refused(folder):
    path = write_table(folder / "a.jsonl", [RAW | {"image": "demo/../../a.jsonl"}])
    with pytest.raises(InputError, match=r"a\.jsonl:1: image .* lies outside of"):
        StepRows(path, images=folder / "images").load()


def test_steps_with_their_images_in_an_archive(folder):
    with ZipFile(folder / "images.zip", "w") as archive:
        archive.write(folder / "images/demo/1.png", "demo/1.png")
    path = write_table(folder / "prm.jsonl", [VISUAL])
    (one,) = read_steps(path, root=folder / "images.zip")
    assert one.prompt.images == (f"{folder}/images.zip::demo/1.png",)


def test_marks_that_do_not_fit_the_tags_are_refused(folder):
    path = write_table(folder / "a.jsonl", [SHEPHERD | {"value": ["+"]}])
    with pytest.raises(InputError, match="field 'value' must be a list of \\+ and -, one for each"):
        StepRows(path).load()


def completion(text, rating):
    return {"text": text, "rating": rating, "flagged": None}


def step(chosen, *completions, human=None):
    return {"completions": list(completions), "human_completion": human, "chosen_completion": chosen}


def test_prm800k_forks_at_every_completion_that_was_not_chosen(tmp_path):
    steps = [
        step(1, completion("a", -1), completion("b", 1), completion("c", 0)),
        step(None, completion("d", -1), human=completion("e", None)),
        step(0, completion("# Answer\n\n5", None)),
    ]
    rows = [
        {"question": {"problem": "2+3?", "ground_truth_answer": "5"}, "label": {"steps": steps}},
        {"question": {"problem": "?"}, "label": {"steps": [step(None)]}},  # given up: nothing to learn
        {"question": {"problem": "1?"}, "label": {"steps": [step(0, completion("1", 1))]}},
    ]
    records = Prm800k(write_table(tmp_path / "phase1_train.jsonl", rows)).load()
    assert [(one.prompt.id, one.steps, one.labels) for one in records] == [
        ("prm800k-0-0", ("a",), (0.0,)),
        ("prm800k-0-1", ("c",), (0.0,)),
        ("prm800k-0-2", ("b", "d"), (1.0, 0.0)),
        ("prm800k-0-3", ("b", "e", "# Answer\n\n5"), (1.0, 1.0, None)),
        ("prm800k-2-0", ("1",), (1.0,)),
    ]
    assert records[2].prompt.answer == "5"
    with pytest.raises(InputError, match="faulty: 'skp' is unknown"):
        Prm800k(tmp_path / "a.jsonl", faulty="skp")
    (tmp_path / "bad.jsonl").write_text(json.dumps({"question": "?"}) + "\n")
    with pytest.raises(InputError, match=r"bad.jsonl:1: not a row of PRM800K: TypeError"):
        Prm800k(tmp_path / "bad.jsonl").load()


def test_every_response_of_prm800k_at_fault_is_named_or_skipped(tmp_path, capsys):
    good = {"question": {"problem": "1?"}, "label": {"steps": [step(0, completion("1", 1))]}}
    rows = [
        good,
        good | {"label": {"steps": [step(0, completion("", 1), completion("2", -1))]}},
        good | {"question": {"problem": None}},
        good | {"question": {"problem": "1?", "ground_truth_answer": 5}},
        {"question": "?"},
    ]
    path = write_table(tmp_path / "phase1_train.jsonl", rows)
    kept = Prm800k(path, faulty="skip").load()
    assert [one.prompt.id for one in kept] == ["prm800k-0-0", "prm800k-1-0"]
    with pytest.raises(InputError, match=r"phase1_train\.jsonl:2: step 1 is empty.*faulty: skip"):
        load_steps(Prm800k(path))
    assert main(["data", "check", "--source", "Prm800k", "--source.path", str(path)]) == 2
    said = capsys.readouterr()
    for line, reason in enumerate(
        ["step 1 is empty", "field 'question'", "field 'answer'", "not a row of PRM800K"], start=2
    ):
        assert f"phase1_train.jsonl:{line}: {reason}" in said.out
    assert "4 of 6 rows are faulty" in said.err
