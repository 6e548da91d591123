"""The formats of process supervision: published layouts are read, and what is written is read back."""

import json
import logging
import re

import pytest
from PIL import Image

from mstar_pl.data.step_formats import read_steps, write_steps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.types import InputError, Prompt

STEPWISE = {
    "prompt": "A train has 3 cars of 8 seats. How many seats?",
    "completions": ["3 cars of 8.", "So 11."],
    "labels": [True, False],
}
SHEPHERD = {
    "input": "Ann has 2+1 pens. How many? Step 1: She has 3+3=6 pens. ки\nStep 2: The answer is: 7 ки",
    "label": "Ann has 2+1 pens. How many? Step 1: She has 3+3=6 pens. +\nStep 2: The answer is: 7 -",
    "task": "GSM8K",
}
VISUAL = {
    "id": -1,
    "image": "demo/0001.png",
    "conversations": [
        {"from": "system", "value": "Judge each step."},
        {
            "from": "human",
            "value": "### Question:\nHow many cubes are red?\n\n### Solution Process:\nThere are 5 cubes.",
        },
        {"from": "gpt", "value": "+"},
        {"from": "human", "value": "Two of them are blue.\n\nSo the answer is 2."},
        {"from": "gpt", "value": "-"},
    ],
}
FORMATS = ["mstar", "stepwise", "math_shepherd", "visualprm"]


def save(path, *rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(steps, labels, **fields):
    prompt = Prompt(**{"id": "p", "question": "How many?", "answer": "4"} | fields)
    return StepLabels(prompt=prompt, steps=tuple(steps), labels=tuple(labels))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "demo").mkdir()
    for name in ("0001", "0002"):
        Image.new("RGB", (4, 4)).save(tmp_path / f"demo/{name}.png")
    return tmp_path


def test_stepwise_is_read(tmp_path):
    soft = STEPWISE | {"labels": [0.75, 0.0], "id": "q7", "answer": "24"}
    hard, other = read_steps(save(tmp_path / "trl.jsonl", STEPWISE, soft))
    assert hard == record(
        ["3 cars of 8.", "So 11."], [1.0, 0.0], id="trl-1", question=STEPWISE["prompt"], answer=None
    )
    assert (other.prompt.id, other.prompt.answer, other.labels) == ("q7", "24", (0.75, 0.0))


def test_math_shepherd_is_read(tmp_path):
    (only,) = read_steps(save(tmp_path / "ms.jsonl", SHEPHERD))
    assert only == record(
        ["She has 3+3=6 pens.", "The answer is: 7"],
        [1.0, 0.0],
        id="ms-1",
        question="Ann has 2+1 pens. How many?",
        answer=None,
        metadata={"task": "GSM8K"},
    )


@pytest.mark.parametrize(
    ("text", "label", "steps", "labels"),
    [
        ("Q? Step 1: Step 1: a ки\nStep 2: b ки", "Q? Step 1: Step 1: a +\nStep 2: b -", "ab", (1, 0)),
        ("Q? Step 1: a ки\nStep 2: b", "Q? Step 1: a -\nStep 2: b", "ab", (0, None)),
        ("Q? Step 1: a ки\nStep 2:", "Q? Step 1: a -\nStep 2:", "a", (0,)),
        ("Q? Step 1: a", "Q? Step 1: a", "a", (None,)),
    ],
    ids=["doubled numbering", "last step without a tag", "last step without a text", "no tag at all"],
)
def test_quirks_of_math_shepherd_are_read(tmp_path, text, label, steps, labels):
    (only,) = read_steps(save(tmp_path / "ms.jsonl", {"input": text, "label": label, "task": "MATH"}))
    assert (only.prompt.question, only.steps, only.labels) == ("Q?", tuple(steps), labels)


