"""Small benchmarks of invented content, in the layouts in which the real ones are published."""

from __future__ import annotations

import json
from pathlib import Path

from mstar_pl.data.jsonl import write_jsonl
from tests.evaluation.files import Row, base64_of, cell_of, write_image, write_parquet, write_tsv

FORMS = {
    "mathvista": ("json", "parquet", "tsv"),
    "m3cot": ("jsonl", "parquet"),
    "mmstar": ("parquet", "tsv"),
    "mmbench": ("tsv", "parquet", "jsonl"),
    "ai2d": ("parquet", "tsv", "jsonl"),
    "ai2d_no_mask": ("parquet", "tsv"),
}
"""The forms of each benchmark of a policy; of the first one, small ones are made for whole runs."""


# MathVista


def mathvista_rows() -> list[Row]:
    integer = {"answer_type": "integer", "question_type": "free_form"}
    choice = {"answer_type": "text", "question_type": "multi_choice"}
    tasks = ("math word problem", "geometry problem solving", "visual question answering")
    rows = [
        integer | {"question": "How many trees are taller than the fence?", "answer": "3"},
        integer | {"question": "How old is the oak?", "answer": "40", "unit": "years"},
        choice | {"question": "Which stall sold more?", "answer": "South", "choices": ["North", "South"]},
        choice | {"question": "Which letter is longest?", "answer": "a", "choices": ["b", "a"]},
        choice | {"question": "Which tie?", "answer": "red", "choices": ["blue", "red", "red"]},
        integer | {"question": "How wide?", "answer": "1.5", "answer_type": "float", "precision": 1},
        integer | {"question": "Which years?", "answer": "[2014, 2016]", "answer_type": "list"},
    ]
    empty = {"choices": None, "unit": None, "precision": None}
    return [
        empty
        | row
        | {
            "pid": str(7001 + number),
            "image": f"images/{7001 + number}.jpg",
            "metadata": {
                "split": "testmini",
                "language": "english",
                "img_width": 32,
                "img_height": 24,
                "source": "Demo",
                "category": "math-targeted-vqa",
                "task": tasks[number % 3],
                "context": "abstract scene",
                "grade": "elementary school",
                "skills": ["arithmetic reasoning"] + ["statistical reasoning"] * (number % 2),
            },
        }
        for number, row in enumerate(rows)
    ]


HINTS = {
    "text": "Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.",
    "integer": "Please answer the question requiring an integer answer and provide the final value, "
    "e.g., 1, 2, 3, at the end.",
    "float": "Please answer the question requiring a floating-point number with one decimal place "
    "and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.",
    "list": "Please answer the question requiring a Python list as an answer and provide the final list, "
    "e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
}


def mathvista_query(row: Row) -> str:
    """Return the released query of a row."""
    unit = f" (Unit: {row['unit']})" if row["unit"] else ""
    lines = [f"Hint: {HINTS[row['answer_type']]}", f"Question: {row['question']}{unit}"]
    if row["choices"]:
        lines += ["Choices:", *(f"({'ABC'[place]}) {text}" for place, text in enumerate(row["choices"]))]
    return "\n".join(lines)


def write_mathvista(folder: Path, form: str) -> None:
    rows = mathvista_rows()
    if form == "json":
        for number, row in enumerate(rows):
            write_image(folder / "data" / row["image"], number)
        text = json.dumps({row["pid"]: row for row in rows})
        (folder / "data/testmini.json").write_text(text)
    elif form == "parquet":  # precision as a 64-bit float, the query as a column
        wide = [
            row
            | {
                "precision": None if row["precision"] is None else float(row["precision"]),
                "decoded_image": cell_of(number),
                "query": mathvista_query(row),
            }
            for number, row in enumerate(rows)
        ]
        write_parquet(folder / "data/testmini-00000-of-00001.parquet", wide)
        write_parquet(folder / "data/test-00000-of-00001.parquet", wide[:1])
    else:  # the question is the query, lists are texts, metadata are columns
        flat = [
            {"index": row["pid"]}
            | {key: row[key] for key in ("answer", "unit", "precision", "question_type", "answer_type")}
            | {key: value for key, value in row["metadata"].items() if key != "skills"}
            | {
                "question": mathvista_query(row),
                "choices": str(row["choices"] or []),
                "answer_option": "ABC"[row["choices"].index(row["answer"])] if row["choices"] else None,
                "skills": str(row["metadata"]["skills"]),
                "image": base64_of(number),
            }
            for number, row in enumerate(rows)
        ]
        write_tsv(folder / "MathVista_MINI.tsv", flat)


