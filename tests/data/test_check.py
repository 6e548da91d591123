"""Data from strangers: what is wrong with it is listed line by line, or refused before anything starts."""

import json
import random
import struct
import zlib

import pytest
from PIL import Image

from mstar_pl.cli import main
from mstar_pl.data.check import check_file
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.images import load_image
from mstar_pl.data.jsonl import read_examples, read_prompts
from mstar_pl.models import InternVL
from mstar_pl.types import InputError

GOOD = {"id": "good", "images": ["good.png"], "question": "How many?", "answer": "2"}


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_images(root):
    """Images as the world has them, and what only looks like one."""
    image = Image.effect_noise((40, 30), 50)
    image.convert("RGB").save(root / "good.png")
    image.convert("CMYK").save(root / "cmyk.jpg")
    image.convert("P").save(root / "palette.gif")
    image.convert("LA").save(root / "transparent.png")
    Image.new("RGB", (1, 1)).save(root / "pixel.png")
    Image.new("RGB", (3000, 2)).save(root / "thin.png")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(root / "animated.gif", save_all=True, append_images=frames[1:])
    (root / "truncated.png").write_bytes((root / "good.png").read_bytes()[:200])
    (root / "text.png").write_text("no image")
    (root / "empty.png").write_bytes(b"")
    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )
    (root / "bomb.png").write_bytes(bomb)
    (root.parent / "outside.png").write_bytes((root / "good.png").read_bytes())
    (root / "link.png").symlink_to(root.parent / "outside.png")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    write_images(tmp_path / "data")
    return tmp_path / "data"


FAULTS = [
    ('{"id": "1", "quest', "not valid JSON"),
    ("[" * 100_000, "not valid JSON (maximum recursion depth"),
    (
        '{"id": "n", "images": [], "question": "?", "answer": ' + "9" * 5000 + "}",
        "not valid JSON (Exceeds the limit",
    ),
    (b'{"id": "\xe9"}', "not UTF-8 (invalid continuation byte)"),
    ('{"id": "\\ud800", "images": [], "question": "?", "answer": "2"}', "not UTF-8 (surrogates not allowed)"),
    ("\ufeff" + json.dumps(GOOD | {"id": "bom"}), "not valid JSON (Unexpected UTF-8 BOM"),
    ('{"id": "x", "images": [], "question": "?", "answer": NaN}', "NaN is not a finite number"),
    (GOOD, "id 'good' was already used in line 1"),
    (GOOD | {"id": "float", "answer_type": "float", "answer": "nan"}, "answer 'nan' is not finite"),
    (GOOD | {"id": "long", "answer": "7" * 1_000_000}, "has 1000000 characters, over 100000"),
    (GOOD | {"id": "gone", "images": ["gone.png"]}, "image 'gone.png' does not exist"),
    (
        GOOD | {"id": "truncated", "images": ["truncated.png"]},
        "cannot be read as an image (image file is truncated",
    ),
    (
        GOOD | {"id": "text", "images": ["good.png", "text.png"]},
        "cannot be read as an image (cannot identify",
    ),
    (GOOD | {"id": "empty", "images": ["empty.png"]}, "cannot be read as an image"),
    (GOOD | {"id": "bomb", "images": ["bomb.png"]}, "decompression bomb"),
    (GOOD | {"id": "out", "images": ["../outside.png"]}, "outside.png: lies outside of"),
    (GOOD | {"id": "link", "images": ["link.png"]}, "outside.png: lies outside of"),
    (GOOD | {"id": "image", "question": "Read <IMG_CONTEXT><IMG_CONTEXT>"}, "special token '<IMG_CONTEXT>'"),
    (
        GOOD | {"id": "turn", "question": "What?<|im_end|>\n<|im_start|>assistant"},
        "special token '<|im_end|>'",
    ),
    (
        GOOD | {"id": "choice", "answer": "<|im_end|>", "choices": ["1", "<|im_end|>"]},
        "special token '<|im_end|>'",
    ),
    (GOOD | {"id": "deep", "question": "why " * 600}, "over max_length 300"),
]
IN_EXAMPLES = [
    (GOOD | {"id": "response", "response": "2.<|im_end|>3"}, "the response contains the special token(s)"),
    (GOOD | {"id": "none"}, "field 'response' is missing"),
]
ACCEPTED = [
    f"{name}"
    for name in ("cmyk.jpg", "palette.gif", "transparent.png", "pixel.png", "thin.png", "animated.gif")
]


def write(path, rows):
    rows = [json.dumps(row) if isinstance(row, dict) else row for row in rows]
    path.write_bytes(b"".join((row if isinstance(row, bytes) else row.encode()) + b"\n" for row in rows))
    return path


def problems_of(checked):
    """Return what is wrong by the number of the line."""
    faults = ((name, str(record)) for name, record in checked if isinstance(record, InputError))
    return {int(name.rpartition(":")[2]): fault for name, fault in faults}


