"""`mstar-pl evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mstar_pl.commands.engine import EngineName, start_engine
from mstar_pl.commands.table import show_tables
from mstar_pl.rewards.answer import Rules
from mstar_pl.types import InputError, Prompt, SamplingConfig

if TYPE_CHECKING:
    from mstar_pl.evaluation.benchmarks import Benchmark
    from mstar_pl.evaluation.benchmarks.benchmark import PromptStyle
    from mstar_pl.evaluation.comparison import Evaluation
    from mstar_pl.rewards.process import ProcessReward


def evaluate(
    data: Path,
    policy: str | None = None,
    out: Path | None = None,
    benchmark: str | None = None,
    benchmarks: Literal["all"] | None = None,
    prompts: Literal["policy", "official"] = "policy",
    options: dict[str, Any] | None = None,
    engine: EngineName = "vllm",
    limit: int | None = None,
    max_tokens: int = 512,
    max_model_len: int | None = None,
    rules: Rules = "default",
    baseline: Path | None = None,
    lmm: dict[str, Any] | None = None,
    samples: int = 0,
    temperature: float = 1.0,
    process_reward: str | None = None,
    threshold: float = 0.5,
    device: str = "cpu",
) -> None:
    """Answer labelled prompts greedily, grade the answers, and print accuracy by group with 95 % intervals.

    Writes results.json and every response (responses.jsonl), those of a benchmark in a folder of its name. An
    interrupted run goes on where it stopped. With a process reward model and no policy, judges the steps of
    visualprocessbench or processbench.

    Args:
        data: Prompt JSONL file with answers; with 'benchmark' its folder or file as published; with
            'benchmarks' a folder with a folder for each by its name.
        policy: Hugging Face folder of the policy, or 'embedded' for the LMM that ships with the package.
        out: Folder of the results; default is runs/evaluate/NAME-DATA, with the name of the run where the
            policy (or process reward model) is what a training exported.
        benchmark: mathvista, m3cot, mmstar, mmbench, ai2d or ai2d_no_mask, graded by its official rule; of a
            process reward model visualprocessbench or processbench.
        benchmarks: 'all' evaluates every benchmark of a policy whose folder is there, with one engine, and
            prints the paper's tables (also OUT/table.md and .csv).
        prompts: How a benchmark's questions are written: as the policy was trained, or as its authors do.
        options: Further options of the benchmark's class as JSON, e.g. '{"rules": "head"}' of mmbench; with
            'benchmarks' by name, '{"mmbench": {"rules": "head"}}'.
        engine: Where responses are generated: vLLM, or Transformers' generate.
        limit: Use only the first so many prompts; of processbench these are of its first split, gsm8k.
        max_tokens: Most tokens of a response.
        max_model_len: Most tokens of prompt and response together; default is as many as the model takes, up
            to 4,096.
        rules: How answers of a file are compared: the project's rules, or MathVista's official ones (current
            or of 2023).
        baseline: Folder of an earlier evaluation of the same prompts; adds its column and the paired gain.
        lmm: Options of the LMM adapter as JSON, e.g. '{"question_style": "plain"}'; default is what the
            policy's export recorded.
        samples: Also draw so many responses a prompt and print how well a verifier chooses among K of them.
        temperature: Their temperature.
        process_reward: Folder of the process reward model that ranks them; needed with `samples`.
        threshold: Least score of a step that the process reward model is taken to judge correct.
        device: Where it judges, e.g. 'cuda'.
    """
    from mstar_pl.evaluation.comparison_tables import compare
    from mstar_pl.rewards.process import ProcessReward

    of_policy: dict[str, Any] = {"benchmarks": benchmarks, "options": options, "lmm": lmm}
    of_policy |= {"prompts": prompts != "policy", "rules": rules != "default"}
    of_policy |= {"baseline": baseline, "samples": samples}
    _check(policy, process_reward, benchmark or benchmarks, limit, of_policy)
    greedy = SamplingConfig(max_tokens=max_tokens)
    drawn = replace(greedy, num_samples=samples, temperature=temperature) if samples else None
    if policy is None:
        _judge(data, process_reward, benchmark, out, limit, threshold, device)
        return
    own = (options or {}) if benchmark is None else {benchmark: options or {}}
    chosen = _choose(data, benchmark, benchmarks, rules, prompts, own)
    judge = ProcessReward(process_reward, rules=rules) if process_reward else None
    if judge is not None:
        judge.wake(device)
    out = out or Path("runs/evaluate") / f"{_called(policy)}-{data.stem}"
    known = {"policy": policy, "engine": engine, "limit": limit}
    _answer(chosen, own, out, greedy, drawn, known, max_model_len, lmm or {}, baseline, judge)
    if benchmarks is not None:
        folders = ({"baseline": baseline} if baseline else {}) | {_called(policy): out}
        show_tables(compare(folders, names=list(chosen)), out)


def _check(
    policy: str | None, judge: str | None, published: str | None, limit: int | None, of_policy: dict[str, Any]
) -> None:
    """Refuse options that do not go together."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")
    given = [name for name, value in of_policy.items() if value]
    if policy is None and given:
        raise InputError(f"--{given[0]} is for a policy; give --policy, or leave it out")
    if policy is not None and judge is not None and not of_policy["samples"]:
        raise InputError("--process_reward beside --policy needs --samples; leave one of the two out")
    if of_policy["samples"] and (judge is None or published):
        raise InputError("--samples needs a prompt file, and --process_reward, whose model ranks them")


