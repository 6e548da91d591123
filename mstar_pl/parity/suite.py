"""The checks in their order, their limits, and the table that tells what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from mstar_pl.evaluation.table import markdown
from mstar_pl.parity import sampling, training
from mstar_pl.parity.subject import Subject
from mstar_pl.parity.training import Finding
from mstar_pl.types import InputError

Outcome = Literal["passed", "known gap", "failed", "left out"]


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    Attributes:
        name: Its name, also in `LMM.known_gaps`.
        measure: Measures a difference or counts faults.
        limits: Largest size with weights in float32 and in bfloat16, whose rounding alone makes 0.03 nats in
            log-probabilities of small random models.
        advice: What to do where it fails.
        with_engine: Whether it needs the engine.
        decisive: Whether those after it (of the engine, if it is one of these) cannot be made where it fails.
    """

    name: str
    measure: Callable[[Subject], Finding]
    limits: tuple[float, float]
    advice: str
    with_engine: bool = False
    decisive: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a check.

    Attributes:
        name: Name of the check.
        outcome: `passed`; `known gap`, over the limit as the adapter says it is; `failed`; or `left out`.
        size: What was measured, None where nothing could be.
        limit: The largest size that passes.
        remark: What to do, or why.
    """

    name: str
    outcome: Outcome
    size: float | None
    limit: float
    remark: str = ""


CHECKS: tuple[Check, ...] = (
    Check(
        "training step",
        training.training_step,
        (0, 0),
        "nothing else can be checked before the Trainer takes a step: LMM.processor, encode, load_model",
        decisive=True,
    ),
    Check(
        "padded loss",
        training.padded_loss,
        (1e-5, 0.05),
        "the loss of a row must not depend on its batch: look at LMM.encode (masks, images of others)",
    ),
    Check(
        "left padding",
        training.left_padding,
        (1e-4, 0.5),
        "evaluate with vLLM, or with batches of one: mstar-pl test and predict pad on the left",
    ),
    Check(
        "gradients",
        training.gradients,
        (0, 0),
        "name what no loss reaches in LMM.never_used: DDP waits for it, and the optimizer holds it",
    ),
    Check(
        "prompt lengths",
        training.prompt_lengths,
        (0, 0),
        "override LMM.num_prompt_tokens: what does not fit is refused, and batches are planned, by its count",
    ),
    Check(
        "rotary frequencies",
        training.rotary_frequencies,
        (0, 0),
        "load weights in their type (LMM.load_model) and never cast the model",
    ),
    Check(
        "save and load",
        training.save_and_load,
        (1e-5, 1e-5),
        "compare the names in the file with the state dict's, and LMM.options with the constructor",
    ),
    Check(
        "first sync",
        sampling.first_sync,
        (0, 0),
        "the engine must start (LMM.engine_args, --engine_options) and take all weights (LMM.engine_weights)",
        with_engine=True,
        decisive=True,
    ),
    Check(
        "prompt tokens",
        sampling.prompt_tokens,
        (0, 0),
        "LMM.render must give unexpanded placeholders, which engine and LMM.encode expand alike",
        with_engine=True,
    ),
    Check(
        "log-probabilities",
        sampling.log_probabilities,
        (1e-4, 0.1),
        "the engine reads or computes something else: other pixels (LMM.engine_args), positions, or mask",
        with_engine=True,
    ),
    Check(
        "greedy",
        sampling.greedy,
        (1e-4, 0.1),
        "as for log-probabilities",
        with_engine=True,
    ),
    Check(
        "placeholders",
        sampling.placeholders,
        (0, 0),
        "add the token to LMM.banned_token_ids: a response with it stands for an image",
        with_engine=True,
    ),
    Check(
        "after a sync",
        sampling.after_sync,
        (1e-4, 0.1),
        "weights stay behind: map their names in LMM.engine_weights",
        with_engine=True,
    ),
    Check(
        "low-rank updates",
        sampling.low_rank_updates,
        (1e-4, 0.1),
        "look at LMM.lora_targets: merged names must be those of the model",
        with_engine=True,
    ),
)
"""All checks; the last two change weights."""


def check_all(subject: Subject, checks: Iterable[Check] = CHECKS) -> Iterator[Result]:
    """Yield the results of the checks one by one.

    Raises:
        InputError: The model folder or an option is wrong, so that the first step or sync cannot be made.
    """
    no_training, no_engine = "", "" if subject.start_engine else "no engine was asked for"
    for check in checks:
        limit = check.limits[subject.lmm.dtype == "bfloat16"]
        if reason := no_training or (no_engine if check.with_engine else ""):
            yield Result(check.name, "left out", None, limit, reason)
            continue
        result = _measured(check, limit, subject)
        yield result
        if check.decisive and result.outcome == "failed":
            no_engine = f"the {check.name} failed"
            no_training = "" if check.with_engine else no_engine


def _measured(check: Check, limit: float, subject: Subject) -> Result:
    try:
        found = check.measure(subject)
    except Exception as error:  # an adapter at work: whatever it raises is the result
        if check.decisive and isinstance(error, InputError):
            raise
        return Result(check.name, "failed", None, limit, f"{type(error).__name__}: {error}; {check.advice}")
    if found.size <= limit:  # false for nan
        return Result(check.name, "passed", found.size, limit)
    allowed, reason = subject.lmm.known_gaps.get(check.name, (limit, ""))
    if found.size <= allowed:
        return Result(check.name, "known gap", found.size, limit, f"at most {allowed:g} here: {reason}")
    where = f"{found.where}; " if found.where else ""
    return Result(check.name, "failed", found.size, limit, where + check.advice)


def report(results: Iterable[Result]) -> str:
    """Return a table of results.

    >>> print(report([Result("padded loss", "passed", 2e-7, 1e-5), Result("greedy", "left out", None, 1e-4)]))
    | check       | result   | measured | limit  | what to do |
    |-------------|----------|----------|--------|------------|
    | padded loss | passed   | 2e-07    | 1e-05  |            |
    | greedy      | left out | -        | 0.0001 |            |
    """
    head = ["check", "result", "measured", "limit", "what to do"]
    rows = [
        [
            one.name,
            one.outcome,
            "-" if one.size is None else f"{one.size:.2g}",
            f"{one.limit:g}",
            textwrap.shorten(one.remark, 300, placeholder=" …"),
        ]
        for one in results
    ]
    return markdown([head, *rows])
