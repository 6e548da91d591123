"""Data sets that `mstar-pl export dataset` wrote, read back as they were."""

from __future__ import annotations

from typing import Any

from mstar_pl.data.sources.fields import mapping_of
from mstar_pl.data.sources.source import R, RowSource
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.data.tables import Row
from mstar_pl.types import Example


class _PublishedRows(RowSource[R]):
    """What both kinds share; where images are referenced, `images` is the folder that holds them."""

    def _fields(self, row: Row) -> dict[str, Any]:
        fields = {key: cell for key, cell in row.items() if key != "image_sha256"}
        metadata = mapping_of(row.get("metadata"), "metadata")
        return fields | {"images": list(self.image(row.get("images"))), "metadata": metadata}


class PublishedExamples(_PublishedRows[Example]):
    """Prompts with a response (CoT); see `RowSource` for the arguments."""

    def read(self, number: int, row: Row) -> Example:
        """Return the example of a row."""
        return Example.from_json(self._fields(row))


class PublishedSteps(_PublishedRows[StepLabels]):
    """Responses in labelled steps (MPRM); see `RowSource` for the arguments."""

    def read(self, number: int, row: Row) -> StepLabels:
        """Return the labelled steps of a row."""
        return StepLabels.from_json(self._fields(row))
