"""`mstar-pl label`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mstar_pl.commands.engine import EngineName, check_counts, start_engine
from mstar_pl.rewards.answer import Rules
from mstar_pl.types import Example, InputError, Prompt, SamplingConfig

if TYPE_CHECKING:
    from mstar_pl.data.step_labels import StepLabels
    from mstar_pl.rollouts.engine import RolloutEngine

TRAIN, VAL, REPORT = "train.jsonl", "val.jsonl", "report.json"


def label(
    policy: str,
    prompts: Path,
    out: Path = Path("runs/labels"),
    num_responses: int = 4,
    num_continuations: int = 16,
    soft: bool = False,
    early_stop: bool = True,
    temperature: float = 1.0,
    max_tokens: int = 512,
    rules: Rules = "default",
    seed: int = 0,
    val_percent: float = 5.0,
    engine: EngineName = "vllm",
    max_model_len: int | None = None,
    limit: int | None = None,
    shard: int = 256,
    lmm: dict[str, Any] | None = None,
) -> None:
    """Label the steps of a policy's responses by Monte Carlo continuations, to train a process reward model.

    Writes train.jsonl and val.jsonl (no prompt is in both), report.json, and everything sampled (responses/,
    labels/). An interrupted run goes on where it stopped, and loses at most one shard.

    Args:
        policy: Hugging Face folder of the policy, best the warm-up policy, or 'embedded'.
        prompts: Prompt JSONL file with answers.
        out: Folder of the results.
        num_responses: Responses sampled and labelled of each prompt; 0 labels the 'response' fields of the
            file.
        num_continuations: Continuations sampled of each prefix of steps (N).
        soft: Label a step by the share of correct continuations instead of by whether any is correct.
        early_stop: With hard labels, draw no more continuations of a prefix after its first success; the
            labels are the same.
        temperature: Temperature of responses and continuations.
        max_tokens: Most tokens of a response, its prefix included.
        rules: How answers are compared: by our rules, or MathVista's official ones (current, or of 2023).
        seed: Seed of the draws.
        val_percent: Share of the prompts whose responses go to val.jsonl.
        engine: Where they are sampled: vLLM, or Transformers' generate.
        max_model_len: Most tokens of prompt and response together; default is the model's, up to 4,096.
        limit: Use only the first so many prompts.
        shard: Responses of one shard.
        lmm: Options of the LMM adapter as JSON; default is what the policy's export recorded.
    """
    from mstar_pl.data.collate import is_plain
    from mstar_pl.data.digests import records_digest
    from mstar_pl.data.durable import locked
    from mstar_pl.data.jsonl import write_json
    from mstar_pl.evaluation.evaluate import run_fingerprint, run_settings
    from mstar_pl.models import adapter_for
    from mstar_pl.rollouts.labels import LabelConfig, StepLabeller, read_labels

    sampling = SamplingConfig(temperature=temperature, max_tokens=max_tokens, seed=seed)
    check_counts(limit=limit, shard=shard)
    _check(sampling, num_responses, num_continuations, val_percent)
    labels = LabelConfig(num_continuations=num_continuations, soft=soft, early_stop=early_stop, rules=rules)
    given, asked = _read(prompts, num_responses == 0, limit)
    adapter = adapter_for(policy, **(lmm or {}))
    settings = run_settings(
        sampling,
        labels=asdict(labels),
        num_responses=num_responses,
        engine=engine,
        lmm=adapter.settings,
        limit=limit,
    )
    fingerprint = run_fingerprint(settings, Path(adapter.path), records_digest(given or asked))
    with locked(out):
        sampler = start_engine(engine, adapter, asked, sampling.max_tokens, max_model_len)
        sampled = given or _sample(sampler, asked, num_responses, sampling, out, fingerprint, shard)
        examples = [example for example in sampled if is_plain(adapter, example)]
        if not examples:
            raise InputError("no response is left to label: all were cut off or spell special tokens")
        labeller = StepLabeller(sampler, sampling, labels)
        manifest = labeller.run(examples, out / "labels", fingerprint, shard)
        records = list(read_labels(out / "labels"))
        _write(out, records, _held_out(asked, val_percent))
        write_json(out / REPORT, {"settings": settings, **manifest["metrics"]})
    _print(manifest["metrics"], records, out)


def _check(sampling: SamplingConfig, num_responses: int, num_continuations: int, val_percent: float) -> None:
    """Refuse numbers that nothing could be sampled with, before anything is read or loaded."""
    check_counts(num_continuations=num_continuations)
    if num_responses < 0 or not 0 <= val_percent < 100:
        raise InputError("--num_responses must be at least 0, and --val_percent from 0 to below 100")
    replace(sampling, num_samples=max(1, num_responses, num_continuations))


def _read(path: Path, with_responses: bool, limit: int | None) -> tuple[Sequence[Example], Sequence[Prompt]]:
    """Read and check the file: its written responses, if they are to be labelled, and its prompts."""
    from mstar_pl.data.images import verify_images
    from mstar_pl.data.jsonl import read_examples
    from mstar_pl.data.labelled import check_labelled, read_labelled

    if not with_responses:
        return [], read_labelled(path, limit)
    given = read_examples(path)[:limit]
    prompts = [example.prompt for example in given]
    check_labelled(prompts, path)
    verify_images(prompts, str(path))
    return given, prompts


def _sample(
    engine: RolloutEngine,
    prompts: Sequence[Prompt],
    num: int,
    sampling: SamplingConfig,
    out: Path,
    fingerprint: str,
    shard: int,
) -> list[Example]:
    """Sample responses, wrong ones too, and return the distinct ones that ended by themselves."""
    from mstar_pl.data.store import RolloutStore
    from mstar_pl.rewards import AnswerReward
    from mstar_pl.rollouts.pipeline import RolloutPipeline

    store = RolloutStore(out / "responses")
    pipeline = RolloutPipeline(store, AnswerReward(), None, shard)
    drawn = replace(sampling, num_samples=num)
    pipeline.run(engine, prompts, [drawn], 0, fingerprint, title="responses")
    return [
        Example(prompt=one.group.prompt, response=text)
        for one in store.groups(0)
        for text in one.group.finished
    ]


def _held_out(prompts: Sequence[Prompt], percent: float) -> set[str]:
    """Choose the validation prompts by their ids, whatever their order."""
    from random import Random

    ids = sorted({prompt.id for prompt in prompts})
    Random("val").shuffle(ids)
    return set(ids[: round(len(ids) * percent / 100)])


def _write(out: Path, records: Sequence[StepLabels], held_out: set[str]) -> None:
    from mstar_pl.data.jsonl import write_jsonl

    for name, wanted in ((TRAIN, False), (VAL, True)):
        write_jsonl(out / name, (one.to_json() for one in records if (one.prompt.id in held_out) == wanted))


def _print(metrics: dict[str, float], records: Sequence[StepLabels], out: Path) -> None:
    from mstar_pl.evaluation.table import markdown

    steps, undecided = metrics["steps"], metrics["undecided"]
    share = 100 * metrics["positive"] / max(1, steps - undecided)
    print(
        f"{metrics['responses']:.0f} responses, {steps:.0f} steps, {share:.1f} % positive, "
        f"{undecided:.0f} undecided; {metrics['continuations']:.0f} continuations, "
        f"{metrics['tokens']:.0f} tokens"
    )
    wrong = {
        name.removeprefix("first_wrong/"): n for name, n in metrics.items() if name.startswith("first_wrong/")
    }
    print(markdown([["first wrong step", *wrong], ["responses", *(f"{n:.0f}" for n in wrong.values())]]))
    print(f"written to {out}/{TRAIN} and {VAL} ({len(records)} responses)")
