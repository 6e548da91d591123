"""Where an image lies: a file, a member of a zip archive, or a cell of a table.

    pictures/7.png                    a path
    data_images.zip::TabMWP/7.png     ARCHIVE::MEMBER
    test.parquet::7::image            TABLE::ROW::COLUMN, rows counted from 0
    test.parquet::7::images::1        TABLE::ROW::COLUMN::PLACE in a cell that holds several

An archive or table is opened once by each process that reads from it.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from mstar_pl.types import InputError

MARK = "::"


def container(image: str) -> str:
    """Return the file that holds an image: its own, or that of the archive or table.

    >>> container("pictures/7.png"), container("all.zip::a/7.png"), container("test.tsv::7::image")
    ('pictures/7.png', 'all.zip', 'test.tsv')
    """
    return image.partition(MARK)[0]


def locate(image: str, root: Path) -> str:
    """Return an image's path made absolute, or its reference into the archive `root`.

    The members of an archive may lie in a folder of its name.

    Raises:
        ValueError: The image does not exist.
    """
    if MARK in image or root.suffix != ".zip":
        found = _anchored(image, root)
    else:
        file = _anchored(root.name, root.parent)
        members = archive(file).NameToInfo
        member = next((one for one in (image, f"{root.stem}/{image}") if one in members), image)
        found = f"{file}{MARK}{member}"
    if (fault := _absence(found)) is not None:
        fix = f"image paths are relative to {root}"
        if len(image) > 4096:  # the longest path of Linux
            fix = "image bytes in text are read from the column image of TSV, CSV, JSON and JSONL"
        raise ValueError(f"image {image!r:.200} {fault:.500}; {fix}")
    return found


def _anchored(image: str, root: Path) -> str:
    file, mark, place = image.partition(MARK)
    folder, name = os.path.split(os.path.join(root, file))
    path = os.path.join(_real(folder), name)
    # The name of an archive or table tells its form; that of the file behind a link may not.
    linked = os.path.islink(path) and not mark
    return (os.path.realpath(path) if linked or name in ("", "..") else path) + mark + place


def _absence(image: str) -> str | None:
    """Return why an image cannot be there, without decoding it; None if nothing speaks against it.

    Raises:
        InputError: Its archive cannot be read.
    """
    file, mark, place = image.partition(MARK)
    if not os.path.isfile(file):
        return f"does not exist (looked for {file})"
    if mark and file.endswith(".zip") and place not in archive(file).NameToInfo:
        return f"does not exist (looked for the member {place} of {file})"
    return None


def archive(path: str) -> ZipFile:
    """Return an open zip archive; it is kept open until it is written anew.

    Raises:
        InputError: It cannot be read.
    """
    modified = os.stat(path).st_mtime_ns if os.path.isfile(path) else 0
    # A process that was forked shares the position in its parent's files: it needs one of its own.
    return _archive(path, modified, os.getpid())


@lru_cache(maxsize=16)
def _archive(path: str, modified: int, process: int) -> ZipFile:
    try:
        return ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such archive; check the path") from None
    except (BadZipFile, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as a zip archive ({error}); join its parts, or fetch it again"
        ) from None


_real = lru_cache(maxsize=4096)(os.path.realpath)
