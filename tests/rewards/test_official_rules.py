"""The benchmarks' own rules, step by step; invented answers."""

import pytest

from mstar_pl.rewards.official import ai2d, m3cot, mmstar, vlmevalkit
from mstar_pl.rewards.official.process import first_wrong, macro_f1, process_bench_f1

LAMPS = ("left lamp", "right lamp", "both equal", "none")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A) first, but on second thought (c)", "C"),
        ("It is (F).", "F"),  # there is no such choice: wrong, whatever follows
        ("(B) [Answer] right lamp [Rationale] (A)", "B"),
        ("[Answer] (A) [Context] (B)", "A"),
        ("[Answer] (A) [Answer] (D)", "D"),
        ("The Right Lamp, not the left lamp", "B"),  # the last by its place among the choices
        ("B or A", "B"),
        ("C.", "C"),
        ("\nD\n", "D"),
        ("I take a look", "A"),  # the article
        ("b, then c", "C"),
        ("E", None),  # there are four choices
        ("*B*", None),  # only . , ! ? and line ends separate
        ("", None),
    ],
)
def test_m3cot_goes_from_parentheses_over_texts_to_single_letters(text, letter):
    assert m3cot.chosen_letter(text, LAMPS) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b: green", "B"),
        ("(c)", "C"),
        ("Option D", "D"),
        ("the answer is a", "A"),
        ("The answer is (A)", "("),  # one prefix only: wrong
        ("A careful look shows B", "A"),
        ("I think B", "I"),
        ("(", None),
        ("option ", "O"),  # blanks at the end are dropped first
        ("\n", None),
    ],
)
def test_mmstar_reads_the_first_character_behind_one_prefix(text, letter):
    assert mmstar.chosen_letter(text) == letter


OPTIONS = {"A": "cup", "B": "plate", "C": "cup of tea"}


@pytest.mark.parametrize(
    ("text", "of_2024", "of_head"),
    [
        ("B", "B", "B"),
        ("(B) because of [this]:", "B", "B"),
        ("B because of this and that", "B", None),  # not among the last four words; too long for the texts
        ("all of this says that it is B", "B", "B"),
        ("A or B", None, None),
        ("D", None, None),  # there is no option D
        ("**B**", "B", "B"),
        ("b", None, None),  # letters are capitals
        ("Plate!", "B", "B"),
        ("a cup of tea", None, None),  # cup, too
        ("the cup", "A", "A"),
        ("Z", "Z", "Z"),
        ("I'm sorry, but without the image provided I say B", "Z", "Z"),
        ("Failed to obtain answer via API: B", None, None),
        ("The answer is B, and neither A nor C would fit", None, "B"),
        ("The answer is a plate", "B", "A"),  # head takes the article for the letter
        ("", None, None),
    ],
)
def test_vlmevalkit_wants_one_letter_or_one_text(text, of_2024, of_head):
    assert vlmevalkit.chosen_letter(text, OPTIONS) == of_2024
    assert vlmevalkit.chosen_letter(text, OPTIONS, "head") == of_head


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B. sun", "B"),
        (" c. ", "C"),
        ("(D)", "D"),
        ("b.", "B"),
        ("B sun", None),
        ("B) sun", None),
        ("1", None),
    ],
)
def test_lmms_eval_wants_a_letter_with_a_full_stop_or_nothing_else(text, letter):
    assert ai2d.chosen_letter(text) == letter


def test_macro_f1_is_the_mean_over_both_classes_without_neutral_steps():
    labels = [1, 1, 1, -1, 0, 0]
    assert macro_f1([True] * 3 + [False, True, False], labels) == 1
    assert macro_f1([False] * 3 + [True] * 3, labels) == 0
    # All taken for correct: F1 6/7 for correct steps, 0 for incorrect ones.
    assert macro_f1([True] * 6, labels) == pytest.approx(3 / 7)
    assert macro_f1([True], [0]) == 0
    with pytest.raises(ValueError, match="zip"):
        macro_f1([True], [1, -1])


def test_process_bench_wants_the_first_wrong_step_exactly():
    predicted = [first_wrong(judged) for judged in ([True, False], [False, False], [True], [True, True])]
    assert predicted == [1, 0, -1, -1]
    found = process_bench_f1(predicted, [1, 1, -1, 0])
    assert found == {"error": pytest.approx(1 / 3), "correct": 1.0, "f1": pytest.approx(0.5)}
    assert process_bench_f1([0], [-1]) == {"error": 0.0, "correct": 0.0, "f1": 0.0}
