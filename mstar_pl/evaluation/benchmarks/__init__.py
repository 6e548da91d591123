"""The field's benchmarks, one small class each, chosen by name.

MathVista, M3CoT, MMStar(-R), MMBench(-R) and AI2D ask a policy; VisualProcessBench and ProcessBench a process
reward model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar, get_args

from mstar_pl.evaluation.benchmarks.ai2d import AI2D, AI2DNoMask
from mstar_pl.evaluation.benchmarks.benchmark import Benchmark, PromptStyle, PublishedBenchmark
from mstar_pl.evaluation.benchmarks.m3cot import M3CoT
from mstar_pl.evaluation.benchmarks.mathvista import MathVista
from mstar_pl.evaluation.benchmarks.mmbench import MMBench
from mstar_pl.evaluation.benchmarks.mmstar import MMStar
from mstar_pl.evaluation.benchmarks.process import ProcessBench, StepBenchmark, VisualProcessBench
from mstar_pl.evaluation.benchmarks.prompt_file import PromptFile
from mstar_pl.types import InputError

T = TypeVar("T")

BENCHMARKS: dict[str, type[PublishedBenchmark]] = {
    one.name: one for one in (MathVista, M3CoT, MMStar, MMBench, AI2D, AI2DNoMask)
}
"""Benchmarks of a policy by name."""

STEP_BENCHMARKS: dict[str, type[StepBenchmark]] = {
    one.name: one for one in (VisualProcessBench, ProcessBench)
}
"""Benchmarks of a process reward model by name."""

__all__ = ["BENCHMARKS", "STEP_BENCHMARKS", "Benchmark", "PromptFile", "StepBenchmark", "choose", "find_all"]


def choose(known: Mapping[str, Callable[..., T]], name: str, data: Path, options: Mapping[str, Any]) -> T:
    """Return a benchmark.

    Args:
        known: Benchmarks by name.
        name: Name of one.
        data: Its data.
        options: Further arguments of its class; each is one of several words, of which a command line may
            have made a number.

    Raises:
        InputError: There is no such benchmark or option, or not its data.
    """
    if name not in known:
        raise InputError(f"benchmark {name!r} is not one of {', '.join(known)}")
    _, *parameters = signature(known[name], eval_str=True).parameters.values()
    values = {one.name: get_args(one.annotation) for one in parameters}
    words = {option: str(value) for option, value in options.items()}
    for option, value in words.items():
        if option not in values:
            raise InputError(f"benchmark {name} has no option {option!r}; it has {', '.join(values)}")
        if value not in values[option]:
            raise InputError(f"{option} {value!r} of {name} is not one of {', '.join(values[option])}")
    return known[name](data, **words)


def find_all(
    root: Path, prompts: PromptStyle, options: Mapping[str, Mapping[str, Any]]
) -> dict[str, Benchmark | None]:
    """Return the benchmarks of a policy by name, each from the folder of its name; None without a folder.

    Args:
        root: The folder of these folders.
        prompts: Who says how questions are written.
        options: Further options of some, by name.

    Raises:
        InputError: There is none of them, a folder does not hold its benchmark, or options are of none.
    """
    for name, own in options.items():
        if name not in BENCHMARKS or not isinstance(own, Mapping):
            raise InputError(
                f"options {name!r} are not those of a benchmark; give them by its name, "
                'as in {"mmbench": {"rules": "head"}}'
            )
    there = [name for name in BENCHMARKS if (root / name).is_dir()]
    if not there:
        raise InputError(f"{root}: no benchmark here; name its folders {', '.join(BENCHMARKS)}")
    asked = {name: {"prompts": prompts} | dict(options.get(name, {})) for name in there}
    found = {name: choose(BENCHMARKS, name, root / name, asked[name]) for name in there}
    return {name: found.get(name) for name in BENCHMARKS}
