"""`mstar-pl convert`."""

from __future__ import annotations

from pathlib import Path


def minicpmv(source: Path, out: Path) -> None:
    """Write the published MiniCPM-Llama3-V-2.5 as a folder that trains and samples without its code.

    Args:
        source: The published folder, a download of openbmb/MiniCPM-Llama3-V-2_5.
        out: New folder.
    """
    from mstar_pl.models.minicpmv.conversion import convert_minicpmv

    print(f"wrote {convert_minicpmv(source, out)}")
