"""The prompt JSONL format: what is read, and what is refused with file, line and reason."""

import json
from pathlib import Path

import pytest
from PIL import Image

from mstar_pl.data.images import image_size, load_image, verify_images
from mstar_pl.data.jsonl import read_examples, read_prompts, write_jsonl
from mstar_pl.types import InputError

GOOD = {"id": "1", "images": [], "question": "1+1?", "answer": "2"}


def write(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_all_fields_survive_a_round_trip(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures/a.png")
    row = {
        "id": "x",
        "images": ["pictures/a.png"],
        "question": "Which?",
        "answer": "b",
        "choices": ["a", "b"],
        "question_type": "multi_choice",
        "answer_type": "text",
        "unit": "g",
        "precision": 1,
        "metadata": {"task": "geometry problem solving", "skills": ["x"]},
    }
    (prompt,) = read_prompts(write(tmp_path / "p.jsonl", row))
    assert prompt.images == (str(tmp_path / "pictures/a.png"),), "relative to the file"
    assert prompt.to_json() == row | {"images": list(prompt.images)}
    assert prompt.task == "geometry problem solving"


def test_null_is_unlabelled_and_float_precision_is_read_as_a_count(tmp_path):
    rows = [GOOD | {"id": "a", "answer": None}, GOOD | {"id": "b", "precision": 2.0, "answer_type": "float"}]
    first, second = read_prompts(write(tmp_path / "p.jsonl", *rows))
    assert first.answer is None
    assert second.precision == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{broken", "not valid JSON"),
        ('{"id": NaN}', "NaN is not a finite number"),
        (json.dumps(GOOD | {"id": "2", "precision": 1})[:-2] + "1e999}", "1e999 is not a finite number"),
        (json.dumps(GOOD | {"id": "2", "metadata": {}})[:-2] + '"x": -1e999}}', "-1e999 is not a finite"),
        ("[1]", "expected a JSON object, got list"),
        ({"id": "2", "images": [], "question": "?"}, "'answer' is missing \\(null means unlabelled\\)"),
        (GOOD | {"id": 2}, "'id' must be a string, got int; write numbers as strings"),
        (GOOD | {"id": "1"}, "id '1' was already used in line 1"),
        (GOOD | {"id": ""}, "'id' is empty"),
        (GOOD | {"id": "2", "question": "  "}, "'question' is empty"),
        (GOOD | {"id": "2", "images": "a.png"}, "'images' must be a list of strings"),
        (GOOD | {"id": "2", "images": ["gone.png"]}, "image 'gone.png' does not exist"),
        (
            GOOD | {"id": "2", "colour": "red"},
            "unknown field 'colour'; put extra information into 'metadata'",
        ),
        (GOOD | {"id": "2", "question_type": "essay"}, "question_type 'essay' is not one of"),
        (GOOD | {"id": "2", "answer_type": "number"}, "answer_type 'number' is not one of"),
        (GOOD | {"id": "2", "choices": ["1", "3"]}, "answer '2' is not one of the choices"),
        (GOOD | {"id": "2", "question_type": "multi_choice"}, "'choices' is missing or empty"),
        (GOOD | {"id": "2", "answer_type": "integer", "answer": "two"}, "answer 'two' is not a number"),
        (GOOD | {"id": "2", "answer_type": "integer", "answer": "2.5"}, "answer '2.5' is not whole"),
        (GOOD | {"id": "2", "answer_type": "float", "answer": "nan"}, "answer 'nan' is not finite"),
        (GOOD | {"id": "2", "precision": -1}, "'precision' must be a whole number"),
        (GOOD | {"id": "2", "metadata": []}, "'metadata' must be an object"),
    ],
)
def test_malformed_line_is_refused_with_file_line_and_reason(tmp_path, row, reason):
    path = write(tmp_path / "p.jsonl", GOOD, "", row)
    with pytest.raises(InputError, match=reason) as error:
        read_prompts(path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert "\n" not in str(error.value)


def test_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    write(tmp_path / "empty.jsonl")
    for name, reason in {
        "latin": "not UTF-8",
        "empty": "the data set is empty",
        "gone": "no such file",
    }.items():
        with pytest.raises(InputError, match=reason):
            read_prompts(tmp_path / f"{name}.jsonl")


def test_examples_need_a_response_and_may_share_a_prompt(tmp_path):
    rows = [GOOD | {"response": "2"}, GOOD | {"response": "1 + 1 = 2."}]
    assert [example.response for example in read_examples(write(tmp_path / "e.jsonl", *rows))] == [
        "2",
        "1 + 1 = 2.",
    ]
    with pytest.raises(InputError, match=r"e\.jsonl:1: field 'response' is missing or empty"):
        read_examples(write(tmp_path / "e.jsonl", GOOD))


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = write_jsonl(tmp_path / "f.jsonl", [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(path, rows())
    assert path.read_text() == '{"a": 1}\n'
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        write_jsonl(tmp_path, rows())


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "LA", "RGBA", "1", "I;16"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (5, 3)).save(path)
    assert load_image(str(path)).mode == "RGB"
    assert image_size(str(path)) == (3, 5)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_what_is_transparent_is_white_and_nothing_else_changes(tmp_path, mode):
    """A drawing in black on a dark ground that is not to be seen."""
    drawing = Image.new("RGBA", (16, 16), (51, 51, 51, 0))
    drawing.paste((0, 0, 0, 255), (4, 4, 8, 8))
    drawing = drawing.convert(mode if "A" in mode else "RGB").convert(mode)
    hidden = {} if "A" in mode else {"transparency": drawing.getpixel((0, 0))}
    drawing.save(tmp_path / "a.png", **hidden)
    seen = load_image(str(tmp_path / "a.png"))
    white, black = (255, 255, 255), (0, 0, 0)
    assert [seen.getpixel((place, place)) for place in (3, 4, 7, 8)] == [white, black, black, white]
    whole = Image.frombytes("RGBA", (64, 1), bytes(part for n in range(64) for part in (4 * n, 7, n, 255)))
    whole.save(tmp_path / "b.png")
    assert load_image(str(tmp_path / "b.png")).tobytes() == whole.convert("RGB").tobytes()


def test_broken_images_are_named_before_training(tmp_path, prompts):
    good = prompts[0]
    data = (tmp_path / "cut.png", tmp_path / "text.png", tmp_path / "gone.png")
    whole = Path(good.images[0]).read_bytes()
    data[0].write_bytes(whole[: len(whole) // 2])
    data[1].write_text("hello")
    for path, reason in zip(data, ["cannot be read", "cannot be read", "no such image"], strict=True):
        bad = type(good)(id="bad", question="?", images=(str(path),))
        with pytest.raises(InputError, match=rf"^d\.jsonl: prompt 'bad': {path}: {reason}"):
            verify_images([good, bad], "d.jsonl")
    verify_images([good], "d.jsonl")


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (200, 200)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="decompression bomb"):
        load_image(str(path))
