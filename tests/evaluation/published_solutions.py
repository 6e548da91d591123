"""Small benchmarks of step judges, of invented content, in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path

from mstar_pl.data.jsonl import write_jsonl
from tests.evaluation.files import Row, cell_of, write_image, write_parquet


def visualprocessbench_rows() -> list[Row]:
    return [
        {
            "image": [f"images/{number}.png"],
            "question": "<image>\nFind x.",
            "answer": "4",
            "response": {"steps": steps, "process_correctness": labels},
            "policy_model": "demo",
            "data_source": source,
        }
        for number, (source, steps, labels) in enumerate(
            [
                ("MathVerse", ["x+1=5", "x=6"], [1, -1]),
                ("WeMath", ["Look.\n\nThere are 4.", "x=4"], [0, 1]),
            ]
        )
    ]


def write_visualprocessbench(folder: Path, form: str = "jsonl") -> Path:
    rows = visualprocessbench_rows()
    if form == "parquet":
        wide = [row | {"image": [cell_of(number)]} for number, row in enumerate(rows)]
        write_parquet(folder / "data/test-00000-of-00001.parquet", wide)
        return folder
    for number, row in enumerate(rows):
        write_image(folder / row["image"][0], number)
    write_jsonl(folder / "test.jsonl", rows)
    return folder


def processbench_rows(split: str) -> list[Row]:
    return [
        {
            "id": f"{split}-{number}",
            "generator": "demo",
            "problem": "2+3?",
            "steps": steps,
            "final_answer_correct": label < 0,
            "label": label,
        }
        for number, (steps, label) in enumerate([(["2+3=5."], -1), (["2+3 adds.", "So 6.", "6."], 1)])
    ]


def write_processbench(folder: Path, form: str = "json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("gsm8k", "math", "olympiadbench", "omnimath"):
        rows = processbench_rows(split)
        if form == "parquet":
            write_parquet(folder / f"data/{split}-00000-of-00001.parquet", rows)
        else:
            (folder / f"{split}.json").write_text(json.dumps(rows))
    return folder
