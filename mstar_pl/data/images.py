"""Lazy, checked image loading, wherever an image lies (`mstar_pl.data.references`)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

from PIL import Image
from PIL.Image import DecompressionBombError, DecompressionBombWarning
from tqdm import tqdm

from mstar_pl.data.arrow_tables import ColumnTable
from mstar_pl.data.references import MARK, archive, container
from mstar_pl.data.tables import TextTable, open_table
from mstar_pl.types import InputError, Prompt

T = TypeVar("T")
MAX_BYTES = 1 << 29
"""Most bytes of a packed image: what Pillow accepts has less, and a zip bomb more."""
WINDOW = 1024
"""Records whose images are decoded at a time."""


def load_image(image: str) -> Image.Image:
    """Decode an image to RGB; where it is transparent, on white, as a page shows it.

    Raises:
        InputError: It is missing, truncated, not an image, or larger than Pillow's decompression-bomb limit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DecompressionBombWarning)
            with Image.open(_file(image)) as opened:
                if not opened.has_transparency_data:
                    return opened.convert("RGB")
                white = Image.new("RGBA", opened.size, "white")
                return Image.alpha_composite(white, opened.convert("RGBA")).convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{image}: no such image; check the path in the data file") from None
    except (OSError, ValueError, SyntaxError, DecompressionBombError, DecompressionBombWarning) as error:
        raise InputError(
            f"{image}: cannot be read as an image ({error}); replace it or remove its row"
        ) from None


def image_digest(image: str) -> str:
    """Return the SHA-256 of an image's file, wherever it lies; those of the last 16,384 are kept.

    One is taken again when the file, or the archive or table that holds the image, has another time.
    """
    return _digest(image, os.stat(container(image)).st_mtime_ns)


def image_size(image: str) -> tuple[int, int]:
    """Return `(height, width)` of an image from its header, without decoding it."""
    with Image.open(_file(image)) as opened:
        return opened.height, opened.width


def image_bytes(image: str) -> bytes:
    """Return the bytes of an image's file.

    Raises:
        FileNotFoundError: There is no such file, member or row.
        ValueError: The cell holds no image, or the member cannot be unpacked.
    """
    file, *place = image.split(MARK)
    if not place:
        return Path(image).read_bytes()
    if len(place) == 1:
        return _member(file, place[0])
    return _cell(file, place)


@lru_cache(maxsize=16384)
def _digest(image: str, modified: int) -> str:
    return hashlib.sha256(image_bytes(image)).hexdigest()


def _file(image: str) -> str | BytesIO:
    return BytesIO(image_bytes(image)) if MARK in image else image


def _member(file: str, name: str) -> bytes:
    try:
        size = archive(file).getinfo(name).file_size
        if size > MAX_BYTES:
            raise ValueError(f"the member has {size} bytes unpacked, over {MAX_BYTES}")
        return archive(file).read(name)
    except KeyError:
        raise FileNotFoundError(f"{name} is not in {file}") from None
    except (BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # damaged, encrypted, packed otherwise
        raise ValueError(f"the member cannot be unpacked: {error}") from None


def _cell(file: str, place: Sequence[str]) -> bytes:
    table = _table(file, os.stat(file).st_mtime_ns)
    row, column, *item = place
    if not isinstance(table, TextTable | ColumnTable):
        raise ValueError("a cell of a folder is named by the file inside it")
    if not 0 <= int(row) < len(table):
        raise FileNotFoundError(f"{file} has {len(table)} rows")
    try:
        value: Any = (table.text if isinstance(table, TextTable) else table.image)(int(row), column)
    except KeyError:
        raise ValueError(f"there is no column {column!r}") from None
    if item:
        value = value[int(item[0])] if isinstance(value, list) and int(item[0]) < len(value) else None
    if isinstance(value, dict):  # of `datasets`
        path = value.get("path")
        value = value.get("bytes") or (_beside(file, path) if path else None)
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=False)
    except binascii.Error as error:
        raise ValueError(f"the cell holds no image: {error}") from None
    if not isinstance(value, bytes):
        raise ValueError("the cell holds no image")
    return value


def _beside(table: str, path: str) -> bytes:
    """Return the bytes of an image that a cell only names; the cell comes with the data, and may lie."""
    folder = Path(table).parent.resolve()
    image = (folder / path).resolve()
    if not image.is_relative_to(folder):
        raise ValueError(f"the cell names {path}, outside of {folder}")
    return image.read_bytes()


@lru_cache(maxsize=64)
def _table(path: str, modified: int) -> Sequence[Any]:
    return open_table(path)


def verify_images(
    prompts: Iterable[Prompt], source: str, within: str | None = None, decode: bool = True
) -> None:
    """Decode every image once and report the first that fails, before anything expensive starts.

    Args:
        prompts: The prompts.
        source: Name of the data file, for messages.
        within: Folder in which all images, or the archives or tables that hold them, must lie, symbolic links
            followed; None allows any path.
        decode: Whether to decode them; the folder is checked in any case.

    Raises:
        InputError: An image cannot be decoded or lies elsewhere; names data file, prompt and image.
    """
    if not decode and within is None:
        return
    bar = tqdm(prompts, "checking images", leave=False, delay=2)
    for prompt, fault in with_image_faults(bar, lambda prompt: prompt.images, within, decode):
        if fault:
            raise InputError(f"{source}: prompt {prompt.id!r}: {fault}")


def with_image_faults(
    records: Iterable[T],
    images_of: Callable[[T], Sequence[str]],
    within: str | None = None,
    decode: bool = True,
) -> Iterator[tuple[T, str | None]]:
    """Yield each record with the fault of its first image that cannot be used, or None.

    Args:
        records: The records.
        images_of: Function from a record to its images; each image is decoded once.
        within: See `verify_images`.
        decode: See `verify_images`.
    """
    root = None if within is None else Path(within).resolve()
    seen: set[int] = set()  # hashes, which take less memory than paths
    faults: dict[str, str] = {}
    rest = iter(records)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while window := [*islice(rest, WINDOW)]:
            images = {image: hash(image) for record in window for image in images_of(record)}
            new = [image for image, key in images.items() if key not in seen]
            seen.update(images.values())
            found = pool.map(lambda image: _problem(image, root, decode), new)
            faults |= {image: fault for image, fault in zip(new, found, strict=True) if fault}
            for record in window:
                yield record, next((faults[image] for image in images_of(record) if image in faults), None)


def _problem(path: str, root: Path | None, decode: bool) -> str | None:
    if root is not None and not Path(container(path)).resolve().is_relative_to(root):
        return f"{path}: lies outside of {root}"
    try:
        if decode:
            load_image(path)
    except InputError as error:
        return str(error)
    return None
