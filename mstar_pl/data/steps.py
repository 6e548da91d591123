"""The data module of process-reward training: labelled steps in, padded micro-batches out."""

from __future__ import annotations

from typing import Any

from mstar_pl.data.collate_steps import collate_steps, step_lengths
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.records import View
from mstar_pl.data.sources.given import Given, load_steps, name_of
from mstar_pl.data.step_formats import StepFormat
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.types import InputError, Prompt


class StepDataModule(PolicyDataModule):
    """Labelled responses from files or sources, padded and bucketed by length.

    Args:
        train: File or source of labelled responses.
        val: File or source of labelled responses that are judged after each epoch.
        format: `mstar` (what `mstar-pl label` writes), or one of the others in `mstar_pl.data.step_formats`;
            None finds it out from the first row.
        image_root: Folder to which a file's image paths are relative, or a zip archive; default is the folder
            of the file.
        options: Options of `PolicyDataModule`: batch sizes, lengths, workers, seed.
    """

    collate = staticmethod(collate_steps)
    measure = staticmethod(step_lengths)

    def __init__(
        self,
        train: Given | None = None,
        val: Given | None = None,
        format: StepFormat | None = None,
        image_root: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(train=train, val=val, **options)
        self.format: StepFormat | None = format
        self.image_root = image_root

    @staticmethod
    def compose(prompt: Prompt, response: str) -> StepLabels:
        """Return a labelled response of one step."""
        return StepLabels(prompt=prompt, steps=(response,), labels=(1.0,))

    @property
    def mean_label(self) -> float:
        """Mean label of the training steps."""
        records = self.example_sets["train"].examples
        labels = [label for record in records for label in record.labels if label is not None]
        return sum(labels) / len(labels)

    def _load_examples(self, split: str) -> None:
        given = self._given(split)
        path, records = name_of(given), load_steps(given, self.format, self.image_root)
        known = [place for place, one in enumerate(records) if any(label is not None for label in one.labels)]
        if not known:
            raise InputError(f"{path}: no step has a label; label them with mstar-pl label")
        self._verify((records[place].prompt for place in known), path)
        self.example_sets[split] = self._fit(View(records, known), path)
