"""What data are, in a hash: of files, and of records with the contents of their images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from mstar_pl.data.images import image_digest
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.types import Example, Prompt


def records_digest(records: Iterable[Prompt | Example | StepLabels]) -> str:
    """Return the SHA-256 of records and of the contents of their images, wherever these lie."""
    digest = hashlib.sha256()
    for row in (one.to_json() for one in records):
        content = row | {"images": [image_digest(image) for image in row["images"]]}
        digest.update(json.dumps(content).encode() + b"\n")
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the digests of the files in a folder."""
    if path.is_dir():
        parts = "".join(file_digest(part) for part in sorted(path.rglob("*")) if part.is_file())
        return hashlib.sha256(parts.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
