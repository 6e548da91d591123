"""The command line: `mstar-pl COMMAND …`."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from jsonargparse import ArgumentError, auto_cli

from mstar_pl.commands.bases import with_bases
from mstar_pl.commands.bootstrap import bootstrap
from mstar_pl.commands.convert import internvl2, minicpmv
from mstar_pl.commands.data import check, hide, minivista, split, steps
from mstar_pl.commands.evaluate import evaluate
from mstar_pl.commands.export import dataset, model
from mstar_pl.commands.grade import grade
from mstar_pl.commands.label import label
from mstar_pl.commands.score import score
from mstar_pl.commands.study import study
from mstar_pl.commands.table import table
from mstar_pl.types import InputError

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningCLI

TRAINING = ("fit", "validate", "test", "predict")
PLAN = "plan"
CHECK_LMM = "check-lmm"

HELP = """usage: mstar-pl COMMAND [OPTIONS]

Train large multimodal models on their own solutions (M-STAR, arXiv 2412.17451).

training, configured by YAML files and options (LightningCLI):
  fit        train:                mstar-pl fit --config configs/experiments/sft.yaml
             process reward model: mstar-pl fit --config configs/experiments/mprm.yaml
             self-evolve:          mstar-pl fit --config configs/experiments/mstar.yaml
  validate   loss on held-out examples
  test       answer labelled prompts in the training process and grade them
  predict    answer prompts in the training process and write the responses
  plan       memory of a training on each device, before it is started; takes the arguments of fit
  check-lmm  whether a model trains and samples one and the same policy, before it is trained:
                                   mstar-pl check-lmm --model configs/model/internvl.yaml

data and evaluation:
  data       write data sets:      mstar-pl data minivista --out runs/minivista
             list faulty rows:     mstar-pl data check --source prompts.jsonl --policy runs/sft/policy
  bootstrap  let a base model explain given answers, and keep the right explanations for a warm-up:
                                   mstar-pl bootstrap --config configs/bootstrap.yaml
  label      label the steps of a policy's own responses by Monte Carlo, to train a process reward model:
                                   mstar-pl label --config configs/label.yaml --policy runs/sft/policy
  score      score the steps of a file of responses with a process reward model
  evaluate   accuracy of a policy: mstar-pl evaluate --policy runs/sft/policy --data runs/minivista/test.jsonl
             on benchmarks:        mstar-pl evaluate --policy runs/sft/policy --benchmarks all --data DIR
  grade      grade a file of responses, by our rules or a benchmark's
  study      recipes x seeds, and their table: mstar-pl study --config configs/study/minivista.yaml
  table      the paper's tables:   mstar-pl table --results.warmup runs/a --results.mstar runs/b
  export     models, data sets:    mstar-pl export model --source runs/mstar/policy --out my-policy
                                   mstar-pl export dataset --splits.train runs/label/train.jsonl --out steps …
  convert    published models:     mstar-pl convert internvl2 InternVL2-2B models/InternVL2-2B
                                   mstar-pl convert minicpmv DOWNLOAD models/MiniCPM-V-2_5

Every command has its own help: mstar-pl COMMAND --help. The options of a class are shown by, e.g.,
mstar-pl fit --model.help mstar_pl.modules.PolicyModule.
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, or 2 after a one-line error about the user's input.

    After SIGTERM the process leaves with 75 (EX_TEMPFAIL): to be started again.
    """
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    known = [*TRAINING, PLAN, CHECK_LMM, *COMMANDS]
    if argv[0] not in known:
        close = difflib.get_close_matches(argv[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see mstar-pl --help"
        return _fail(f"unknown command {argv[0]!r}; {hint}")
    _quiet()
    if args is None:  # what was sampled is kept; a training waits for a moment to save (Interruption)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_TEMPFAIL))
    try:
        if argv[0] == PLAN:
            _plan(argv[1:])
        elif argv[0] in TRAINING:
            argv = with_bases(argv)
            if args is None:
                sys.argv[1:] = argv  # where Lightning reads them, and so do the processes that it starts
            _train(None if args is None else argv)
        else:
            auto_cli(
                {argv[0]: _command(argv[0])},  # parsers of the others import much more
                args=[_underscored(one) for one in argv],
                as_positional=argv[0] == "convert",  # as of a copy, its source and target
                prog="mstar-pl",
                exit_on_error=False,
            )
    except InputError as error:
        return _fail(str(error))
    except ArgumentError as error:
        return _fail(_one_line(str(error)))
    except Exception as error:
        if (refusal := _refusal(error)) is not None:
            return _fail(str(refusal))
        if (advice := _advice(error)) is None:
            raise
        return _fail(f"{_one_line(str(error))}; {advice}")
    return 0


def _refusal(error: BaseException | None) -> InputError | None:
    """Return what a constructor refused, which the parser puts in words of its own, at each level."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__
    return error


