"""`mstar-pl bootstrap`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mstar_pl.commands.engine import EngineName, check_counts, start_engine
from mstar_pl.rewards.answer import Rules
from mstar_pl.types import SamplingConfig


def bootstrap(
    policy: str,
    prompts: Path,
    out: Path = Path("runs/bootstrap"),
    num_samples: int = 4,
    max_per_prompt: int = 1,
    temperature: float = 1.0,
    max_tokens: int = 512,
    instruction: str | None = None,
    rules: Rules = "default",
    seed: int = 0,
    engine: EngineName = "vllm",
    max_model_len: int | None = None,
    limit: int | None = None,
    shard: int = 256,
    lmm: dict[str, Any] | None = None,
) -> None:
    """Let a base model explain the answers of prompts, and keep the right explanations for a warm-up.

    Responses with another answer, cut off, repeated, or that betray that the answer was given are dropped.
    Writes train.jsonl (the prompts as they were, with a 'response') to fine-tune on, report.json, and all
    that was sampled (responses/). An interrupted run goes on where it stopped, and loses at most one shard.

    Args:
        policy: Hugging Face folder of the base model, or 'embedded'.
        prompts: Prompt JSONL file with answers.
        out: Folder of the results.
        num_samples: Responses sampled of each prompt.
        max_per_prompt: Most responses kept of each prompt.
        temperature: Their temperature.
        max_tokens: Most tokens of a response.
        instruction: What follows question and answer; default is the paper's.
        rules: How answers are compared: the project's rules, or MathVista's official ones (current or of
            2023).
        seed: Seed of the draws.
        engine: Where responses are sampled: vLLM, or Transformers' generate.
        max_model_len: Most tokens of prompt and response together; default is as many as the model takes, up
            to 4,096.
        limit: Use only the first so many prompts.
        shard: Prompts of one shard.
        lmm: Options of the LMM adapter as JSON, e.g. '{"question_style": "plain"}'; default is what the
            policy's export recorded.
    """
    from mstar_pl.data.collate import is_plain
    from mstar_pl.data.digests import records_digest
    from mstar_pl.data.durable import locked
    from mstar_pl.data.format import ANSWER_CONDITION
    from mstar_pl.data.jsonl import write_json, write_jsonl
    from mstar_pl.data.labelled import read_labelled
    from mstar_pl.evaluation.evaluate import run_fingerprint, run_settings
    from mstar_pl.models import adapter_for
    from mstar_pl.rollouts.bootstrap import BootstrapConfig, explain

    check_counts(limit=limit, shard=shard)
    sampling = SamplingConfig(
        num_samples=num_samples, temperature=temperature, max_tokens=max_tokens, seed=seed
    )
    config = BootstrapConfig(
        style=adapter_for(policy, **(lmm or {})).question_style,
        instruction=instruction or ANSWER_CONDITION,
        max_per_prompt=max_per_prompt,
        rules=rules,
    )
    adapter = adapter_for(policy, **(lmm or {}) | {"question_style": "plain", "instruction": None})
    settings = run_settings(sampling, **asdict(config), engine=engine, lmm=adapter.settings, limit=limit)
    labelled = read_labelled(prompts, limit)
    fingerprint = run_fingerprint(settings, Path(adapter.path), records_digest(labelled))
    asked = [config.condition(prompt) for prompt in labelled]
    with locked(out):
        sampler = start_engine(engine, adapter, asked, max_tokens, max_model_len)
        manifest, found = explain(sampler, labelled, sampling, config, out / "responses", fingerprint, shard)
        kept = [one for one in found if is_plain(adapter, one)]
        write_jsonl(out / "train.jsonl", (one.to_json() for one in kept))
        write_json(out / "report.json", {"settings": settings, **manifest["metrics"]})
    print(
        f"{manifest['num_rows']} responses to {len(labelled)} prompts, "
        f"{manifest['metrics']['bootstrap/leaks']:.0f} betray the answer, {len(kept)} kept of "
        f"{100 * manifest['metrics']['reward/solved_prompts']:.1f} % of the prompts; in {out}/train.jsonl"
    )
