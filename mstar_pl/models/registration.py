"""Make the models that this package ports known to Transformers, and so to vLLM."""

from __future__ import annotations

from mstar_pl.models import minicpmv, phi3_v


def register() -> None:
    """Register the ports with the Auto classes of Transformers; a second call changes nothing.

    `import mstar_pl.models` calls it, and so does each process of vLLM: it is an entry point of the group
    `vllm.general_plugins`.
    """
    minicpmv.register()
    phi3_v.register()