# M3CoT


def m3cot_rows() -> list[Row]:
    rows = [
        ("commonsense", "physical-commonsense", "Which lamp is on?", ["left", "right", "both"], "B"),
        ("mathematics", "algebra", "What is x?", ["1", "2", "2", "4", "5"], "C"),  # the same text twice
        ("science", "natural-science", "Which is alive?", ["the stone", "the fern"], "B"),
    ]
    return [
        {
            "id": f"{topic}-{9001 + number}",
            "category": "Light",
            "image_id": f"{topic}-{9001 + number}",
            "question": question,
            "choices": choices,
            "context": "" if number == 1 else f"Scene {number}.",
            "answer": answer,
            "rationale": "Look.",
            "split": "test",
            "domain": domain,
            "topic": topic,
        }
        for number, (domain, topic, question, choices, answer) in enumerate(rows)
    ]


def write_m3cot(folder: Path, form: str) -> None:
    rows = m3cot_rows()
    if form == "parquet":
        wide = [row | {"image": cell_of(number)} for number, row in enumerate(rows)]
        write_parquet(folder / "data/test-00000-of-00001.parquet", wide)
        write_parquet(folder / "data/train-00000-of-00001.parquet", wide)
        return
    for number, row in enumerate(rows):
        row["image"] = f"images/{row['id']}.png"
        write_image(folder / "data" / row["image"], number)
    write_jsonl(folder / "data/test.jsonl", rows)


# MMStar


def mmstar_rows() -> list[Row]:
    """Rows with the options apart."""
    rows = [
        ("coarse perception", "image emotion", "How does it feel?", ["calm", "sad", "odd", "loud"], "A"),
        ("logical reasoning", "diagram reasoning", "Which block?", ["red", "blue, dark", "none", "all"], "B"),
        ("math", "geometry", "How long is AB?", ["1", "2", "3", "4"], "D"),
        ("science & technology", "biology & chemistry & physics", "Which gas?", ["O", "H", "C", "N"], "C"),
    ]
    return [
        {
            "index": 2001 + number,
            "question": question,
            "options": options,
            "answer": answer,
            "category": category,
            "l2_category": l2,
        }
        for number, (category, l2, question, options, answer) in enumerate(rows)
    ]


def write_mmstar(folder: Path, form: str) -> None:
    rows = mmstar_rows()
    if form == "tsv":
        apart = [
            {key: value for key, value in row.items() if key != "options"}
            | dict(zip("ABCD", row["options"], strict=True))
            | {"bench": "Demo", "image": base64_of(number)}
            for number, row in enumerate(rows)
        ]
        write_tsv(folder / "MMStar.tsv", apart)
        return
    for number, row in enumerate(rows):
        options = row.pop("options")
        row["image"] = cell_of(number)
        row["meta_info"] = {"source": "Demo", "split": "test", "image_path": f"images/{number}.jpg"}
        if number < 2:
            listed = ", ".join(f"{name}: {text}" for name, text in zip("ABCD", options, strict=True))
            row["question"] += f"\nOptions: {listed}"
        else:  # as in MathVista; some rows lack the line `Choices:`
            lines = [f"({name}) {text}" for name, text in zip("ABCD", options, strict=True)]
            head = [f"Hint: {HINTS['text']}", f"Question: {row['question']}"] + ["Choices:"] * (number == 2)
            row["question"] = "\n".join([*head, *lines])
    write_parquet(folder / "data/val-00000-of-00001.parquet", rows)


