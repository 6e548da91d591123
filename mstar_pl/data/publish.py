"""CoT and MPRM data sets for others: Parquet that `datasets.load_dataset(FOLDER)` reads, and a card.

    folder/README.md                    card: licence, splits, features, counts
    folder/data/train-00000.parquet     one row a response; `mstar_pl.data.sources.published` reads it back

Images are embedded, or referenced by their paths below a folder that whoever reads the data has, too.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import DatasetInfo, Features, Image, List, SplitDict, SplitInfo, Value
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData

from mstar_pl.data.cards import card, escaped, fenced, listed
from mstar_pl.data.durable import written_new
from mstar_pl.data.images import image_bytes, image_digest, image_size
from mstar_pl.data.jsonl import read_examples, read_rows
from mstar_pl.data.recipe import published_name, recipe_sections
from mstar_pl.data.references import MARK, container
from mstar_pl.data.shards import MANIFEST
from mstar_pl.data.step_formats import format_of, read_steps
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.store import RolloutStore
from mstar_pl.types import Example, InputError

Record = Example | StepLabels
Kind = Literal["cot", "mprm"]
ROWS, SHARD = 100, 500 * 2**20
"""Rows of a row group, which readers take at once, and bytes of a file, as the hub advises."""

_TEXT = Value("string")
_PROMPT = {
    "id": _TEXT,
    "images": List(Image()),
    "question": _TEXT,
    "answer": _TEXT,
    "choices": List(_TEXT),
    "question_type": _TEXT,
    "answer_type": _TEXT,
    "unit": _TEXT,
    "precision": Value("int32"),
    "query": _TEXT,
    "metadata": _TEXT,
}
_FURTHER = {"cot": {"response": _TEXT}, "mprm": {"steps": List(_TEXT), "labels": List(Value("float64"))}}
_ABOUT = {
    "cot": "Questions about images, with responses in steps (chains of thought) that end in `# Answer` and "
    "the answer.",
    "mprm": "Responses to questions about images in steps, each with a label in [0, 1]: whether the right "
    "answer was reached from there, or how often; null means not known. For process reward models.",
}
_READERS = {"cot": "PublishedExamples", "mprm": "PublishedSteps"}
_USE = """`answer` is null where it is not known, and for multiple choice the text of a choice.
`metadata` is JSON as text.

    from datasets import load_dataset
    load_dataset("FOLDER")

    from mstar_pl.data.sources.published import {reader}
    {reader}("FOLDER", split="{split}").load()  # as it was written
