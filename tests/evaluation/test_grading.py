"""Grading of kept responses: the same as when they were generated, and MathVista's published outputs."""

import gzip
import json
from pathlib import Path

import pytest

from mstar_pl.evaluation.benchmarks import BENCHMARKS, PromptFile
from mstar_pl.evaluation.benchmarks.regrade import grade_responses, write_regraded
from mstar_pl.evaluation.evaluate import write_results
from mstar_pl.types import InputError
from tests.evaluation.published import mathvista_rows, write_benchmark

MATHVISTA = Path(__file__).parents[2].parent / "shared" / "data" / "mathvista"
# The rule that was used, and how many it found right; test_official_mathvista.py compares every row of more.
PUBLISHED = {
    "bard": ("mathvista-2023", 348),
    "gpt4": ("mathvista", 261),
}

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


def graded(benchmark, responses, use="response"):
    benchmark.with_images = False
    return grade_responses(benchmark, benchmark.load(), responses, use)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_rows_are_graded_in_the_order_of_the_questions(tmp_path, packed):
    answers = [
        {"pid": "3", "response": "who knows"},
        {"pid": "1", "response": "# Answer\n\n2"},
        {"pid": "2", "extraction": "A"},
    ]
    questions = write(tmp_path / f"questions.jsonl{packed}", PROMPTS)
    rows = graded(PromptFile(questions), write(tmp_path / f"responses.jsonl{packed}", answers))
    assert [(row["id"], row["outcome"]) for row in rows] == [
        ("1", "correct"),
        ("2", "wrong"),
        ("3", "undecided"),
    ]
    assert (rows[1]["extraction"], rows[1]["prediction"], rows[1]["groups"]) == ("A", "yes", ["T"])


def test_a_row_with_both_uses_what_is_asked_for(tmp_path, questions):
    responses = write(tmp_path / "r.jsonl", [{"pid": "1", "response": "# Answer\n\n2", "extraction": "3"}])
    assert graded(PromptFile(questions), responses)[0]["outcome"] == "correct"
    assert graded(PromptFile(questions, "mathvista"), responses)[0]["outcome"] == "correct"
    assert graded(PromptFile(questions), responses, "extraction")[0]["outcome"] == "wrong"


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
def test_bad_rows_are_refused_with_file_and_line(tmp_path, questions, line, reason):
    responses = tmp_path / "r.jsonl"
    responses.write_text('{"pid": "2", "response": "B"}\n\n' + line + "\n")
    with pytest.raises(InputError, match=rf"r\.jsonl:3: .*{reason}"):
        graded(PromptFile(questions), responses)


def test_files_without_rows_are_refused(tmp_path, questions):
    with pytest.raises(InputError, match=r"r\.jsonl: no rows"):
        graded(PromptFile(questions), write(tmp_path / "r.jsonl", []))
    with pytest.raises(InputError, match="no such file"):
        graded(PromptFile(tmp_path / "absent.jsonl"), write(tmp_path / "r.jsonl", []))


@pytest.mark.skipif(not MATHVISTA.is_dir(), reason=f"MathVista outputs are not at {MATHVISTA}")
@pytest.mark.parametrize(("name", "rules", "correct"), [(name, *known) for name, known in PUBLISHED.items()])
def test_published_outputs_of_mathvista_get_their_published_score(name, rules, correct, tmp_path):
    benchmark = BENCHMARKS["mathvista"](MATHVISTA / "testmini.json.gz", rules=rules)
    responses = MATHVISTA / f"responses_{name}.jsonl.gz"
    rows = graded(benchmark, responses, "extraction")
    summary = benchmark.summarise(rows)
    assert (summary["all"]["mean"], summary["all"]["num"]) == (correct / 1000, 1000)
    assert summary["statistical reasoning"]["num"] == 301
    if name == "bard":
        tasks = {"figure question answering": (70, 269), "visual question answering": (48, 179)}
        for task, (right, num) in tasks.items():
            assert summary[task]["mean"] == pytest.approx(right / num)
    prompts = benchmark.load()
    results = write_regraded(tmp_path, benchmark, prompts, rows, responses, {})
    assert results["by_rules"][rules]["mean"] == correct / 1000
    submission = json.loads((tmp_path / "leaderboard.json").read_text())
    with gzip.open(responses, "rt") as file:
        for row in map(json.loads, file):
            found = submission[row["pid"]]
            assert (found["prediction"], found["true_false"]) == (row["prediction"], row["true_false"])


