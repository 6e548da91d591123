"""Lazy, checked image loading."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from os import cpu_count
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from mstar_pl.types import InputError, Prompt


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


@lru_cache(maxsize=65536)
def image_digest(path: str) -> str:
    """Return the SHA-256 of an image file, read once a process."""
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
    owner = {image: prompt.id for prompt in prompts for image in prompt.images}
    for image, problem in image_problems(owner, within, decode):
        raise InputError(f"{source}: prompt {owner[image]!r}: {problem}")


def image_problems(
    images: Collection[str], within: str | None = None, decode: bool = True
) -> Iterator[tuple[str, str]]:
    """Decode images, and yield path and fault of each that cannot be used; see `verify_images`."""
    root = None if within is None else Path(within).resolve()
    if root is None and not decode:
        return
    with ThreadPoolExecutor(cpu_count()) as pool:
        try:
            results = pool.map(lambda image: _problem(image, root, decode), images)
            results = tqdm(results, "checking images", len(images), leave=False, delay=2)
            yield from ((image, found) for image, found in zip(images, results, strict=True) if found)
        finally:
            pool.shutdown(cancel_futures=True)


def _problem(path: str, root: Path | None, decode: bool) -> str | None:
    if root is not None and not Path(path).resolve().is_relative_to(root):
        return f"{path}: lies outside of {root}"
    try:
        if decode:
            load_image(path)
    except InputError as error:
        return str(error)
    return None
