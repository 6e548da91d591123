"""The paper's split of a labelled set: a half with answers, a half without, and held-out prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

from mstar_pl.data.digests import file_digest, records_digest
from mstar_pl.data.durable import written_new
from mstar_pl.data.images import image_digest
from mstar_pl.data.jsonl import write_json, write_jsonl
from mstar_pl.data.labelled import check_labelled, hidden
from mstar_pl.data.records import View
from mstar_pl.data.sources.given import Given, load_prompts, name_of
from mstar_pl.data.sources.source import Source
from mstar_pl.types import InputError, Prompt

Parts = dict[str, list[int]]


def split_places(keys: Sequence[Any], sizes: dict[str, int], percent: float, seed: int) -> Parts:
    """Split places into held-out parts, a labelled and an unlabelled one; equal keys stay together.

    Args:
        keys: Key of each place, e.g. the images of a prompt.
        sizes: Places of each held-out part; what is left of a key that does not fit is in no part.
        percent: Share of the rest that is labelled.
        seed: Seed of the order.

    Raises:
        InputError: There are too few places, or a size or the percentage is out of range.

    >>> split_places(["a", "a", "b", "c", "d"], {"test": 1}, 50, seed=1)
    {'test': [0], 'labelled': [2, 4], 'unlabelled': [3]}
    """
    if min(sizes.values(), default=0) < 0 or not 0 < percent <= 100:
        given = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(f"{given}, percent {percent}: give sizes of at least 0, a percentage in (0, 100]")
    groups: dict[Any, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    order = list(groups.values())
    Random(f"{seed}/split").shuffle(order)
    rest = iter(order)
    parts = {name: sorted(_take(rest, size)[:size]) for name, size in sizes.items()}
    left = [place for group in rest for place in group]
    if not left or any(len(parts[name]) < size for name, size in sizes.items()):
        raise InputError(f"{len(keys)} prompts are too few to hold out {sum(sizes.values())}; hold out fewer")
    return parts | _halves(left, keys, round(len(left) * percent / 100))


def _take(groups: Iterable[list[int]], size: int) -> list[int]:
    taken: list[int] = []
    for group in groups if size else ():
        taken += group
        if len(taken) >= size:
            break
    return taken


def _halves(left: list[int], keys: Sequence[Any], size: int) -> Parts:
    while 0 < size < len(left) and keys[left[size]] == keys[left[size - 1]]:
        size += 1
    return {"labelled": sorted(left[:size]), "unlabelled": sorted(left[size:])}


def image_groups(prompts: Iterable[Prompt], source: str) -> list[tuple[str, ...]]:
    """Return a key for each prompt: the same for prompts that share an image, or are linked by such ones.

    Images are compared by their contents, wherever they lie.

    Args:
        prompts: The prompts.
        source: Name of the data, for messages.

    Raises:
        InputError: An image cannot be read.
    """
    leader: dict[str, str] = {}

    def group_of(image: str) -> str:
        while leader.setdefault(image, image) != image:
            leader[image] = leader[leader[image]]
            image = leader[image]
        return image

    firsts: list[tuple[str, ...]] = []  # an image of each prompt, or its id
    for prompt in prompts:
        try:
            images = [image_digest(image) for image in prompt.images]
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: prompt {prompt.id!r}: {error}") from None
        for image in images:
            leader[group_of(image)] = group_of(images[0])
        firsts.append((images[0],) if images else ("without image", prompt.id))
    return [(group_of(first[0]),) if len(first) == 1 else first for first in firsts]


def write_split(source: Given, out: Path, test: int, val: int, percent: float, seed: int) -> dict[str, Any]:
    """Write the parts of a set of prompts as JSONL files, and what was done as `split.json`, and return that.

    `train.jsonl` is the labelled part, `half.jsonl` that and the unlabelled one, its answers hidden. Prompts
    of the same images come into the same part: no image of the test is seen in training. Images are referred
    to where they lie.

    Args:
        source: Labelled prompts.
        out: New folder of the files.
        test: Prompts of `test.jsonl`.
        val: Prompts of `val.jsonl`.
        percent: Share of the rest that is labelled.
        seed: Seed of the choice.

    Raises:
        InputError: The source is at fault, a prompt has no answer, there are too few, or `out` exists.
    """
    with written_new(out) as folder:  # refuses it first
        prompts = load_prompts(source)
        check_labelled(prompts, name_of(source))
        keys = image_groups(prompts, name_of(source))
        parts = split_places(keys, {"test": test, "val": val}, percent, seed)
        chosen: dict[str, Sequence[Prompt]] = {name: View(prompts, places) for name, places in parts.items()}
        written = {
            "source": name_of(source),
            **_described(source),
            "source_sha256": file_digest(Path(name_of(source))) if Path(name_of(source)).exists() else None,
            "seed": seed,
            "percent": percent,
            "num_prompts": {"source": len(prompts)} | {name: len(part) for name, part in chosen.items()},
            "rows_sha256": {name: records_digest(part) for name, part in chosen.items()},
        }
        for name, file in {"labelled": "train", "test": "test", "val": "val"}.items():
            write_jsonl(folder / f"{file}.jsonl", (prompt.to_json() for prompt in chosen[name]))
        both = chain(chosen["labelled"], map(hidden, chosen["unlabelled"]))
        write_jsonl(folder / "half.jsonl", (prompt.to_json() for prompt in both))
        write_json(folder / "split.json", written)
    return written


def _described(source: Given) -> dict[str, Any]:
    """Return the class and the options of a source; of a path nothing."""
    if not isinstance(source, Source):
        return {}
    options = {name: value for name, value in vars(source).items() if not name.startswith("_")}
    kind = type(source)
    return {
        "class_path": f"{kind.__module__}.{kind.__qualname__}",
        "options": json.loads(json.dumps(options, default=str)),
    }
