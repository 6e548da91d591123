"""`mstar-pl check-lmm`."""

from __future__ import annotations

import inspect
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from mstar_pl.models import LMM
from mstar_pl.modules import PolicyModule
from mstar_pl.parity import CHECKS, Subject, check_all, report
from mstar_pl.types import InputError


def check_lmm(
    model: PolicyModule,
    engine: Literal["vllm", "none"] = "vllm",
    engine_options: dict[str, Any] | None = None,
    max_tokens: int = 16,
) -> None:
    """Check that an LMM adapter trains and samples one and the same policy; print a table with what to do.

    The model is trained for one step, answers questions about drawn pictures in both engines, and is then
    given other weights: whatever its folder holds, also a tiny model with random weights, which is best on a
    CPU (docs/new_lmm.md shows how to make one). Limits are for float32; in bfloat16 they allow for rounding.
    Nothing is written.

    Args:
        model: The module that trains it, as for 'fit', with its adapter, e.g.
            '--model configs/model/internvl.yaml --model.init_args.lmm.init_args.path models/InternVL3-2B-hf'.
        engine: The engine to compare with, or 'none' for the training side alone.
        engine_options: Further options of the engine as JSON, e.g. '{"gpu_memory_utilization": 0.4}'.
        max_tokens: Tokens of each sampled response.

    Raises:
        InputError: A check failed, or an option is wrong.
    """
    if max_tokens < 1:
        raise InputError(f"--max_tokens is {max_tokens}; give at least 1")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    start_engine = _start(engine_options or {}) if engine == "vllm" else None
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(model, Path(folder), start_engine, max_tokens)
        try:
            results = list(tqdm(check_all(subject), "checks", total=len(CHECKS), leave=False))
        finally:
            subject.close()
    print(report(results))
    if failed := [one.name for one in results if one.outcome == "failed"]:
        raise InputError(f"{len(failed)} of {len(results)} checks failed: {', '.join(failed)}")


# The parser imports what annotations name, also of type checking alone: vLLM, which may not be there.
def _start(options: dict[str, Any]) -> Callable[[LMM], Any]:
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    known = list(inspect.signature(VLLMEngine).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"--engine_options: no option {unknown[0]!r}; there are {', '.join(known)}")
    return partial(VLLMEngine, **{"max_num_seqs": 32, "max_images": 2} | options)