"""


def open_split(path: Path, iterations: Iterable[int] | None = None) -> Iterable[Record]:
    """Return the responses of a file, or those that a run selected.

    Args:
        path: JSONL of examples or of labelled steps in any known format, or the `rollouts` folder of a run.
        iterations: Iterations of the run; default are all that are complete. What was selected twice comes
            once.

    Raises:
        InputError: There is nothing of the kind.
    """
    if path.is_dir():
        store = RolloutStore(path)
        found = sorted(int(one.parent.name[-4:]) for one in path.glob(f"iteration-????/{MANIFEST}"))
        if not (chosen := found if iterations is None else list(iterations)):
            raise InputError(f"{path}: no complete iteration; give the rollouts folder of a run")
        return _distinct(chain.from_iterable(store.examples(iteration) for iteration in chosen))
    _, first = next(read_rows(path), (0, {}))
    return read_examples(path) if format_of(first) is None else read_steps(path)


def _distinct(examples: Iterable[Example]) -> Iterator[Example]:
    seen: set[bytes] = set()
    for one in examples:
        text = json.dumps([one.prompt.id, one.response])
        if (key := hashlib.sha256(text.encode()).digest()) not in seen:
            seen.add(key)
            yield one


def write_dataset(
    splits: Mapping[str, Iterable[Record]],
    out: Path,
    *,
    license: str,
    source: str,
    image_root: Path | None = None,
    recipe: Path | None = None,
) -> Path:
    """Write examples or labelled steps as a data set of the hub.

    Args:
        splits: Records by name of the split, all of one kind.
        out: The new folder.
        license: Licence as the hub names it; that of questions and images binds, too.
        source: Where questions, images and responses come from, for the card.
        image_root: Folder below which all images lie; they are then referenced by their paths in it, with
            their SHA-256. Default is to embed them.
        recipe: What the records were made with; it is copied.

    Raises:
        InputError: `out` exists, a split is empty or badly named, or an image lies elsewhere or is missing.
    """
    records = {split: iter(found) for split, found in splits.items()}
    first = {split: next(found, None) for split, found in records.items()}
    kind, sample = _kind(first)
    features = _features(kind, embedded=image_root is None)
    counts = {split: Counts() for split in splits}
    about = recipe_sections(recipe) if recipe is not None else {}
    with written_new(out) as temporary:
        (temporary / "data").mkdir(parents=True)
        for split, rest in records.items():
            whole = (record for record in chain([first[split]], rest) if record is not None)
            rows = (counts[split].added(record, _row(record, image_root)) for record in whole)
            counts[split].num_bytes = _write_shards(temporary / "data", split, rows, features.arrow_schema)
        if recipe is not None:
            shutil.copyfile(recipe, temporary / published_name(recipe))
        body = [
            f"# {escaped(out.name)}",
            _ABOUT[kind],
            _USE.format(reader=_READERS[kind], split=next(iter(counts))),
        ]
        sections = {
            "Source": escaped(source),
            "Images": _EMBEDDED if image_root is None else _REFERENCED,
            "Counts": "\n\n".join(f"{split}:\n\n{listed(one.to_json())}" for split, one in counts.items()),
            "Example": fenced(json.dumps(_shown(sample), indent=1, ensure_ascii=False), "json"),
        }
        text = card(_front_matter(kind, license, features, counts), "\n\n".join(body), sections | about)
        (temporary / "README.md").write_text(text, encoding="utf-8")
    return out


_EMBEDDED = "In the column `images`, as they were."
_REFERENCED = (
    "The column `images` has paths in a folder that is not part of this data set; `image_sha256` tells "
    "whether a file is the one that was used."
)


@dataclass
class Counts:
    """What a split holds.

    Attributes:
        num: Rows, and for labelled steps their steps, correct ones (a label above 0) and those without label.
        tasks: Rows by task.
        prompts: Distinct prompt ids.
        images: Distinct images.
        num_bytes: Bytes of all cells.
    """

    num: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    prompts: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    num_bytes: int = 0

    def added(self, record: Record, row: dict[str, Any]) -> dict[str, Any]:
        """Count a record and return its row."""
        self.num["rows"] += 1
        if isinstance(record, StepLabels):
            self.num["steps"] += len(record.steps)
            self.num["correct steps"] += sum(label is not None and label > 0 for label in record.labels)
            self.num["steps without label"] += record.labels.count(None)
        self.tasks[record.prompt.task] += 1
        self.prompts.add(record.prompt.id)
        self.images |= {image_digest(image) for image in record.prompt.images}
        return row

    def to_json(self) -> dict[str, int]:
        """Return all counts by name."""
        tasks = {f"rows of {task}": count for task, count in sorted(self.tasks.items()) if task != "all"}
        return {**self.num, "prompts": len(self.prompts), "images": len(self.images), **tasks}


def _kind(first: Mapping[str, Record | None]) -> tuple[Kind, Record]:
    """Return what the splits are of, and the first record."""
    for split, record in first.items():
        if not re.fullmatch(r"\w+", split) or split == "all":  # which `datasets` takes to mean every split
            raise InputError(
                f"{split!r} is no name of a split; use letters, digits and underscores, not 'all'"
            )
        if record is None:
            raise InputError(f"split {split}: nothing to write; give records, or leave it out")
    found = [record for record in first.values() if record is not None]
    if len({type(record) for record in found}) != 1:
        raise InputError("splits must be of one kind; write examples and labelled steps apart")
    return ("cot" if isinstance(found[0], Example) else "mprm"), found[0]


def _features(kind: Kind, embedded: bool) -> Features:
    images = {} if embedded else {"images": List(_TEXT), "image_sha256": List(_TEXT)}
    return Features({**_PROMPT, **images, **_FURTHER[kind]})


def _row(record: Record, image_root: Path | None) -> dict[str, Any]:
    """Return the cells of a record, its images embedded or referenced."""
    row, images = record.to_json(), record.prompt.images
    row["metadata"] = json.dumps(row.get("metadata", {}), ensure_ascii=False)
    try:
        for image in images:
            image_size(image)  # refuses any file that is no image
        if image_root is not None:
            row["image_sha256"] = [image_digest(image) for image in images]
            row["images"] = [_below(image, image_root) for image in images]
        else:
            row["images"] = [{"bytes": image_bytes(image), "path": _named(image)} for image in images]
    except (OSError, ValueError) as error:
        raise InputError(f"prompt {record.prompt.id!r}: {error}") from None
    return row


def _below(image: str, root: Path) -> str:
    file, mark, place = image.partition(MARK)
    if not Path(file).resolve().is_relative_to(root.resolve()):
        raise ValueError(f"image {file} is not below {root}; give a folder that holds all, or embed them")
    return Path(file).resolve().relative_to(root.resolve()).as_posix() + mark + place


def _named(image: str) -> str:
    """Return a name for an embedded image that tells nothing of this machine."""
    found = re.search(r"\.\w{1,5}$", image)
    return image_digest(image)[:16] + (found[0].lower() if found and MARK not in found[0] else "")


def _shown(record: Record) -> dict[str, Any]:
    return record.to_json() | {"images": [Path(container(image)).name for image in record.prompt.images]}


def _write_shards(folder: Path, split: str, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> int:
    """Write rows and return the bytes of their cells; an image twice in a row group is stored once in it."""
    number, num_bytes, group = 0, 0, list(islice(rows, ROWS))
    while group:
        path = folder / f"{split}-{number:05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd", dictionary_pagesize_limit=2**30) as writer:
            full = False
            while group and not full:
                table = pa.Table.from_pylist(group, schema)
                writer.write_table(table)
                num_bytes += table.nbytes
                group, full = list(islice(rows, ROWS)), path.stat().st_size >= SHARD
        number += 1
    return num_bytes


def _front_matter(
    kind: Kind, license: str, features: Features, counts: Mapping[str, Counts]
) -> DatasetCardData:
    """Return what the hub and `datasets` read of the card."""
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in counts]
    data = DatasetCardData(
        license=license,
        task_categories=["visual-question-answering"],
        tags=["mstar", "arxiv:2412.17451", "chain-of-thought" if kind == "cot" else "process-reward-model"],
        configs=[{"config_name": "default", "data_files": files}],
    )
    splits = SplitDict()
    for split, found in counts.items():
        splits.add(SplitInfo(split, num_bytes=found.num_bytes, num_examples=found.num["rows"]))
    DatasetInfosDict({"default": DatasetInfo(features=features, splits=splits)}).to_dataset_card_data(data)
    return data