def test_visualprm_is_read(folder):
    several = VISUAL | {"image": ["demo/0001.png", "demo/0002.png"], "id": 12}
    none = VISUAL | {"image": []}
    records = read_steps(save(folder / "prm.jsonl", VISUAL, several, none))
    assert records[0] == record(
        ["There are 5 cubes.", "Two of them are blue.\n\nSo the answer is 2."],
        [1.0, 0.0],
        id="prm-1",
        question="How many cubes are red?",
        images=(str(folder / "demo/0001.png"),),
        answer=None,
    )
    assert [one.prompt.id for one in records] == ["prm-1", "12", "prm-3"]
    assert [len(one.prompt.images) for one in records] == [1, 2, 0]


@pytest.mark.parametrize("row", [STEPWISE, SHEPHERD, {"input": SHEPHERD["input"], "value": ["+", "-"]}])
@pytest.mark.parametrize("key", ["image", "images"])
def test_images_added_to_formats_without_are_read_under_both_names(folder, row, key):
    (only,) = read_steps(save(folder / "prm.jsonl", row | {key: "demo/0001.png"}))
    assert only.prompt.images == (str(folder / "demo/0001.png"),)


def test_the_mark_of_an_image_is_no_part_of_the_question(folder):
    system, first, *rest = VISUAL["conversations"]
    marked = first | {"value": "<image>\n" + first["value"]}
    (only,) = read_steps(save(folder / "prm.jsonl", VISUAL | {"conversations": [system, marked, *rest]}))
    assert only.prompt.question == "How many cubes are red?"


def test_images_are_relative_to_the_root_where_one_is_given(folder):
    path = save(folder / "prm.jsonl", VISUAL | {"image": "0001.png"})
    (only,) = read_steps(path, root=folder / "demo")
    assert only.prompt.images == (str(folder / "demo/0001.png"),)
    looked = folder / "0001.png"
    with pytest.raises(
        InputError, match=re.escape(f"{path}:1: image '0001.png' does not exist (looked for {looked})")
    ):
        read_steps(path)