def _called(model: str) -> str:
    """Return the name of a model, of what a training exported that of its run.

    >>> [_called(model) for model in ("runs/mine/policy", "runs/judge/mprm/", "models/InternVL2", "embedded")]
    ['mine', 'judge', 'InternVL2', 'embedded']
    """
    path = Path(model).absolute()
    return path.parent.name if path.name in ("policy", "mprm") else path.name


def _answer(
    chosen: dict[str, Benchmark],
    own: dict[str, dict[str, Any]],
    out: Path,
    greedy: SamplingConfig,
    drawn: SamplingConfig | None,
    known: dict[str, Any],
    max_model_len: int | None,
    lmm: dict[str, Any],
    baseline: Path | None,
    judge: ProcessReward | None,
) -> None:
    """Let a policy answer everything that was chosen, with one engine, once all of it is known to be good."""
    from mstar_pl.data.digests import records_digest
    from mstar_pl.data.durable import locked
    from mstar_pl.evaluation import evaluate as running
    from mstar_pl.evaluation.benchmarks.benchmark import load_checked
    from mstar_pl.evaluation.verifier import verify
    from mstar_pl.models import adapter_for

    asked = {name: load_checked(one, known["limit"]) for name, one in chosen.items()}
    before = {name: _read_baseline(baseline / name, out / name, asked[name]) for name in chosen if baseline}
    adapter = adapter_for(known["policy"], **lmm)
    every = [prompt for prompts in asked.values() for prompt in prompts]
    runs: dict[str, tuple[dict[str, Any], str]] = {}
    for name, one in chosen.items():
        settings = running.run_settings(
            greedy,
            **known,
            **_asked(one, own.get(name, {})),
            data=str(one.data),
            rules=one.rules,
            lmm=adapter.settings,
            num_prompts=len(asked[name]),
        )
        asked_so = {key: value for key, value in settings.items() if key not in ("rules", "options")}
        digest = records_digest(asked[name])
        runs[name] = settings, running.run_fingerprint(asked_so, Path(adapter.path), digest)
        running.finished_rows(out / name, runs[name][1])  # refuses those of other settings
    with locked(out):
        sampler = start_engine(known["engine"], adapter, every, greedy.max_tokens, max_model_len)
        for name, one in chosen.items():
            settings, fingerprint = runs[name]
            rows = running.answer_prompts(sampler, asked[name], greedy, one, out / name, fingerprint)
            results = running.write_results(out / name, one, asked[name], rows, settings, fingerprint)
            _report(out / name, results, before.get(name))
            if judge is not None and drawn is not None:
                outcomes = {row["id"]: row["outcome"] for row in rows}
                print(verify(sampler, asked[name], outcomes, drawn, judge, out, fingerprint))


def _asked(benchmark: Benchmark, options: dict[str, Any]) -> dict[str, Any]:
    """Return what the settings say of how a published benchmark was asked."""
    from mstar_pl.evaluation.benchmarks.benchmark import PublishedBenchmark

    asked = {"prompts": benchmark.prompts} if isinstance(benchmark, PublishedBenchmark) else {}
    return asked | ({"options": options} if options else {})