# MMBench


def mmbench_rows() -> list[Row]:
    """Two questions and their copies with rolled options; only the first row of a question has an image."""
    questions = [
        (
            31,
            "What happens next?",
            None,
            ["The cup falls", "The cup stays"],
            "future_prediction",
            "logic_reasoning",
        ),
        (40, "Where is it?", "A map.", ["Oslo", "Rome", "Bonn"], "image_topic", "coarse_perception"),
    ]
    return [
        {
            "index": index + roll * 1_000_000,
            "question": question,
            "hint": hint,
            **{
                name: (options[roll:] + options[:roll] + [None, None])[place]
                for place, name in enumerate("ABCD")
            },
            "answer": "ABCD"[-roll % len(options)],
            "category": category,
            "image": index,
            "l2-category": l2,
            "split": "dev",
        }
        for index, question, hint, options, category, l2 in questions
        for roll in range(len(options))
    ]


def write_mmbench(folder: Path, form: str) -> None:
    rows = mmbench_rows()
    if form == "parquet":  # a copy with texts for missing cells, all images, another spelling
        wide = [
            {key.replace("l2-", "L2-"): "nan" if value is None else value for key, value in row.items()}
            | {"image": cell_of(row["image"])}
            for row in rows
        ]
        write_parquet(folder / "data/dev-00000-of-00001.parquet", wide)
        return
    for row in rows:
        row["image"] = base64_of(row["image"]) if row["index"] == row["image"] else str(row["image"])
    if form == "tsv":
        write_tsv(folder / "MMBench_DEV_EN_V11.tsv", rows)
    else:
        write_jsonl(folder / "dev.jsonl", rows)


# AI2D


def ai2d_rows() -> list[Row]:
    rows = [
        ("What does the arrow show?", ["energy flow", "rain", "wind", "heat"], 0),
        ("How many moons?", ["3", "2", "1", "0"], 1),  # an index that is also the text of an option
        ("Which label is the root?", ["A", "B", "C", "D"], 2),  # masked labels are letters
    ]
    return [
        {"index": number, "question": question, "options": options, "answer": str(gold)}
        for number, (question, options, gold) in enumerate(rows)
    ]


def write_ai2d(folder: Path, form: str, name: str = "AI2D_TEST") -> None:
    rows = ai2d_rows()
    if form == "tsv":
        apart = [
            {
                "index": row["index"],
                "question": row["question"],
                **dict(zip("ABCD", row["options"], strict=True)),
                "answer": "ABCD"[int(row["answer"])],
                "category": "foodChainsWebs",
                "image": base64_of(number),
            }
            for number, row in enumerate(rows)
        ]
        write_tsv(folder / f"{name}.tsv", apart)
        return
    for number, row in enumerate(rows):
        del row["index"]
        row["image"] = cell_of(number) if form == "parquet" else base64_of(number)
    if form == "parquet":
        write_parquet(folder / "data/test-00000-of-00001.parquet", rows)
    else:
        write_jsonl(folder / "test.jsonl", rows)


def write_benchmark(name: str, folder: Path, form: str | None = None) -> Path:
    """Write a benchmark of a policy into a folder, by default in the first of its forms."""
    form = form or FORMS[name][0]
    if name == "ai2d_no_mask":
        write_ai2d(folder, form, "AI2D_TEST_NO_MASK")
    else:
        writers = {
            "mathvista": write_mathvista,
            "m3cot": write_m3cot,
            "mmstar": write_mmstar,
            "mmbench": write_mmbench,
            "ai2d": write_ai2d,
        }
        writers[name](folder, form)
    return folder