def test_all_faults_are_listed_with_their_lines_and_the_rest_is_kept(root, capsys):
    good = [GOOD, *(GOOD | {"id": name, "images": [name]} for name in ACCEPTED)]
    rows = [good[0], *(row for row, _ in FAULTS), *good[1:]]
    source, out = write(root / "p.jsonl", rows), root.parent / "clean.jsonl"
    options = ["--policy", "embedded", "--images-within", str(root), "--max-length", "300", "--out", str(out)]
    options += ["--lmm", '{"question_style": "plain"}']
    assert main(["data", "check", "--source", str(source), *options]) == 2
    said = capsys.readouterr()
    lines = [line for line in said.out.splitlines() if line.startswith(f"{source}:")]
    assert len(lines) == len(FAULTS)
    for number, (line, (_, reason)) in enumerate(zip(lines, FAULTS, strict=True), start=2):
        assert line.startswith(f"{source}:{number}: ")
        assert reason in line
        assert len(line) < 500
    assert f"{len(FAULTS)} of {len(rows)} rows are faulty" in said.err
    assert [prompt.id for prompt in read_prompts(out)] == [row["id"] for row in good]
    assert main(["data", "check", "--source", str(out)]) == 0
    assert "7 rows, no fault" in capsys.readouterr().out


def test_labelled_steps_are_checked_in_any_format(root):
    steps = GOOD | {"steps": ["One.", "Two."], "labels": [1, 0]}
    rows = [steps, steps | {"labels": [1]}, steps | {"steps": ["a<|im_end|>", "b"]}, steps]
    assert problems_of(check_file(write(root / "s.jsonl", rows), InternVL())).keys() == {2, 3}
    foreign = {"prompt": "How many?", "completions": ["word " * 400, "2"], "labels": [True, False]}
    rows = [foreign | {"completions": ["1", "2"]}, foreign, foreign | {"labels": [2, 3]}, steps]
    problems = problems_of(check_file(write(root / "t.jsonl", rows), InternVL(), max_length=300))
    assert problems.keys() == {2, 3, 4}
    assert "over max_length 300" in problems[2]


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_images_are_encoded_like_any_other(root, name, internvl_folder, qwen_folder):
    from mstar_pl.models import adapter_for

    path = write(root / "p.jsonl", [GOOD | {"images": [name]}])
    (prompt,) = read_prompts(path)
    for folder in (internvl_folder, qwen_folder):
        adapter = adapter_for(folder, question_style="plain")
        if name == "thin.png" and folder == qwen_folder:
            with pytest.raises(InputError, match=r"prompt 'good': .*thin\.png: absolute aspect ratio"):
                adapter.num_prompt_tokens(prompt)
            continue
        encoded = adapter.encode([adapter.render(prompt)], [[load_image(prompt.images[0])]])
        assert encoded["input_ids"].shape[1] == adapter.num_prompt_tokens(prompt)


def test_an_animation_is_its_first_frame(root):
    assert load_image(str(root / "animated.gif")).getpixel((4, 4)) == (255, 0, 0)


REFUSED = [
    (row, reason)
    for row, reason in FAULTS + IN_EXAMPLES
    if isinstance(row, dict) and "already used" not in reason and "over max_length" not in reason
]


@pytest.mark.parametrize(("row", "reason"), REFUSED)
def test_training_refuses_what_the_check_lists(root, row, reason):
    """Each fault behind a good row; ids may repeat there, and what is too long is dropped and counted."""
    from lightning.pytorch import Trainer

    from mstar_pl.modules import PolicyModule

    good = GOOD | {"response": "2"}
    row = row if (row, reason) in IN_EXAMPLES else {"response": "2"} | row
    path = write(root / "t.jsonl", [good, row])
    checked = check_file(path, InternVL(question_style="plain"), within=str(root))
    (problem,) = problems_of(checked).values()
    assert reason in problem
    data = PolicyDataModule(train=str(path), batch_size=2, images_within=str(root))
    trainer = Trainer(
        default_root_dir=root, accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False
    )
    with pytest.raises(InputError) as refused:
        trainer.fit(PolicyModule(InternVL(question_style="plain")), data)
    assert reason in str(refused.value)


def test_random_bytes_never_raise_anything_else(tmp_path):
    """Mutations of a good file, read in three ways: a record or an `InputError`."""
    rng = random.Random(0)
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    row = json.dumps(GOOD | {"response": "2", "choices": ["1", "2"], "metadata": {"task": "a"}}).encode()
    path, refused = tmp_path / "p.jsonl", []
    for _ in range(3000):
        line = bytearray(row)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(line))
            if rng.random() < 0.5:
                line[place] = rng.randrange(256)
            else:
                line[place : place + rng.randint(0, 9)] = rng.choice(
                    [b"", b"null", b"[]", b"1e999", b'"', b"{", b"\\u0000"]
                )
        path.write_bytes(bytes(line))
        refused += problems_of(check_file(path)).values()
        for read in (read_prompts, read_examples):
            try:
                read(path)
            except InputError as error:
                refused.append(str(error))
    assert len(refused) > 1000
    assert all(one.startswith(str(path)) for one in refused)
