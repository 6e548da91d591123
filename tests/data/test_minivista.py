"""MiniVista: determinism, disjoint splits, well-formed solutions, a checker that catches wrong numbers."""

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


def test_steps_are_judged_one_by_one(items):
    item = item_of("bars", items)
    name, value = next(iter(item.facts.seen.items()))
    low, high = sorted((value, value + 100))
    cases = {
        f"We need: {name} {value}.": True,
        f"We need: {name} {value + 1}.": False,  # not what is seen
        f"We need: pink {value}.": False,  # not in the picture
        f"{value} + {value} = {2 * value}.": True,
        f"The sum is {value} + {value} = {2 * value}.": True,
        f"The difference is {value} + {value} = {2 * value}.": False,  # wrong word for the operation
        f"{value} + {value} = {2 * value + 1}.": False,
        f"{value} + 97 = {value + 97}.": False,  # 97 comes from nowhere
        f"{value} - 0 = {value}.": False,
        f"{value} / {value} = 1.": True,
        f"{value} / 0 = 0.": False,
        f"{high} > {low}.": False,
        "I think it is nice.": False,
        "": None,
    }
    for step, truth in cases.items():
        assert check_steps(item, step) == ([] if truth is None else [truth]), step


def test_results_become_known_and_rounding_is_half_up(items):
    item = item_of("stacks", items)
    value = next(iter(item.facts.seen.values()))
    twice, four = 2 * value, 4 * value
    chain = f"{value} + {value} = {twice}.\n\n{twice} + {twice} = {four}."
    assert check_steps(item, chain) == [True, True]
    assert check_steps(item, f"{value} / {value} = 1.0.\n\n# Answer\n\n1000") == [True, False]
    assert check_steps(item, f"{value} / {value} = 1.{'0' * 40}.") == [False]


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
