"""A source opens its table, checks the first row and says which later one is at fault; what cells mean."""

import json

import pytest

from mstar_pl.data.format import render_question
from mstar_pl.data.sources.fields import gold_choice, parse_question
from mstar_pl.data.sources.source import RowSource
from mstar_pl.types import InputError, Prompt


class Sums(RowSource):
    def read(self, number, row):
        question = f"{row['a']}+{row['b']}?"
        return Prompt(
            id=str(number), question=question, images=self.image(row.get("image")), answer=row["sum"]
        )


def test_rows_become_prompts_when_they_are_asked_for(tmp_path, picture_folder):
    rows = [{"a": 1, "b": 2, "sum": "3", "image": "0.png"}, {"a": 1, "b": 1, "sum": "2", "image": None}]
    (tmp_path / "sums.json").write_text(json.dumps([*rows, {"a": 5, "b": 5, "sum": "10", "image": "9.png"}]))
    prompts = Sums(tmp_path / "sums.json", images=picture_folder).load()
    assert len(prompts) == 3
    assert prompts[0] == Prompt(id="0", question="1+2?", images=(f"{picture_folder}/0.png",), answer="3")
    assert prompts[1].images == ()
    with pytest.raises(InputError, match=r"sums.json: row 2: image '9.png' does not exist"):
        prompts[2]
    with pytest.raises(InputError, match=r"sums.json: row 2: image '9.png' does not exist"):
        list(prompts)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[]", "no rows"), ('[{"a": 1, "b": 1, "sum": "2", "image": 7}]', "must be a path, got 7")],
)
def test_an_empty_table_and_a_faulty_first_row_are_refused(tmp_path, text, reason):
    (tmp_path / "sums.json").write_text(text)
    with pytest.raises(InputError, match=reason):
        Sums(tmp_path / "sums.json").load()


@pytest.mark.parametrize(
    ("answer", "form", "expected"),
    [
        ("B", "any", "A"),  # options that are letters themselves: the letter names the option
        ("B", "text", "B"),
        ("(A)", "any", "B"),
        ("b", "any", "B"),
        ("2", "index", "C"),
        (2, "any", "C"),
    ],
)
def test_a_letter_names_an_option_even_where_options_are_letters(answer, form, expected):
    assert gold_choice(answer, ["B", "A", "C"], form) == expected


def test_an_answer_that_begins_with_an_article_is_no_letter():
    assert gold_choice("A dog", ["A cat", "A dog"]) == "A dog"
    assert gold_choice("(B) a dog.", ["A cat", "A dog"]) == "A dog"
    with pytest.raises(ValueError, match="names none of the 2 choices"):
        gold_choice("(A) a dog", ["A cat", "A dog"])


def test_parts_of_a_query():
    query = "<image>\nHint: Do.\nQuestion: Which?\nSee (A).\nChoices:\n(A) one\ntwo\n(B) (C) three\n(C) "
    assert parse_question(query) == ("Which?\nSee (A).", ("one\ntwo", "(C) three", ""), "Do.")
    assert parse_question("<image><image>\nQuestion: Is it so?\n<image>").question == "Is it so?"
    assert parse_question("Is (A) right?") == ("Is (A) right?", None, None)
    with pytest.raises(ValueError, match="options are lettered A, C, not A, B, C in order"):
        parse_question("Which?\nChoices:\n(A) one\n(C) two")


def test_a_prescribed_query_is_the_text_of_the_user_turn(tmp_path):
    prompt = Prompt(id="1", question="How many?", unit="g", query="Q: How many? A:")
    assert render_question(prompt) == render_question(prompt, "plain") == "Q: How many? A:"
    assert Prompt.from_json(prompt.to_json()) == prompt
    assert "query" not in Prompt(id="1", question="How many?").to_json()
