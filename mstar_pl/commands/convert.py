"""`mstar-pl convert`."""

from __future__ import annotations

from pathlib import Path


def internvl2(source: Path, out: Path) -> None:
    """Write a published InternVL2-2B or InternVL2-8B as a native folder, which trains and samples.

    Args:
        source: The published folder, e.g. a download of OpenGVLab/InternVL2-2B.
        out: New folder.
    """
    from mstar_pl.models.internvl2.conversion import convert_internvl2

    print(f"wrote {convert_internvl2(source, out)}")
