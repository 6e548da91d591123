"""Lazy, checked image loading."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from os import cpu_count
from pathlib import Path
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from mstar_pl.types import InputError, Prompt

T = TypeVar("T")
WINDOW = 1024
"""Records whose images are decoded at a time."""


def load_image(path: str) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        InputError: The file is missing, truncated, not an image, or larger than Pillow's decompression-bomb
            limit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; check the path in the data file") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(
            f"{path}: cannot be read as an image ({error}); replace it or remove its row"
        ) from None


@lru_cache(maxsize=16384)
def image_digest(path: str) -> str:
    """Return the SHA-256 of an image file; those of the last 16,384 files are kept."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def image_size(path: str) -> tuple[int, int]:
    """Return `(height, width)` of an image file from its header, without decoding it."""
    with Image.open(path) as image:
        return image.height, image.width


def verify_images(
    prompts: Iterable[Prompt], source: str, within: str | None = None, decode: bool = True
) -> None:
    """Decode every image once and report the first that fails, before anything expensive starts.

    Args:
        prompts: The prompts.
        source: Name of the data file, for messages.
        within: Folder in which all images must lie, symbolic links followed; None allows any path.
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
    with ThreadPoolExecutor(cpu_count()) as pool:
        while window := [*islice(rest, WINDOW)]:
            images = {image: hash(image) for record in window for image in images_of(record)}
            new = [image for image, key in images.items() if key not in seen]
            seen.update(images.values())
            found = pool.map(lambda image: _problem(image, root, decode), new)
            faults |= {image: fault for image, fault in zip(new, found, strict=True) if fault}
            for record in window:
                yield record, next((faults[image] for image in images_of(record) if image in faults), None)


def _problem(path: str, root: Path | None, decode: bool) -> str | None:
    if root is not None and not Path(path).resolve().is_relative_to(root):
        return f"{path}: lies outside of {root}"
    try:
        if decode:
            load_image(path)
    except InputError as error:
        return str(error)
    return None