def test_lines_are_counted_as_in_the_file(tmp_path):
    path = tmp_path / "trl.jsonl"
    path.write_text(f"\n{json.dumps(STEPWISE)}\n\n{json.dumps(STEPWISE)}\n")
    assert [one.prompt.id for one in read_steps(path)] == ["trl-2", "trl-4"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_back(folder, format):
    records = [
        record(["4 red.", "# Answer\n\n4"], [1.0, 0.0], images=(str(folder / "demo/0001.png"),)),
        record(["Step 1: 4 + 4 = 8.", "Then 2 - 1."], [1.0, 1.0], id="q", metadata={"task": "MATH"}),
        record(["Ж."], [0.0], id="r", images=(str(folder / "demo/0001.png"), str(folder / "demo/0002.png"))),
    ]
    path = write_steps(folder / "new/steps.jsonl", records, format)
    back = list(read_steps(path))
    expected = [one.steps for one in records]
    if format == "math_shepherd":
        expected[1] = ("4 + 4 = 8.", "Then 2 - 1.")  # the numbering belongs to the format
    assert [one.steps for one in back] == expected
    assert [one.labels for one in back] == [one.labels for one in records]
    assert [one.prompt.images for one in back] == [one.prompt.images for one in records]
    assert [one.prompt.question for one in back] == ["How many?"] * 3
    assert list(read_steps(write_steps(folder / "new/steps.jsonl", back, format))) == back, "a fixed point"


@pytest.mark.parametrize(
    ("format", "published"),
    [("stepwise", STEPWISE), ("math_shepherd", SHEPHERD), ("visualprm", VISUAL | {"id": "1"})],
)
def test_published_rows_are_written_as_they_were(folder, format, published):
    path = write_steps(folder / "new.jsonl", read_steps(save(folder / "old.jsonl", published)), format)
    (row,) = rows_of(path)
    if format == "visualprm":
        assert row["conversations"][0].pop("from") == "system"
        row["conversations"][0] = VISUAL["conversations"][0]
        row["image"] = row["image"].removeprefix(f"{folder}/")
    assert row == published


def test_mstar_keeps_choices_and_unknown_labels(tmp_path):
    whole = record(["a", "b"], [None, 0.5], choices=("4", "5"), question_type="multi_choice")
    assert list(read_steps(write_steps(tmp_path / "steps.jsonl", [whole], "mstar"))) == [whole]


@pytest.mark.parametrize("format", FORMATS[1:])
def test_choices_become_part_of_the_question(tmp_path, format):
    choice = record(["a"], [1.0], choices=("4", "5"), question_type="multi_choice", unit="g")
    (back,) = read_steps(write_steps(tmp_path / "steps.jsonl", [choice], format))
    assert back.prompt.question == "How many? (Unit: g)\nChoices:\n(A) 4\n(B) 5"
    assert (back.prompt.question_type, back.prompt.choices) == ("free_form", None)


@pytest.mark.parametrize("format", FORMATS[1:])
def test_responses_are_cut_before_an_unknown_label(tmp_path, caplog, format):
    records = [
        record("abc", [1.0, None, 1.0]),
        record("ab", [None, 1.0], id="q"),
        record("a", [0.0], id="r"),
    ]
    with caplog.at_level(logging.WARNING):
        back = read_steps(write_steps(tmp_path / "steps.jsonl", records, format))
    assert [(one.steps, one.labels) for one in back] == [(("a",), (1.0,)), (("a",), (0.0,))]
    (message,) = caplog.messages
    assert message.endswith(
        "cut 2 responses before a step without a label; skipped 1 of them that begin with it"
    )


@pytest.mark.parametrize("format", ["math_shepherd", "visualprm"])
def test_soft_labels_above_nothing_are_right(tmp_path, format):
    soft = record("abc", [0.0, 0.0625, 1.0])
    path = tmp_path / "steps.jsonl"
    assert read_steps(write_steps(path, [soft], format))[0].labels == (0.0, 1.0, 1.0)


def test_stepwise_labels_have_one_type_a_file(tmp_path):
    hard, soft = record("ab", [1.0, 0.0]), record("a", [0.25])
    rows = rows_of(write_steps(tmp_path / "hard.jsonl", [hard, hard], "stepwise"))
    assert [type(label) for row in rows for label in row["labels"]] == [bool] * 4
    rows = rows_of(write_steps(tmp_path / "soft.jsonl", [hard, soft], "stepwise"))
    assert [type(label) for row in rows for label in row["labels"]] == [float] * 3


HINT = " (mstar-pl data check lists all such lines)"
MEND = "mend it and 'label', or remove the row"
DIFFERS = "'label' is not 'input' with + or - for each 'ки'; mend it, or remove the row"
TURNS = "human turns with a step and gpt turns, + or -, must alternate after the system's"


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (
            STEPWISE,
            {"prompt": "?"},
            "field 'completions' is missing; rows of stepwise have prompt, completions, labels",
        ),
        (STEPWISE, STEPWISE | {"prompt": []}, "field 'prompt' must be a string, got list"),
        (STEPWISE, STEPWISE | {"labels": [True]}, "2 steps and 1 labels; give each step one"),
        (
            STEPWISE,
            STEPWISE | {"images": ["no.png"]},
            "image 'no.png' does not exist (looked for {root}/no.png); image paths are relative to {root}",
        ),
        (
            SHEPHERD,
            SHEPHERD | {"input": "No steps ки", "label": "No steps +"},
            f"'input' has no ' Step 1:' after the question; {MEND}",
        ),
        (
            SHEPHERD,
            SHEPHERD | {"input": "A ки B? Step 1: c ки", "label": "A + B? Step 1: c +"},
            f"'input' has 'ки' in the question; {MEND}",
        ),
        (SHEPHERD, SHEPHERD | {"label": SHEPHERD["label"][:-1]}, DIFFERS),
        (SHEPHERD, SHEPHERD | {"label": SHEPHERD["label"] + "+"}, DIFFERS),
        (SHEPHERD, SHEPHERD | {"label": SHEPHERD["label"].replace("Ann", "Bob")}, DIFFERS),
        (SHEPHERD, SHEPHERD | {"label": SHEPHERD["input"].replace("ки", "?")}, DIFFERS),
        (
            SHEPHERD,
            SHEPHERD | {"input": "Q? Step 1: ки", "label": "Q? Step 1: +"},
            "step 1 is empty; remove it with its label",
        ),
        (VISUAL, VISUAL | {"conversations": "+"}, "field 'conversations' must be a list of turns"),
        (VISUAL, VISUAL | {"conversations": VISUAL["conversations"][:-1]}, TURNS),
        (VISUAL, VISUAL | {"conversations": VISUAL["conversations"][:1]}, TURNS),
        (
            VISUAL,
            VISUAL | {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "yes"}]},
            TURNS,
        ),
        (
            VISUAL,
            VISUAL | {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "+"}]},
            "the first human turn has no '### Solution Process:' between question and step",
        ),
        (VISUAL, VISUAL | {"image": 3}, "field 'images' must be a list of strings, got 3"),
    ],
)
def test_malformed_rows_are_refused_with_file_and_line(folder, good, bad, reason):
    path = save(folder / "steps.jsonl", good, bad)
    with pytest.raises(InputError) as raised:
        read_steps(path)
    assert str(raised.value) == f"{path}:2: {reason.replace('{root}', str(folder))}{HINT}"


