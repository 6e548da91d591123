"""MiniVista: determinism, disjoint splits, well-formed solutions, a checker that catches wrong numbers."""

import dataclasses
import json
import re
from collections import Counter
from itertools import islice
from random import Random

import pytest
from PIL import Image

from mstar_pl.data.minivista import SPLITS, TASKS, MiniVista, check_steps, write_split
from mstar_pl.data.minivista.generator import split_of
from mstar_pl.types import Example, Prompt

NUMBER = re.compile(r"\d+(?:\.\d+)?")
TOKEN = re.compile(r"\n\n| ?[A-Za-z]+| ?\d{1,2}| ?[^\sA-Za-z\d]")


@pytest.fixture(scope="module")
def items():
    return list(islice(MiniVista(seed=1), 1500))


def item_of(kind, items):
    return next(item for item in items if item.prompt.metadata["kind"] == kind)


def test_an_item_depends_on_seed_split_and_index_only(items):
    again = MiniVista(seed=1)[77]
    assert again.prompt == items[77].prompt
    assert again.solution == items[77].solution
    assert again.image.tobytes() == items[77].image.tobytes()
    assert MiniVista(seed=2)[77].key != again.key
    assert again.prompt.id == "minivista-1-train-77"


def test_splits_share_no_content():
    keys = {split: {item.key for item in islice(MiniVista(split=split), 400)} for split in SPLITS}
    for split, own in keys.items():
        assert {split_of(key) for key in own} == {split}
        assert len(own) > 0.9 * 400, "too many duplicates"
    assert sum(map(len, keys.values())) == len(set().union(*keys.values()))


def test_tasks_are_balanced_and_can_be_chosen(items):
    assert set(Counter(item.prompt.task for item in items).values()) == {len(items) // len(TASKS)}
    assert {item.prompt.task for item in islice(MiniVista(tasks=TASKS[:1]), 9)} == {
        "figure question answering"
    }


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="split 'dev' is not one of"):
        MiniVista(split="dev")
    with pytest.raises(ValueError, match="must be one or more of"):
        MiniVista(tasks=("poetry",))
    with pytest.raises(IndexError):
        MiniVista()[-1]


def test_forms_of_answers_have_their_shares(items):
    forms = Counter((item.prompt.question_type, item.prompt.answer_type) for item in items)
    shares = {form: count / len(items) for form, count in forms.items()}
    assert shares == {
        ("free_form", "integer"): pytest.approx(0.60, abs=0.05),
        ("free_form", "float"): pytest.approx(0.15, abs=0.05),
        ("multi_choice", "text"): pytest.approx(0.25, abs=0.05),
    }


def test_prompts_are_valid_and_options_distinct(items):
    for item in items:
        assert Prompt.from_json(item.prompt.to_json()) == item.prompt
        choices = item.prompt.choices
        assert choices is None or (len(set(choices)) == len(choices) and len(choices) in (3, 4))
        if item.prompt.answer_type == "float":
            assert re.fullmatch(r"\d+\.\d", item.prompt.answer)


def test_solutions_have_two_to_six_steps_and_end_in_the_answer(items):
    for item in items:
        *steps, marker, written = item.solution.split("\n\n")
        assert 2 <= len(steps) <= 6
        assert marker == "# Answer"
        choices = item.prompt.choices
        assert (choices["ABCD".index(written)] if choices else written) == item.prompt.answer


def test_language_is_small_and_texts_are_short(items):
    texts = [" ".join((i.prompt.question, i.solution, i.caption, *(i.prompt.choices or ()))) for i in items]
    assert len({word for text in texts for word in re.findall("[A-Za-z]+", text)}) < 350
    assert max(len(TOKEN.findall(item.prompt.question)) for item in items) <= 30
    assert max(len(TOKEN.findall(item.solution)) for item in items) <= 75


def test_pictures_are_small_rgb(items):
    assert {(item.image.size, item.image.mode) for item in items} == {((96, 96), "RGB")}


def test_own_solutions_and_captions_are_true(items):
    for item in items:
        truths = check_steps(item, item.solution)
        assert truths == [True] * (item.solution.count("\n\n")), item.solution
        assert check_steps(item, item.caption) == [True]


def test_any_single_wrong_number_is_noticed(items):
    rng = Random(0)
    for item in items:
        spans = [match.span() for match in NUMBER.finditer(item.solution)]
        for start, end in spans:
            right = item.solution[start:end]
            step = rng.choice((1, 2, 3, 10))
            wrong = str(int(right) + step) if right.isdigit() else f"{float(right) + step / 10:.1f}"
            corrupted = item.solution[:start] + wrong + item.solution[end:]
            assert not all(check_steps(item, corrupted)), corrupted


def asked(items, seen, solution):
    """Return an item about bars of these heights with this solution."""
    item = item_of("bars", items)
    prompt = dataclasses.replace(item.prompt, question="What?", answer="0", choices=None)
    facts = dataclasses.replace(item.facts, seen=seen)
    return dataclasses.replace(item, prompt=prompt, facts=facts, solution=solution)


