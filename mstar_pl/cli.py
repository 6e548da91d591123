"""The command line: `mstar-pl COMMAND …`."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentError, auto_cli

from mstar_pl.types import InputError, SamplingConfig

if TYPE_CHECKING:
    from mstar_pl.models import LMM
    from mstar_pl.rollouts.engine import RolloutEngine

TRAINING = ("fit", "validate", "test", "predict")

HELP = """usage: mstar-pl COMMAND [OPTIONS]

Train large multimodal models on their own solutions (M-STAR, arXiv 2412.17451).

training, configured by YAML files and options (LightningCLI):
  fit        train:                mstar-pl fit --config configs/experiments/sft.yaml
             self-evolve:          mstar-pl fit --config configs/experiments/continuous.yaml
  validate   loss on held-out examples
  test       answer labelled prompts in the training process and grade them
  predict    answer prompts in the training process and write the responses

data and evaluation:
  data       write data sets:      mstar-pl data minivista --out runs/minivista
  evaluate   accuracy of a policy: mstar-pl evaluate --policy runs/sft/policy --data runs/minivista/test.jsonl
  grade      grade a file of responses

Every command has its own help: mstar-pl COMMAND --help. The options of a class are shown by, e.g.,
mstar-pl fit --model.help mstar_pl.modules.PolicyModule.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 after a one-line error about the user's input."""
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if argv[0] not in (*TRAINING, *COMMANDS):
        close = difflib.get_close_matches(argv[0], [*TRAINING, *COMMANDS], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see mstar-pl --help"
        return _fail(f"unknown command {argv[0]!r}; {hint}")
    _quiet()
    try:
        if argv[0] in TRAINING:
            _train(None if args is None else argv)
        else:
            auto_cli(COMMANDS, args=argv, as_positional=False, prog="mstar-pl", exit_on_error=False)
    except InputError as error:
        return _fail(str(error))
    except ArgumentError as error:
        return _fail(_one_line(str(error)))
    return 0


def minivista(
    out: Path,
    pretrain: int = 0,
    train: int = 4000,
    val: int = 500,
    test: int = 1000,
    seed: int = 0,
    solutions: bool = True,
) -> None:
    """Write MiniVista, generated visual questions in MathVista's five tasks, in the prompt JSONL format.

    Args:
        out: Folder; gets one JSONL file a split and the images.
        pretrain: Items of the split that the embedded LMM was made on.
        train: Training items.
        val: Validation items.
        test: Test items; no item of one split occurs in another.
        seed: Seed of the items.
        solutions: Whether items carry a worked solution as their response.
    """
    from mstar_pl.data.minivista.write import write_split

    for split, count in {"pretrain": pretrain, "train": train, "val": val, "test": test}.items():
        if count > 0:
            print(f"wrote {write_split(out, split, count, seed, solutions=solutions)} ({count} items)")


def evaluate(
    policy: str,
    data: Path,
    out: Path | None = None,
    engine: Literal["vllm", "transformers"] = "vllm",
    limit: int | None = None,
    max_tokens: int = 512,
    max_model_len: int = 4096,
    rules: Literal["default", "mathvista", "mathvista-2023"] = "default",
    baseline: Path | None = None,
    lmm: dict[str, Any] | None = None,
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
    """
    from mstar_pl.data.images import verify_images
    from mstar_pl.data.jsonl import read_prompts
    from mstar_pl.evaluation import evaluate as running
    from mstar_pl.models import adapter_for
    from mstar_pl.rollouts.engine import check_context

    prompts = read_prompts(data)[:limit]
    if unlabelled := next((prompt.id for prompt in prompts if prompt.answer is None), None):
        raise InputError(f"{data}: prompt {unlabelled!r} has no answer to grade against; remove it")
    verify_images(prompts, str(data))
    before = running.read_outcomes(baseline) if baseline else None
    adapter = adapter_for(policy, **(lmm or {}))
    for prompt in prompts:
        check_context(adapter, prompt, max_tokens, max_model_len)
    out = out or Path("runs/evaluate") / f"{Path(policy).name}-{data.stem}"
    out.mkdir(parents=True, exist_ok=True)
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
    sampler = _engine(engine, adapter, max_model_len, max(len(prompt.images) for prompt in prompts))
    rows = running.answer_prompts(sampler, prompts, sampling, rules, out, fingerprint)
    _report(out, running.write_results(out, rows, settings), baseline, before)


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


def _engine(name: str, adapter: LMM, max_model_len: int, max_images: int) -> RolloutEngine:
    if name == "transformers":
        from mstar_pl.rollouts.transformers_engine import TransformersEngine

        return TransformersEngine(adapter, adapter.load_model())
    try:
        from mstar_pl.rollouts.vllm_engine import VLLMEngine
    except ImportError as error:
        raise InputError(
            f"vLLM cannot be imported ({error}); install an extra (cpu or vllm), or use --engine transformers"
        ) from None
    engine = VLLMEngine(adapter, max_model_len=max_model_len, max_images=max(1, max_images))
    engine.load_policy(adapter.load_model().state_dict().items(), version=1)
    return engine


def grade(
    questions: Path,
    responses: Path,
    out: Path | None = None,
    rules: Literal["default", "mathvista", "mathvista-2023"] = "default",
    use: Literal["response", "extraction"] | None = None,
) -> None:
    """Grade a file of responses and print the accuracy by task.

    Args:
        questions: Prompt JSONL, or MathVista's testmini.json; may be gzipped.
        responses: JSONL of {"pid", "response"} or {"pid", "extraction"} rows; may be gzipped.
        out: JSONL file for the graded rows.
        rules: How answers are compared: the project's rules, or MathVista's official ones (current or of
            2023).
        use: What to grade in rows that have both; default is the extraction for official rules, else the
            response.
    """
    from mstar_pl.evaluation.grading import grade_file
    from mstar_pl.evaluation.table import grade_table

    print(grade_table(grade_file(questions, responses, rules, out, use)))


COMMANDS: dict[str, Any] = {
    "data": {"_help": "Write data sets.", "minivista": minivista},
    "evaluate": evaluate,
    "grade": grade,
}


def _train(argv: list[str] | None) -> None:
    """Run LightningCLI: model and data by `class_path`, any number of `--config` overlays."""
    from lightning.pytorch.cli import LightningCLI

    import mstar_pl.callbacks
    import mstar_pl.data.datamodule
    import mstar_pl.data.evolving
    import mstar_pl.models
    import mstar_pl.modules  # noqa: F401 - so that their classes are known by their short names
    from mstar_pl.loops import SelfEvolvingTrainer

    # An abbreviated option would hide a misspelt one.
    options = {"exit_on_error": False, "allow_abbrev": False}
    LightningCLI(
        trainer_class=SelfEvolvingTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_kwargs=options | dict.fromkeys(TRAINING, options),
        args=argv,
    )


def _quiet() -> None:
    """Keep libraries from drowning our messages, and from looking for files on a hub."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logger = logging.getLogger("mstar_pl")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())
    for noise in (
        "does not have many workers",
        "Total length of `list` across ranks",
        "LeafSpec",
        "is not empty",
    ):
        warnings.filterwarnings("ignore", message=f".*{noise}.*")
    logging.getLogger("lightning.pytorch.trainer.connectors.checkpoint_connector").addFilter(
        lambda record: "weights_only" not in record.getMessage()
    )
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip: " not in record.getMessage()
    )
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\..*")


def _one_line(message: str) -> str:
    """Return the reason of a parser error on one line."""
    line = re.sub(r"\s*\n\s*", " ", message).strip()
    # Of a value that may also be null, the parser reports why it is not null, too.
    line = re.sub(r"Does not validate against any of the Union subtypes .*?Errors: - ", "", line)
    line = re.sub(r" - Expected a <class 'NoneType'>", "", line)
    return re.sub(
        r" Given value type: .*? Given value: (NestedArg.*)?",
        lambda found: "" if found[1] else ", got ",
        line,
    )


def _fail(message: str) -> int:
    print(f"mstar-pl: error: {message}", file=sys.stderr)
    return 2
