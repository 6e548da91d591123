"""MathV360K as it is published: a JSON list, queries in `conversations`, images in folders or an archive."""

import json
from zipfile import ZipFile

import pytest

from mstar_pl.data.sources.mathv360k import MathV360K
from mstar_pl.types import InputError, Prompt
from tests.tables import png, write_table

LETTER = "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
OPEN = "Please answer the question and provide the final answer at the end."
WHOLE = "Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, …"


def row(image, asked, said, **further):
    turns = [{"from": "human", "value": f"<image>\n{asked}"}, {"from": "gpt", "value": said}]
    return {"id": "identity_812", "image": image, "conversations": turns} | further


STALLS = f"Hint: {LETTER}\nQuestion: Which stall sold more?\nChoices:\n(A) North stall\n(B) South stall"
ROWS = [
    row("TabMWP/images/1.png", STALLS, "The answer is B"),
    row("geoqa+/images/2.png", f"Hint: {OPEN}\nQuestion: 求角度", "The answer is 35°."),
    row("CLEVR-Math/images/3.png", f"Hint: {WHOLE}\nQuestion: How many are left?", "The answer is 5"),
    row("AI2D/images/4.png", "What is shown?", "A food chain"),
]


@pytest.fixture
def folder(tmp_path):
    for one in ROWS:
        path = tmp_path / "data_images" / one["image"]
        path.parent.mkdir(parents=True)
        path.write_bytes(png("red"))
    with ZipFile(tmp_path / "data_images.zip", "w") as archive:
        for path in sorted((tmp_path / "data_images").rglob("*.png")):
            archive.write(path, path.relative_to(tmp_path))
    return tmp_path


def expected(images):
    tasks = [
        "math word problem",
        "geometry problem solving",
        "math word problem",
        "textbook question answering",
    ]
    said = [
        ("Which stall sold more?", "South stall", "text"),
        ("求角度", "35°", "text"),
        ("How many are left?", "5", "integer"),
        ("What is shown?", "A food chain", "text"),
    ]
    return [
        Prompt(
            id=f"mathv360k-{number}",
            question=question,
            answer=answer,
            answer_type=kind,
            images=(f"{images}{one['image']}",),
            choices=("North stall", "South stall") if number == 0 else None,
            question_type="free_form" if number else "multi_choice",
            metadata={"task": task, "source": one["image"].split("/")[0], "identity": "identity_812"},
        )
        for number, (one, task, (question, answer, kind)) in enumerate(zip(ROWS, tasks, said, strict=True))
    ]


@pytest.mark.parametrize("name", ["train.list.json", "train.jsonl", "train.parquet", "train.arrow"])
def test_every_form_gives_the_same_prompts(folder, name):
    path = write_table(folder / name, ROWS)
    assert list(MathV360K(path, folder / "data_images").load()) == expected(f"{folder}/data_images/")
    inside = MathV360K(path, folder / "data_images.zip").load()
    assert list(inside) == expected(f"{folder}/data_images.zip::data_images/")


@pytest.mark.parametrize(
    "said", ["The answer is B", "The answer is (B)", "The answer is: (B) South stall.", "South stall"]
)
def test_every_form_of_a_choice_is_the_text_of_it(folder, said):
    path = write_table(folder / "a.list.json", [row("TabMWP/images/1.png", STALLS, said)])
    assert MathV360K(path, folder / "data_images").load()[0].answer == "South stall"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("TabMWP/images/1.png", STALLS, "The answer is C"), "answer 'C' names none of the 2 choices"),
        (row("TabMWP/images/9.png", "How many?", "3"), "image 'TabMWP/images/9.png' does not exist"),
        (row("TQA2/images/1.png", "How many?", "3"), "folder 'TQA2' is none of the 24 sources"),
        (row("TabMWP/images/1.png", "How many?", "3", conversations=[]), "one human turn and one gpt turn"),
        (row("TabMWP/images/1.png", "How many?", "The answer is "), "no answer in 'The answer is '"),
        (row("TabMWP/images/1.png", f"Hint: {LETTER}\nQuestion: Which?", "A"), "no options are found"),
        (row("TabMWP/images/1.png", "Which?\nChoices: (A) 1 (B) 2", "A"), "no options are found"),
        (row("TabMWP/../../a.json", "How many?", "3"), "lies outside of"),
        (row("/dev/null", "How many?", "3"), "lies outside of"),
        (row("../a.zip::1.png", "How many?", "3"), "lies outside of"),
        (row(None, "How many?", "3"), "'image' must be a text, got None"),
    ],
)
def test_rows_at_fault_are_named_or_skipped(folder, bad, reason):
    (folder / "data_images/TQA2/images").mkdir(parents=True)
    (folder / "data_images/TQA2/images/1.png").write_bytes(png("red"))
    path = folder / "a.json"
    path.write_text(json.dumps([ROWS[0], bad, ROWS[2]]))
    strict = MathV360K(path, folder / "data_images", faulty="refuse").load()
    with pytest.raises(InputError, match=r"a\.json: row 1: ") as refused:
        strict[1]
    assert reason in str(refused.value)
    kept = MathV360K(path, folder / "data_images").load()
    assert [prompt.id for prompt in kept] == ["mathv360k-0", "mathv360k-2"]


def test_queries_with_other_line_ends_and_answers_without_a_marker(folder):
    rows = [row("TabMWP/images/1.png", STALLS.replace("\n", "\r\n"), "A")]
    rows.append(row("TabMWP/images/1.png", "Which triangle?", "The answer isosceles"))
    one, other = MathV360K(write_table(folder / "a.list.json", rows), folder / "data_images").load()
    assert one.choices == ("North stall", "South stall")
    assert other.answer == "The answer isosceles"


def test_the_task_of_another_folder_can_be_named(folder):
    path = write_table(folder / "a.jsonl", [row("TabMWP2/images/1.png", "How many?", "3")])
    with pytest.raises(InputError, match="every row is at fault"):
        MathV360K(path, folder / "data_images").load()
    (folder / "data_images/TabMWP2").symlink_to(folder / "data_images/TabMWP")
    (prompt,) = MathV360K(path, folder / "data_images", tasks={"TabMWP2": "math word problem"}).load()
    assert prompt.task == "math word problem"
