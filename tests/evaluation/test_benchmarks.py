"""Benchmarks as they are published: the same prompts from every form, official prompts, grades, scores."""

from dataclasses import replace

import pytest

from mstar_pl.data.format import render_question
from mstar_pl.data.images import image_digest
from mstar_pl.evaluation.benchmarks import BENCHMARKS, choose
from mstar_pl.evaluation.benchmarks.benchmark import load_checked
from mstar_pl.evaluation.benchmarks.mmstar import split_options
from mstar_pl.evaluation.evaluate import graded_row, write_results
from mstar_pl.types import InputError
from tests.evaluation import published
from tests.evaluation.published import FORMS, write_benchmark

MISSING = {"ai2d": ["category"], "ai2d_no_mask": ["category"]}
"""Metadata that only some forms have."""


def load(name, folder, **options):
    return list(load_checked(BENCHMARKS[name](folder, **options)))


def without_place(prompt, name):
    """The prompt with the contents of its images instead of where they lie."""
    metadata = {key: value for key, value in prompt.metadata.items() if key not in MISSING.get(name, ())}
    digests = tuple(image_digest(image) for image in prompt.images)
    return replace(prompt, images=digests, metadata=metadata)


@pytest.mark.parametrize("style", ["policy", "official"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_prompts(name, style, tmp_path):
    read = []
    for form in FORMS[name]:
        folder = write_benchmark(name, tmp_path / form, form)
        read.append([without_place(prompt, name) for prompt in load(name, folder, prompts=style)])
    for prompts in read[1:]:
        if name == "mmstar" and style == "official":  # its rows like MathVista's are asked as they stand
            assert prompts[:2] == read[0][:2]
        else:
            assert prompts == read[0]
    assert all(len(prompt.images) == 1 for prompt in read[0])
    assert all((prompt.query is None) == (style == "policy") for prompt in read[0])


def gold(prompts):
    return {prompt.id: prompt.answer for prompt in prompts}


def test_mathvista_fields_keep_their_types(tmp_path):
    prompts = {p.id: p for p in load("mathvista", write_benchmark("mathvista", tmp_path, "parquet"))}
    assert gold(prompts.values()) == {row["pid"]: row["answer"] for row in published.mathvista_rows()}
    assert prompts["7006"].precision == 1
    assert isinstance(prompts["7006"].precision, int), "published as a 64-bit float"
    assert prompts["7002"].unit == "years"
    assert prompts["7001"].choices is None
    assert prompts["7002"].metadata["skills"] == ["arithmetic reasoning", "statistical reasoning"]


def test_mathvista_is_asked_by_the_released_query(tmp_path):
    for prompt, row in zip(
        load("mathvista", write_benchmark("mathvista", tmp_path), prompts="official"),
        published.mathvista_rows(),
        strict=True,
    ):
        assert render_question(prompt, "plain") == published.mathvista_query(row)


def test_letters_as_choices_are_read_as_an_index_in_mathvista(tmp_path):
    benchmark = BENCHMARKS["mathvista"](write_benchmark("mathvista", tmp_path))
    prompt = {p.id: p for p in benchmark.load()}["7004"]  # choices b, a; gold a
    assert benchmark.grade("# Answer\n\nB", prompt).outcome == "correct"
    assert benchmark.grade("# Answer\n\nA", prompt).outcome == "wrong"


def test_the_letter_tells_choices_of_the_same_text_apart(tmp_path):
    benchmark = BENCHMARKS["m3cot"](write_benchmark("m3cot", tmp_path))
    prompt = benchmark.load()[1]  # choices 1, 2, 2, 4, 5; gold C
    assert benchmark.grade("So x is 2.\n\n# Answer\n\n(C)", prompt).outcome == "correct"
    assert benchmark.grade("So x is 2.\n\n# Answer\n\n(B)", prompt).outcome == "wrong"


@pytest.mark.parametrize("name", ["m3cot", "mmstar", "mmbench", "ai2d"])
def test_a_chain_of_thought_is_graded_by_its_final_answer(name, tmp_path):
    benchmark = BENCHMARKS[name](write_benchmark(name, tmp_path))
    for prompt in benchmark.load():
        letter = prompt.metadata["letter"]
        other = "A" if letter != "A" else "B"
        thought = f"A look at ({other}) says: the answer is {other}.\n\n# Answer\n\n{letter}"
        assert benchmark.grade(thought, prompt).outcome == "correct"
        assert benchmark.grade(letter, prompt).outcome == "correct", (
            "a response without a heading counts whole"
        )
        assert benchmark.grade(f"{letter}\n\n# Answer\n\n{other}", prompt).outcome == "wrong"
        nothing = benchmark.grade("", prompt)
        assert (nothing.outcome, nothing.extraction, nothing.prediction) == ("wrong", None, None)


def test_context_and_hint_are_part_of_the_question(tmp_path):
    first, second, _ = load("m3cot", write_benchmark("m3cot", tmp_path / "a"), prompts="official")
    assert first.question == "Scene 0.\nWhich lamp is on?"
    assert first.query == (
        "[Context]\nScene 0.\n\n[Question]\nWhich lamp is on?\n[Choices]\n(A) left\n(B) right\n(C) both"
        "\n\nLet's think step-by-step!"
    )
    assert second.query.startswith("[Question]"), "an empty context is left out"
    prompts = load("mmbench", write_benchmark("mmbench", tmp_path / "b"), prompts="official")
    assert [prompt.question for prompt in prompts[::2]] == ["What happens next?"] + [
        "A map.\nWhere is it?"
    ] * 2
    assert prompts[2].query == (
        "Hint: A map.\nQuestion: Where is it?\nOptions:\nA. Oslo\nB. Rome\nC. Bonn\n"
        "Please select the correct answer from the options above. \n"
    )


def test_official_prompts_of_mmstar_and_ai2d_ask_for_the_letter(tmp_path):
    prompts = load("mmstar", write_benchmark("mmstar", tmp_path / "a", "tsv"), prompts="official")
    assert prompts[1].query == (
        "Which block?\nOptions: A: red, B: blue, dark, C: none, D: all\n"
        "Answer with the option's letter from the given choices directly"
    )
    prompts = load("ai2d", write_benchmark("ai2d", tmp_path / "b"), prompts="official")
    assert prompts[1].query == (
        "How many moons?\nA. 3\nB. 2\nC. 1\nD. 0\n"
        "Answer with the option's letter from the given choices directly."
    )


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Q?\nOptions: A: x, B: y", ("x", "y")),
        ("Q?\nOptions: A: x, C: z, B: y, C: ", ("x, C: z", "y", "")),
        ("Hint: h\nQuestion: Q?\n(A) x\n(B) y", ("x", "y")),
        ("Hint: h\nQuestion: Q?\nChoices:\n(A) x\n(B) y (A)", ("x", "y (A)")),
    ],
)
def test_options_of_mmstar_are_told_apart(text, options):
    assert split_options(text) == ("Q?", options)