def _advice(error: Exception) -> str | None:
    """Say what can be done where the machine is at its end; None where it is not."""
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text:
        return "make room and start again: what is complete stays (fit: --ckpt_path last)"
    small = (
        "lower data.micro_batch_size or set model.gradient_checkpointing (training), lower the engine's "
        "gpu_memory_utilization, max_num_seqs or cpu_kv_cache_gib (sampling), then start again"
    )
    lacking = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return small if lacking or number == errno.ENOMEM or "can't allocate memory" in text else None


COMMANDS: dict[str, Any] = {
    "data": {
        "_help": "Write and check data sets.",
        "check": check,
        "minivista": minivista,
        "hide": hide,
        "split": split,
        "steps": steps,
    },
    "bootstrap": bootstrap,
    "label": label,
    "score": score,
    "evaluate": evaluate,
    "grade": grade,
    "study": study,
    "table": table,
    "export": {
        "_help": "Write models and data sets for others, with cards.",
        "model": model,
        "dataset": dataset,
    },
    "convert": {
        "_help": "Write published models in the architectures that train and sample here.",
        "internvl2": internvl2,
        "minicpmv": minicpmv,
    },
}


def _command(name: str) -> Any:
    """Return the function of a command, or the functions of a group of them."""
    if name != CHECK_LMM:
        return COMMANDS[name]
    from mstar_pl.commands.check_lmm import (
        check_lmm,
    )  # its options are those of classes that take long to import

    return check_lmm


def _plan(argv: list[str]) -> None:
    """Parse the arguments as `fit` does, and print what it would take."""
    from mstar_pl.commands.plan import Recipe, options_of, show

    options, argv = options_of(argv)
    for name in ("lightning.pytorch", "lightning.fabric", "transformers"):  # seeds are not set, texts made up
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("torch._library.triton").addFilter(lambda record: False)
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    show(cast(Recipe, _train(with_bases(argv), Recipe)), options)


def _train(argv: list[str] | None, kind: type[LightningCLI] | None = None) -> LightningCLI:
    """Run LightningCLI: model and data by `class_path`, any number of `--config` overlays."""
    from lightning.pytorch.cli import LightningCLI

    import mstar_pl.callbacks
    import mstar_pl.data.datamodule
    import mstar_pl.data.evolving
    import mstar_pl.data.sources.mathv360k
    import mstar_pl.data.sources.mstar
    import mstar_pl.data.steps
    import mstar_pl.models
    import mstar_pl.modules  # noqa: F401 - so that their classes are known by their short names
    from mstar_pl.loops import SelfEvolvingTrainer

    base: type[LightningCLI] = kind or LightningCLI
    command = (sys.argv[1:] if argv is None else argv)[0]
    # The parser of each other command would take as long to make.
    alone = staticmethod(lambda: {command: base.subcommands()[command]})
    # An abbreviated option would hide a misspelt one.
    options = {"exit_on_error": False, "allow_abbrev": False}
    return type(base.__name__, (base,), {"subcommands": alone})(
        trainer_class=SelfEvolvingTrainer,
        subclass_mode_model=True,
        subclass_mode_data=True,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        parser_kwargs=options | {command: options},
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
    # Imported by peft, it warns of a kernel that a hub would have.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\..*")


def _underscored(argument: str) -> str:
    """Return an option as the parser names it; people also write dashes. Keys and values stay as they are.

    >>> [_underscored(one) for one in ("--max-tokens=a-b", "-1", "a--b", "--my-rows.a-b")]
    ['--max_tokens=a-b', '-1', 'a--b', '--my_rows.a-b']
    """
    found = re.match(r"--[^.=]+", argument)
    return argument if found is None else "--" + found[0][2:].replace("-", "_") + argument[found.end() :]


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