def test_steps_are_judged_one_by_one(items):
    item = asked(items, {"red": 3, "blue": 5}, "3 + 5 = 8.")
    cases = {
        "The bars read: red 3, blue 5.": True,
        "The bars read: red 3, blue 6.": False,  # not what is seen
        "The bars read: pink 3.": False,  # not in the picture
        "The dice show: red 3.": False,  # another scene
        "3 + 5 = 8.": True,
        "The sum is 5 + 3 = 8.": True,
        "The difference is 3 + 5 = 8.": False,  # wrong word for the operation
        "3 + 5 = 9.": False,
        "5 - 3 = 2.": False,  # true, but not what is asked
        "5 + 5 = 10.": False,
        "3 + 97 = 100.": False,  # 97 comes from nowhere
        "5 / 0 = 0.": False,
        "blue 5 > red 3.": True,
        "red 3 > blue 5.": False,
        "105 > 5.": False,
        "We need: blue 5.": True,
        "We need: blue 3.": False,
        "I think it is nice.": False,
        "": None,
    }
    for step, truth in cases.items():
        assert check_steps(item, step) == ([] if truth is None else [truth]), step


def test_what_is_not_needed_is_wrong(items):
    item = asked(items, {"red": 3, "blue": 5}, "We need: red 3.")
    cases = {"We need: red 3.": True, "We need: blue 5.": False, "The question is about: red 3.": True}
    for step, truth in cases.items():
        assert check_steps(item, step) == [truth], step


@pytest.mark.parametrize(
    ("solution", "response", "truths"),
    [
        pytest.param("3 + 5 = 8.", "3 + 5 = 8.\n\n3 + 5 = 8.\n\n8 + 5 = 13.", [1, 1, 0], id="said again"),
        pytest.param("3 + 5 = 8.\n\n8 + 2 = 10.", "5 + 2 = 7.\n\n7 + 3 = 10.", [1, 1], id="other order"),
        pytest.param("3 + 5 = 8.\n\n8 + 2 = 10.", "3 + 5 = 8.\n\n5 + 2 = 7.", [1, 0], id="taken twice"),
        pytest.param("3 + 5 = 8.\n\n8 + 2 = 10.", "3 + 5 = 9.\n\n9 + 2 = 11.", [0, 0], id="carried on"),
        pytest.param(
            "9 - 3 = 6.\n\n6 - 5 = 1.", "3 + 5 = 8.\n\n9 - 8 = 1.", [1, 1], id="difference of a sum"
        ),
        pytest.param("9 - 3 = 6.\n\n6 - 5 = 1.", "5 - 3 = 2.\n\n9 - 2 = 7.", [0, 0], id="wrong difference"),
        pytest.param(
            "3 * 2 = 6.\n\n6 + 5 = 11.", "5 * 2 = 10.\n\n10 + 3 = 13.", [0, 0], id="wrong one doubled"
        ),
        pytest.param(
            "3 * 5 = 15.\n\n15 / 2 = 7.5.", "3 / 2 = 1.5.\n\n5 * 1.5 = 7.5.", [1, 1], id="divided first"
        ),
        pytest.param("3 + 5 = 8.\n\n8 / 3 = 2.7.", "5 + 3 = 8.\n\n8 / 3 = 2.67.", [1, 1], id="more decimals"),
        pytest.param("3 + 5 = 8.\n\n8 / 3 = 2.7.", "8 / 3 = 2.7.\n\n3 + 5 = 8.", [0, 1], id="too early"),
        pytest.param("3 + 5 = 8.\n\n8 / 3 = 2.7.", f"3 + 5 = 8.\n\n8 / 3 = 2.{'6' * 40}.", [1, 0], id="long"),
        pytest.param("3 * 3 = 9.\n\n5 * 5 = 25.", "5 * 5 = 25.\n\n3 * 3 = 9.", [1, 1], id="two results"),
        pytest.param("5 - 3 = 2.", "3 - 5 = -2.", [0], id="negative"),
    ],
)
def test_computations_lead_to_the_answer(items, solution, response, truths):
    item = asked(items, {"red": 3, "blue": 5}, solution)
    assert check_steps(item, response) == [bool(truth) for truth in truths]


@pytest.mark.parametrize("solutions", [True, False])
def test_written_split_reads_back(tmp_path, solutions):
    path = write_split(tmp_path, "val", 6, seed=3, solutions=solutions)
    content = path.read_bytes()
    assert write_split(tmp_path, "val", 6, seed=3, solutions=solutions).read_bytes() == content
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["images", "val.jsonl"]
    record = Example if solutions else Prompt
    for item, line in zip(MiniVista(seed=3, split="val"), content.decode().splitlines(), strict=False):
        read = record.from_json(json.loads(line))
        prompt = read.prompt if solutions else read
        assert (prompt.id, prompt.question, prompt.answer) == (
            item.prompt.id,
            item.prompt.question,
            item.prompt.answer,
        )
        assert not solutions or read.response == item.solution
        assert Image.open(tmp_path / prompt.images[0]).convert("RGB").tobytes() == item.image.tobytes()