def test_mmstar_is_read_by_the_name_of_its_file_and_options_are_not_doubled(tmp_path):
    folder = write_benchmark("mmstar", tmp_path / "a", "parquet")
    expected = [prompt.choices for prompt in load("mmstar", folder)]
    (folder / "data/val-00000-of-00001.parquet").rename(folder / "mmstar.parquet")
    assert [prompt.choices for prompt in load("mmstar", folder)] == expected
    path = write_benchmark("mmstar", tmp_path / "b", "tsv") / "MMStar.tsv"
    both = path.read_text().replace(
        "Which block?", '"Which block?\nOptions: A: red, B: blue, dark, C: none, D: all"'
    )
    path.write_text(both)
    prompts = load("mmstar", tmp_path / "b", prompts="official")
    assert [prompt.choices for prompt in prompts] == expected
    assert prompts[1].question == "Which block?"
    assert prompts[1].query.count("Options:") == 1


def test_questions_without_options_are_refused():
    with pytest.raises(ValueError, match="ends neither"):
        split_options("How many?")


def test_ai2d_answers_are_indices_or_letters(tmp_path):
    expected = {"0": "energy flow", "1": "2", "2": "C"}
    for form in FORMS["ai2d"]:
        assert gold(load("ai2d", write_benchmark("ai2d", tmp_path / form, form))) == expected