def test_mathvista_writes_the_leaderboards_file_both_rules_and_empty_extractions(tmp_path):
    benchmark = BENCHMARKS["mathvista"](write_benchmark("mathvista", tmp_path / "data"))
    said = ["3.7", "40", "", "B", "red", "1.52", "[2014, 2016]"]
    answers = [
        {
            "pid": row["pid"],
            "response": f"So it is.\n\n# Answer\n\n{text}" if text else "",
            "extraction": text,
        }
        for row, text in zip(mathvista_rows(), said, strict=True)
    ]
    responses = write(tmp_path / "r.jsonl", answers)
    prompts = benchmark.load()
    rows = grade_responses(benchmark, prompts, responses, "extraction")
    results = write_regraded(
        tmp_path / "out", benchmark, prompts, rows, responses, {"rules": benchmark.rules}
    )
    # 3.7 is 3 by the rule of today and no integer by the former one; nothing at all is North, the shortest.
    assert results["accuracy"]["all"]["mean"] == pytest.approx(6 / 7)
    assert results["by_rules"]["mathvista"]["mean"] == pytest.approx(6 / 7)
    assert results["by_rules"]["mathvista-2023"]["mean"] == pytest.approx(5 / 7)
    assert results["num_empty"] == 1
    submission = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert [*submission] == [row["pid"] for row in mathvista_rows()]
    for row in mathvista_rows():
        assert submission[row["pid"]].items() >= row.items()
    assert {*submission["7001"]} - {*mathvista_rows()[0]} == {
        "query",
        "response",
        "extraction",
        "prediction",
        "true_false",
    }
    assert submission["7002"]["query"].endswith("Question: How old is the oak? (Unit: years)")
    asked = {"lmm": {"question_style": "plain", "instruction": "Think first."}}
    write_results(tmp_path / "out", benchmark, prompts, rows, asked, None)
    submission = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert submission["7002"]["query"] == "How old is the oak? (Unit: years)\nThink first.", "as it was asked"
    assert (submission["7003"]["prediction"], submission["7003"]["true_false"]) == ("North", False)


def test_regraded_responses_give_the_results_of_the_evaluation(tmp_path):
    benchmark = BENCHMARKS["mmbench"](write_benchmark("mmbench", tmp_path / "data"))
    prompts = benchmark.load()
    answers = [{"id": prompt.id, "response": "Look.\n\n# Answer\n\nB"} for prompt in prompts]
    generated = {"finish_reason": "length", "num_tokens": 7}
    responses = write(tmp_path / "r.jsonl", [row | generated for row in answers])
    rows = grade_responses(benchmark, prompts, responses)
    first, second = tmp_path / "first", tmp_path / "second"
    settings = {"policy": "x", "data": str(benchmark.data), "num_prompts": 5, "rules": benchmark.rules}
    written = write_results(first, benchmark, prompts, rows, settings, "f")
    kept = first / "responses.jsonl"
    again = grade_responses(benchmark, prompts, kept)
    write_regraded(second, benchmark, prompts, again, kept, {"rules": benchmark.rules})
    assert (first / "responses.jsonl").read_text() == (second / "responses.jsonl").read_text()
    assert json.loads((second / "results.json").read_text()) == written
    assert written["accuracy"]["all"]["truncated"] == 2
    other = BENCHMARKS["mmbench"](tmp_path / "data", rules="head")
    results = write_regraded(second, other, prompts, again, kept, {"rules": other.rules})
    assert results["settings"] == settings | {"rules": "vlmevalkit-head"}
    assert results["fingerprint"] == "f", "an evaluation may take these responses for its own"


def test_what_an_evaluation_would_not_have_left_is_not_taken_for_it(tmp_path):
    """A part of the responses, extractions, other data: each is told, and none has the fingerprint."""
    benchmark = BENCHMARKS["ai2d"](write_benchmark("ai2d", tmp_path / "data"))
    prompts = benchmark.load()
    rows = [{"id": prompt.id, "response": "A", "extraction": "B"} for prompt in prompts]
    graded = grade_responses(benchmark, prompts, write(tmp_path / "r.jsonl", rows))
    settings = {"data": str(benchmark.data), "num_prompts": 3, "rules": benchmark.rules}
    write_results(tmp_path / "first", benchmark, prompts, graded, settings, "f")
    kept, out = tmp_path / "first/responses.jsonl", tmp_path / "second"

    def written(other, some):
        return write_regraded(out, other, prompts, some, kept, {"rules": other.rules})

    part = written(benchmark, graded[:2])
    assert (part["settings"]["num_prompts"], part["fingerprint"]) == (2, None)
    extracted = written(benchmark, grade_responses(benchmark, prompts, kept, "extraction"))
    assert (extracted["settings"]["graded"], extracted["fingerprint"]) == ("extraction", None)
    copy = BENCHMARKS["ai2d"](write_benchmark("ai2d", tmp_path / "copy"))
    moved = written(copy, graded)
    assert (moved["settings"]["data"], moved["fingerprint"]) == (str(tmp_path / "copy"), None)
    readable = BENCHMARKS["ai2d_no_mask"](write_benchmark("ai2d_no_mask", tmp_path / "readable"))
    with pytest.raises(InputError, match=r"results\.json: of ai2d, not of ai2d_no_mask"):
        written(readable, graded)
    apart = write_regraded(out, benchmark, prompts, graded, tmp_path / "r.jsonl", {"rules": benchmark.rules})
    assert (apart["settings"]["num_prompts"], apart["fingerprint"]) == (3, None)
