"""`mstar-pl evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mstar_pl.commands.engine import EngineName, start_engine
from mstar_pl.rewards.answer import Rules
from mstar_pl.types import InputError, SamplingConfig


def evaluate(
    policy: str,
    data: Path,
    out: Path | None = None,
    engine: EngineName = "vllm",
    limit: int | None = None,
    max_tokens: int = 512,
    max_model_len: int = 4096,
    rules: Rules = "default",
    baseline: Path | None = None,
    lmm: dict[str, Any] | None = None,
    samples: int = 0,
    temperature: float = 1.0,
    process_reward: str | None = None,
) -> None:
    """Answer labelled prompts greedily, grade the answers, and print accuracy by task with 95 % intervals.

    Writes results.json and every response (responses.jsonl). An interrupted run goes on where it stopped.

    Args:
        policy: Hugging Face folder of the policy, or 'embedded' for the LMM that ships with the package.
        data: Prompt JSONL file with answers.
        out: Folder of the results; default is runs/evaluate/POLICY-DATA.
        engine: Where responses are generated: vLLM, or Transformers' generate.
        limit: Use only the first so many prompts.
        max_tokens: Most tokens of a response.
        max_model_len: Most tokens of prompt and response together.
        rules: How answers are compared: the project's rules, or MathVista's official ones (current or of
            2023).
        baseline: Folder of an earlier evaluation of the same prompts; adds its column and the paired gain.
        lmm: Options of the LMM adapter as JSON, e.g. '{"question_style": "plain"}'; default is what the
            policy's export recorded.
        samples: Also draw so many responses a prompt and print how well a verifier chooses among K of them.
        temperature: Their temperature.
        process_reward: Folder of the process reward model that ranks them; needed with `samples`.
    """
    from mstar_pl.data.durable import locked
    from mstar_pl.data.labelled import read_labelled
    from mstar_pl.evaluation import evaluate as running
    from mstar_pl.evaluation.verifier import verify
    from mstar_pl.models import adapter_for
    from mstar_pl.rewards.process import ProcessReward

    if samples and process_reward is None:
        raise InputError("--samples needs --process_reward, the folder of the model that ranks them")
    judge = ProcessReward(process_reward, rules=rules) if process_reward is not None and samples else None
    prompts = read_labelled(data, limit)
    before = running.read_outcomes(baseline) if baseline else None
    adapter = adapter_for(policy, **(lmm or {}))
    out = out or Path("runs/evaluate") / f"{Path(policy).name}-{data.stem}"
    sampling = SamplingConfig(max_tokens=max_tokens)
    settings = running.run_settings(
        sampling,
        policy=policy,
        data=str(data),
        engine=engine,
        rules=rules,
        lmm=adapter.options,
        num_prompts=len(prompts),
    )
    fingerprint = running.run_fingerprint(settings, Path(adapter.path), data)
    with locked(out):
        sampler = start_engine(engine, adapter, prompts, max_tokens, max_model_len)
        rows = running.answer_prompts(sampler, prompts, sampling, rules, out, fingerprint)
        _report(out, running.write_results(out, rows, settings), baseline, before)
        if judge is not None:
            drawn = SamplingConfig(num_samples=samples, temperature=temperature, max_tokens=max_tokens)
            greedy = {row["id"]: row["outcome"] for row in rows}
            print(verify(sampler, prompts, greedy, drawn, judge, out, fingerprint))


def _report(out: Path, results: dict[str, Any], baseline: Path | None, before: dict[str, str] | None) -> None:
    from mstar_pl.evaluation.evaluate import RESULTS, read_outcomes
    from mstar_pl.evaluation.table import accuracy_table, paired_gain

    columns = {"accuracy (95 % interval)": results["accuracy"]}
    if baseline is not None and before is not None:
        columns = {
            "before": json.loads((baseline / RESULTS).read_text())["accuracy"],
            "after": results["accuracy"],
        }
    print(accuracy_table(columns))
    total = results["accuracy"]["all"]
    print(
        f"{total['truncated']} responses cut off at the token limit, {total['undecided']} undecided; "
        f"written to {out}"
    )
    if before is not None:
        try:
            gain = paired_gain(before, read_outcomes(out))
        except ValueError as error:
            raise InputError(f"{baseline}: {error}; evaluate the same prompts") from None
        print(
            "gain {:+.1f} points (95 % paired interval {:+.1f} to {:+.1f})".format(
                *(100 * value for value in gain)
            )
        )