def _choose(
    data: Path,
    benchmark: str | None,
    benchmarks: str | None,
    rules: Rules,
    prompts: PromptStyle,
    own: dict[str, dict[str, Any]],
) -> dict[str, Benchmark]:
    """Return what is to be evaluated, by the folder below OUT that its results go to."""
    from mstar_pl.evaluation.benchmarks import BENCHMARKS, STEP_BENCHMARKS, PromptFile, choose, find_all

    if benchmark is None and benchmarks is None:
        if own:
            raise InputError("--options is for --benchmark or --benchmarks")
        return {"": PromptFile(data, rules)}
    if benchmark is not None and benchmarks is not None:
        raise InputError("give --benchmark or --benchmarks, not both")
    if rules != "default":
        raise InputError("--rules is for prompt files; a benchmark has its own, see its --options")
    if benchmark in STEP_BENCHMARKS:
        raise InputError(f"{benchmark} is for a step judge; give --process_reward instead of --policy")
    if benchmark is not None:
        return {benchmark: choose(BENCHMARKS, benchmark, data, {"prompts": prompts} | own[benchmark])}
    found = find_all(data, prompts, own)
    for name in [name for name, one in found.items() if one is None]:
        print(f"{name}: skipped, there is no {data / name}")
    return {name: one for name, one in found.items() if one is not None}


def _judge(
    data: Path,
    process_reward: str | None,
    benchmark: str | None,
    out: Path | None,
    limit: int | None,
    threshold: float,
    device: str,
) -> None:
    """Evaluate a process reward model."""
    from mstar_pl.data.digests import records_digest
    from mstar_pl.data.durable import locked
    from mstar_pl.data.images import verify_images
    from mstar_pl.evaluation.benchmarks import STEP_BENCHMARKS, choose
    from mstar_pl.evaluation.benchmarks.judging import judge
    from mstar_pl.evaluation.evaluate import run_fingerprint
    from mstar_pl.evaluation.table import score_table
    from mstar_pl.models.process_reward import ProcessRewardModel

    if process_reward is None or benchmark is None:
        raise InputError("give --policy; or --process_reward and --benchmark, to evaluate a step judge")
    chosen = choose(STEP_BENCHMARKS, benchmark, data, {})
    solutions = chosen.load()[:limit]
    verify_images([one.prompt for one in solutions], str(data))
    model = ProcessRewardModel.load(process_reward)
    model.to(device)
    out = (out or Path("runs/evaluate") / f"{_called(process_reward)}-{data.stem}") / benchmark
    settings = {"process_reward": process_reward, "data": str(data), "threshold": threshold, "limit": limit}
    with locked(out):
        fingerprint = run_fingerprint({}, Path(model.lmm.path), records_digest(solutions))
        results = judge(model, chosen, solutions, threshold, out, settings, fingerprint)
    print(score_table(results["scores"]))
    print(f"written to {out}")


def _read_baseline(folder: Path, out: Path, asked: Sequence[Prompt]) -> Evaluation:
    """Return the evaluation compared with, its responses read before they could be written over.

    Raises:
        InputError: There is none, or it is of other prompts than those that are asked.
    """
    from mstar_pl.data.jsonl import read_rows
    from mstar_pl.evaluation.comparison import read_evaluations
    from mstar_pl.evaluation.evaluate import RESPONSES, RESULTS, check_same_prompts

    if not (folder / RESULTS).is_file():
        raise InputError(f"{folder}: no {RESULTS}; give the folder of a finished evaluation")
    (before,) = read_evaluations("before", folder, [""]).values()
    if before.responses:  # of which MMBench's are one a question
        answered = {row["id"] for _, row in read_rows(folder / RESPONSES)}
        check_same_prompts(out, {prompt.id for prompt in asked}, folder, answered)
    return before


def _report(out: Path, results: dict[str, Any], before: Evaluation | None) -> None:
    from mstar_pl.evaluation.comparison import Evaluation, score
    from mstar_pl.evaluation.table import accuracy_table

    columns = {"accuracy (95 % interval)": results["accuracy"]}
    if before is not None:
        columns = {"before": before.results["accuracy"], "after": results["accuracy"]}
    print(f"{results['benchmark']}, rules {results['rules']}")
    print(accuracy_table(columns))
    total = results["accuracy"]["all"]
    print(
        f"of {total['num']}: {total['truncated']} cut off at the token limit, {results['num_empty']} without "
        f"answer, {total['undecided']} undecided; written to {out}"
    )
    if by_rules := results.get("by_rules"):
        print(accuracy_table({f"rules {rules}": {"all": found} for rules, found in by_rules.items()}))
    found = score(Evaluation("after", out, results), "all", before) if before is not None else None
    if found is not None and found.gain is not None:
        gain = [100 * value for value in found.gain]
        print("gain {:+.1f} points (95 % interval {:+.1f} to {:+.1f})".format(*gain))
    if found is not None:
        print("\n".join(found.notes), end="\n" * bool(found.notes))