def test_a_file_in_no_known_format_is_refused(tmp_path):
    path = save(tmp_path / "steps.jsonl", {"question": "?", "process": "a"})
    with pytest.raises(InputError) as raised:
        read_steps(path)
    assert str(raised.value) == (
        f"{path}:1: keys question, process are of no known format; known are "
        "mstar (id, images, question, answer, steps, labels); stepwise (prompt, completions, labels); "
        "math_shepherd (input, label, task); visualprm (image, conversations); "
        "visualprm_raw (question, steps_with_score); math_shepherd_value (input, value)" + HINT
    )


def test_the_format_can_be_given(tmp_path):
    path = save(tmp_path / "steps.jsonl", STEPWISE | SHEPHERD)
    assert read_steps(path, "math_shepherd")[0].steps[0] == "She has 3+3=6 pens."
    assert read_steps(path, "stepwise")[0].steps[0] == "3 cars of 8."


def test_an_empty_file_is_refused(tmp_path):
    path = save(tmp_path / "steps.jsonl")
    with pytest.raises(InputError, match="no rows; the data set is empty"):
        read_steps(path)


@pytest.mark.parametrize(
    ("format", "bad", "reason"),
    [
        (
            "math_shepherd",
            record(["a ки b"], [1.0]),
            "its text holds marks of math_shepherd; remove them, or write another format",
        ),
        (
            "math_shepherd",
            record("a", [1.0], question="See Step 1: what?"),
            "its text holds marks of math_shepherd; remove them, or write another format",
        ),
        (
            "math_shepherd",
            record("a", [1.0], question="Is ки a word?"),
            "'input' has 'ки' in the question; mend it and 'label', or remove the row",
        ),
        ("math_shepherd", record(["Step 1: "], [1.0]), "step 1 is empty; remove it with its label"),
        (
            "visualprm",
            record("a", [1.0], question="Q\n\n### Solution Process:\nb"),
            "its text holds marks of visualprm; remove them, or write another format",
        ),
    ],
)
def test_text_that_would_be_read_back_differently_is_refused(tmp_path, format, bad, reason):
    path = tmp_path / "steps.jsonl"
    with pytest.raises(InputError) as raised:
        write_steps(path, [record("a", [1.0]), bad], format)
    assert str(raised.value) == f"{path}: record 2, prompt 'p': {reason}"
    assert not path.exists()


def test_nothing_to_write_is_refused(tmp_path):
    path = tmp_path / "steps.jsonl"
    for records in ([], [record("a", [None])]):
        with pytest.raises(InputError, match="nothing to write; give records whose first step has a label"):
            write_steps(path, records, "stepwise")
    assert not path.exists()