def test_ai2d_variants_are_kept_apart(tmp_path):
    masked = load("ai2d", write_benchmark("ai2d", tmp_path / "a", "tsv"))
    readable = load("ai2d_no_mask", write_benchmark("ai2d_no_mask", tmp_path / "b", "tsv"))
    assert {prompt.metadata["labels"] for prompt in masked} == {"masked"}
    assert {prompt.metadata["labels"] for prompt in readable} == {"readable"}
    with pytest.raises(InputError, match="no ai2d here"):
        BENCHMARKS["ai2d"](tmp_path / "b")
    with pytest.raises(InputError, match="use the benchmark ai2d_no_mask"):
        BENCHMARKS["ai2d"](tmp_path / "b/AI2D_TEST_NO_MASK.tsv")
    with pytest.raises(InputError, match="use the benchmark ai2d"):
        BENCHMARKS["ai2d_no_mask"](tmp_path / "a/AI2D_TEST.tsv")
    folder = write_benchmark("ai2d_no_mask", tmp_path / "ai2d-no-mask", "parquet")
    with pytest.raises(InputError, match="use the benchmark ai2d_no_mask"):
        BENCHMARKS["ai2d"](folder)
    for form in FORMS["ai2d"]:
        with pytest.raises(InputError, match=r"use the benchmark ai2d|no ai2d_no_mask here"):
            BENCHMARKS["ai2d_no_mask"](write_benchmark("ai2d", tmp_path / form / "ai2d", form))
    both = write_benchmark("ai2d_no_mask", tmp_path / "tsv/ai2d", "tsv")
    assert len(BENCHMARKS["ai2d_no_mask"](both).load()) == 3, "the name of the file tells"


def answered(benchmark, letters):
    """Rows of prompts that are answered by these letters, in their order."""
    pairs = zip(benchmark.load(), letters, strict=True)
    return [graded_row(benchmark, prompt, letter) | {"finish_reason": "stop"} for prompt, letter in pairs]


def means(summary):
    return {group: found["mean"] for group, found in summary.items()}


def test_mmbench_is_circular_and_vanilla(tmp_path):
    benchmark = BENCHMARKS["mmbench"](write_benchmark("mmbench", tmp_path))
    right = [prompt.metadata["letter"] for prompt in benchmark.load()]
    assert right == ["A", "B", "A", "C", "B"]
    one_copy_wrong = [*right[:3], "A", "B"]
    summary = benchmark.summarise(answered(benchmark, one_copy_wrong))
    assert summary["all"]["num"] == 2, "copies are no questions of their own"
    assert means(summary) == {
        "all": 0.5,
        "perception": 0.0,
        "reasoning": 1.0,
        "coarse_perception": 0.0,
        "logic_reasoning": 1.0,
        "future_prediction": 1.0,
        "image_topic": 0.0,
        "vanilla all": 1.0,
        "vanilla perception": 1.0,
        "vanilla reasoning": 1.0,
        "vanilla coarse_perception": 1.0,
        "vanilla logic_reasoning": 1.0,
        "vanilla future_prediction": 1.0,
        "vanilla image_topic": 1.0,
    }
    assert benchmark.headline == "reasoning"


def test_mmbench_counts_questions_without_answer_and_not_their_copies(tmp_path):
    benchmark = BENCHMARKS["mmbench"](write_benchmark("mmbench", tmp_path / "data"))
    rows = answered(benchmark, ["A", "B", "A", "?", "?"])
    results = write_results(tmp_path, benchmark, benchmark.load(), rows, {}, None)
    assert results["num_empty"] == 1


def test_a_letter_that_no_option_has_is_no_answer(tmp_path):
    """To MMStar any first character is one."""
    benchmark = BENCHMARKS["mmstar"](write_benchmark("mmstar", tmp_path))
    found = benchmark.grade("# Answer\n\nThey differ.", benchmark.load()[0])
    assert (found.outcome, found.prediction, found.extraction) == ("wrong", "T", None)


def test_mmstar_r_is_what_is_no_perception(tmp_path):
    benchmark = BENCHMARKS["mmstar"](write_benchmark("mmstar", tmp_path))
    summary = benchmark.summarise(answered(benchmark, ["B", "B", "D", "A"]))
    assert benchmark.headline == "reasoning"
    assert summary["reasoning"]["num"] == 3
    assert summary["reasoning"]["mean"] == pytest.approx(2 / 3)
    assert means(summary)["perception"] == 0
    assert means(summary)["geometry"] == 1


def test_rules_of_other_versions_are_options(tmp_path):
    folder = write_benchmark("mmbench", tmp_path)
    early = "# Answer\n\nA, I think, from what can be seen"
    for era, outcome in (("2024", "correct"), ("head", "wrong")):
        benchmark = choose(BENCHMARKS, "mmbench", folder, {"rules": era})
        assert benchmark.grade(early, benchmark.load()[0]).outcome == outcome
        assert benchmark.rules == f"vlmevalkit-{era}"
    folder = write_benchmark("ai2d", tmp_path / "ai2d")
    for rule, outcome in (("vlmevalkit-2024", "correct"), ("lmms-eval", "wrong")):
        benchmark = choose(BENCHMARKS, "ai2d", folder, {"rules": rule})
        assert benchmark.grade("A energy flow", benchmark.load()[0]).outcome == outcome
