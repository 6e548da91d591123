"""Benchmarks of a process reward model: does it find the wrong steps?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from mstar_pl.data.references import locate
from mstar_pl.data.sources.fields import mapping_of, text_of, texts_of
from mstar_pl.data.sources.source import TableRecords, folder_of, image_names
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.tables import Row, open_table
from mstar_pl.evaluation.benchmarks.benchmark import check_ids, checked, find_file, require
from mstar_pl.rewards.official.process import first_wrong, macro_f1, process_bench_f1
from mstar_pl.types import InputError, Prompt

_LABELS = {1: 1.0, -1: 0.0, 0: None}
Judged = tuple[StepLabels, Sequence[bool]]
"""A solution, and whether each of its steps was judged correct."""


class StepBenchmark(ABC):
    """Solutions whose steps are labelled by people.

    Args:
        data: Folder or file of the data.

    Attributes:
        name: Name of the benchmark.
        group_key: Key of the metadata that groups the scores.
        files: Names of the published files, in the order in which they are looked for.
        columns: Columns that each row must have.
    """

    name: ClassVar[str]
    group_key: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[str, ...]]

    def __init__(self, data: str | Path) -> None:
        self.data = Path(data)

    @abstractmethod
    def load(self) -> list[StepLabels]:
        """Return the solutions.

        Raises:
            InputError: The data are malformed; names file, row and fix.
        """

    @abstractmethod
    def read(self, row: Row, number: int) -> StepLabels:
        """Return the solution of a row; a `ValueError` is the row's fault."""

    def read_split(self, split: str, files: Sequence[str]) -> list[StepLabels]:
        """Return the solutions of one of some files, or of the Parquet files of a split.

        Raises:
            InputError: There is none of them, or a row is at fault; names it.
        """
        path = find_file(self.data, files, f"{split} of {self.name}")

        def read(number: int, row: Row) -> StepLabels:
            with checked(row, self.columns):
                return self.read(row | {"split": split}, number)

        return list(TableRecords(open_table(path, split if path.is_dir() else None), read))

    @abstractmethod
    def summarise(self, judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
        """Return the official score by group, in [0, 1], `all` first."""

    def grouped(self, judged: Sequence[Judged]) -> dict[str, list[Judged]]:
        """Return the solutions by group."""
        groups: dict[str, list[Judged]] = {}
        for one in judged:
            groups.setdefault(one[0].prompt.metadata[self.group_key], []).append(one)
        return dict(sorted(groups.items()))


class VisualProcessBench(StepBenchmark):
    """VisualProcessBench (arXiv 2503.10291): all wrong steps are to be found, not only the first.

    Args:
        data: Folder with `test.jsonl`, or with Parquet files of the split `test`; images relative to it.
    """

    name = "visualprocessbench"
    group_key = "data_source"
    files: ClassVar[tuple[str, ...]] = ("test.jsonl",)
    columns: ClassVar[tuple[str, ...]] = ("image", "question", "answer", "response", "data_source")

    def load(self) -> list[StepLabels]:
        """Return the solutions; neutral steps carry no label."""
        return self.read_split("test", self.files)

    def summarise(self, judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
        """Return macro-F1 over the pooled steps, and by source."""
        groups = {"all": list(judged)} | self.grouped(judged)
        return {group: _pooled(members) for group, members in groups.items()}

    def read(self, row: Row, number: int) -> StepLabels:
        """Return the solution of a row, whose number is its id."""
        response = mapping_of(row["response"], "response")
        require(response, ("steps", "process_correctness"))
        labels = response["process_correctness"]
        if unknown := [label for label in labels if label not in _LABELS]:
            raise ValueError(f"label {unknown[0]!r} is not 1 (correct), -1 (incorrect) or 0 (neutral)")
        root = folder_of(self.data)
        prompt = Prompt(
            id=str(number),
            question=row["question"].replace("<image>", "").strip(),
            images=tuple(locate(image, root) for image in image_names(row["image"])),
            answer=str(row["answer"]),
            metadata={"data_source": text_of(row["data_source"], "data_source")},
        )
        steps = texts_of(response["steps"], "steps")
        return StepLabels(prompt=prompt, steps=steps, labels=tuple(_LABELS[label] for label in labels))


class ProcessBench(StepBenchmark):
    """ProcessBench (arXiv 2412.06559): which is the first wrong step? Text only.

    Args:
        data: Folder with `gsm8k.json`, `math.json`, … (or `.jsonl`), or with Parquet files of these splits.
    """

    name = "processbench"
    group_key = "split"
    files: ClassVar[tuple[str, ...]] = ("gsm8k", "math", "olympiadbench", "omnimath")
    columns: ClassVar[tuple[str, ...]] = ("id", "generator", "problem", "steps", "label")

    def load(self) -> list[StepLabels]:
        """Return the solutions of all splits; steps after the first wrong one carry no label."""
        if not self.data.is_dir():
            raise InputError(f"{self.data}: no such folder; give the one with {self.files[0]}.json, …")
        names = {split: (f"{split}.json", f"{split}.jsonl") for split in self.files}
        found = [one for split, files in names.items() for one in self.read_split(split, files)]
        check_ids((one.prompt.id for one in found), self.data)
        return found

    def summarise(self, judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
        """Return F1 and its two accuracies by split; `all` is the mean over splits."""
        scores = {split: _first_errors(members) for split, members in self.grouped(judged).items()}
        mean = {key: fmean(score[key] for score in scores.values()) for key in ("error", "correct", "f1")}
        return {"all": mean | {"num": len(judged)}} | scores

    def read(self, row: Row, number: int) -> StepLabels:
        """Return the solution of a row."""
        steps, wrong = texts_of(row["steps"], "steps"), int(text_of(row["label"], "label"))
        known = len(steps) if wrong < 0 else wrong
        labels = (1.0,) * known + ((0.0,) + (None,) * (len(steps) - wrong - 1) if wrong >= 0 else ())
        metadata = {key: row[key] for key in ("split", "generator")}
        question, id = text_of(row["problem"], "problem"), text_of(row["id"], "id")
        return StepLabels(
            prompt=Prompt(id=id, question=question, metadata=metadata), steps=steps, labels=labels
        )


def _pooled(judged: Sequence[Judged]) -> dict[str, float]:
    steps = [
        (correct, 0 if label is None else 1 if label else -1)
        for solution, verdicts in judged
        for correct, label in zip(verdicts, solution.labels, strict=True)
    ]
    score = macro_f1([correct for correct, _ in steps], [label for _, label in steps])
    return {"macro_f1": score, "num": len(judged), "num_steps": sum(label != 0 for _, label in steps)}


def _first_errors(judged: Sequence[Judged]) -> dict[str, float]:
    predicted = [first_wrong(verdicts) for _, verdicts in judged]
    labels = [first_wrong([label != 0 for label in solution.labels]) for solution, _ in judged]
    return process_bench_f1(predicted, labels) | {"num": len(judged)}
