"""Write a split of MiniVista to disk."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mstar_pl.data.minivista.generator import MiniVista
from mstar_pl.types import Example


def write_split(out: Path, split: str, count: int, seed: int = 0, *, solutions: bool) -> Path:
    """Write `out/{split}.jsonl` and the pictures `out/images/{split}/{i}.png`.

    The JSONL file is renamed into place last, so that it exists only when all its pictures do; writing again
    gives the same bytes. Image paths are relative to the JSONL file.

    Args:
        out: Directory of the data set; made when missing.
        split: `pretrain`, `train`, `val` or `test`.
        count: Number of items.
        seed: Seed of the sequence.
        solutions: Whether each line is an example (the solution is its response) instead of a prompt.

    Returns:
        Path of the JSONL file.
    """
    items = MiniVista(seed=seed, split=split)
    (out / "images" / split).mkdir(parents=True, exist_ok=True)
    line = partial(_write_item, items, out, solutions)
    target = out / f"{split}.jsonl"
    part = target.with_suffix(f".{os.getpid()}.part")
    bar = partial(tqdm, total=count, desc=f"minivista {split}", unit="item", delay=2)
    with part.open("w", encoding="utf-8") as file:
        if count < 2_000:
            file.writelines(bar(map(line, range(count))))
        else:
            with ProcessPoolExecutor() as pool:
                file.writelines(bar(pool.map(line, range(count), chunksize=256)))
    part.replace(target)
    return target


def _write_item(items: MiniVista, out: Path, solutions: bool, index: int) -> str:
    item = items[index]
    name = f"images/{items.split}/{index}.png"
    item.image.save(out / name, compress_level=1)
    prompt = replace(item.prompt, images=(name,))
    record = Example(prompt=prompt, response=item.solution) if solutions else prompt
    return json.dumps(record.to_json(), ensure_ascii=False) + "\n"
