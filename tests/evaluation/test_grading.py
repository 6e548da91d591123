import gzip
import json

import pytest

from mstar_pl.evaluation.grading import grade_file
from mstar_pl.types import InputError

PROMPTS = [
    {"id": "1", "images": ["missing.png"], "question": "1+1?", "answer": "2", "answer_type": "integer"},
    {
        "id": "2",
        "images": [],
        "question": "Which?",
        "answer": "no",
        "choices": ["yes", "no"],
        "metadata": {"task": "T"},
    },
    {"id": "3", "images": [], "question": "Unknown?", "answer": None},
]


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def questions(tmp_path):
    return write(tmp_path / "questions.jsonl", PROMPTS)


@pytest.mark.parametrize("name", ["responses.jsonl", "responses.jsonl.gz"])
def test_rows_are_graded_counted_by_task_and_written(tmp_path, questions, name):
    answers = [
        {"pid": "1", "response": "# Answer\n\n2"},
        {"pid": "2", "extraction": "A"},
        {"pid": "3", "response": "who knows"},
    ]
    report = grade_file(questions, write(tmp_path / name, answers), out=tmp_path / "out.jsonl")
    assert (report.total.correct, report.total.wrong, report.total.undecided) == (1, 1, 1)
    assert report.total.accuracy == 0.5
    assert {task: count.accuracy for task, count in report.tasks.items()} == {"T": 0.0, "all": 1.0}
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["outcome"] for row in graded] == ["correct", "wrong", "undecided"]
    assert graded[1] == {
        "pid": "2",
        "extraction": "A",
        "prediction": "yes",
        "outcome": "wrong",
        "rule": "choice",
    }


def test_a_row_with_both_uses_the_response_by_default_and_the_extraction_officially(tmp_path, questions):
    responses = write(tmp_path / "r.jsonl", [{"pid": "1", "response": "# Answer\n\n2", "extraction": "3"}])
    assert grade_file(questions, responses).total.correct == 1
    assert grade_file(questions, responses, "mathvista").total.correct == 0
    assert grade_file(questions, responses, "mathvista", use="response").total.correct == 1
    assert grade_file(questions, responses, use="extraction").total.correct == 0


def test_mathvista_object_of_questions_and_missing_and_empty_rows_are_counted(tmp_path):
    fields = {"question": "Which?", "choices": ["blue", "red"], "answer": "red", "image": "images/1.jpg"}
    fields |= {"question_type": "multi_choice", "answer_type": "text", "unit": None, "precision": None}
    questions = tmp_path / "testmini.json"
    questions.write_text(json.dumps({"1": fields | {"metadata": {"task": "T"}}, "2": fields}))
    responses = write(tmp_path / "r.jsonl", [{"pid": "1", "extraction": ""}])
    report = grade_file(questions, responses, "mathvista")
    assert (report.num_empty, report.num_missing, report.total.correct) == (
        1,
        1,
        1,
    )  # shortest choice, officially
    assert grade_file(questions, responses).total.correct == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"pid": "9", "response": "2"}', "is not in"),
        ('{"pid": "1", "response": "2"', "not valid JSON"),
        ("[1]", "expected a JSON object"),
        ('{"pid": "1"}', "neither"),
        ('{"pid": "1", "response": 2}', "must be a string"),
        ('{"pid": "2", "response": "B"}', "already graded"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line_and_nothing_is_written(tmp_path, questions, line, reason):
    responses = tmp_path / "r.jsonl"
    responses.write_text('{"pid": "2", "response": "B"}\n\n' + line + "\n")
    with pytest.raises(InputError, match=rf"r\.jsonl:3: .*{reason}"):
        grade_file(questions, responses, out=tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_bad_questions_are_refused(tmp_path):
    responses = write(tmp_path / "r.jsonl", [{"pid": "1", "response": "2"}])
    with pytest.raises(InputError, match=r"q\.jsonl:2: .*used twice"):
        grade_file(write(tmp_path / "q.jsonl", [PROMPTS[0], PROMPTS[0]]), responses)
    with pytest.raises(InputError, match="cannot be read"):
        grade_file(tmp_path / "absent.jsonl", responses)
