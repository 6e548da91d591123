"""`mstar-pl plan`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningCLI
from torch import Tensor, nn

from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.largest import largest_batch
from mstar_pl.evaluation.table import markdown
from mstar_pl.models import adapter_for
from mstar_pl.models.lora import has_updates, plain_model
from mstar_pl.modules import LMMModule
from mstar_pl.modules.dry_run import Footprint, Kind, dry_run
from mstar_pl.rollouts.engine import context_of
from mstar_pl.types import InputError

GIB = 2**30
ALLOWANCE = 2 * GIB
"""Of a GPU, for what is not reckoned: CUDA context, NCCL, CUDA graphs."""

TITLES: dict[Kind, str] = {
    "gradients": "gradients",
    "optimizer": "optimizer",
    "stepping": "optimizer's step, in passing",
    "casts": "casts of weights (autocast)",
    "vocabulary": "logits and loss",
    "activations": "activations and batch",
}

HELP = """usage: mstar-pl plan --config recipe.yaml [arguments of fit] [--gpu_gib 80] [--json]

Predict how much memory a training takes on each device, before it is started. The arguments are those of
`mstar-pl fit`: the same recipes, overlays and options, your own classes included. Nothing is started and no
weight is read; the model's folder needs config.json and the processor's files. Nor is data read.

  mstar-pl plan --config configs/experiments/mstar.yaml --trainer configs/trainer/gpu.yaml
  mstar-pl plan --config configs/experiments/mstar.yaml --config configs/scale/mathv360k_prm.yaml \\
    --model.init_args.lmm.init_args.path models/InternVL3-8B-hf

  --gpu_gib   memory of a GPU in GiB; default is that of this machine's, else 80
  --json      the table as JSON, in bytes

How to read it. A column is a phase: `training` at its worst moment, `weight sync` and `generation`, in which
the optimizer stays where it is. The peak is the largest column. It is reckoned for a micro-batch
whose rows all have data.max_length tokens and one image, once with the largest image that fits and once with
the longest response; the worse one counts. What helps where:

  logits, activations    data.micro_batch_size, data.max_length, model.gradient_checkpointing
  weights, optimizer     --trainer configs/trainer/fsdp2.yaml, model.lora, model.freeze
  casts (by autocast)    model.lora with model.lmm.init_args.dtype bfloat16 and precision 32-true
  engine                 dtype, gpu_memory_utilization, max_model_len of trainer.evolution.init_args.engine

Not counted: CUDA contexts, NCCL and CUDA graphs (leave 2 GiB to them), fragmentation of the allocator, what
kernels use inside, validation in large batches (data.eval_batch_size), activations of a process reward model.
On a CPU a training step agrees with what is measured (bin/bench-plan). On a GPU, and with FSDP2, whose blocks
put together are reckoned at most, nothing has been measured yet.
"""


def options_of(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of the command, and the arguments of `fit` that are left."""
    if {"-h", "--help"} & {*argv}:
        print(HELP, end="")
        raise SystemExit(0)
    parser = argparse.ArgumentParser(prog="mstar-pl plan", add_help=False, allow_abbrev=False)
    parser.add_argument("--gpu_gib", "--gpu-gib", type=float)
    parser.add_argument("--json", action="store_true")
    options, rest = parser.parse_known_args(argv)
    return options, ["fit", *rest]


class Recipe(LightningCLI):
    """The configuration of a training that is not started."""

    def instantiate_classes(self) -> None:
        """Make nothing yet; a trainer would look for its devices, a reward load its model."""
        self.parts = self.config.clone()
        self.trainer_config: Namespace = self.parts.fit.pop("trainer")
        self.subcommand = None

    def make(self) -> tuple[LMMModule, PolicyDataModule]:
        """Return module and data module anew.

        Raises:
            InputError: They are no LMMModule and PolicyDataModule.
        """
        found = self.parser.instantiate(self.parts).fit
        module, data = found.get("model"), found.get("data")
        if not isinstance(module, LMMModule) or not isinstance(data, PolicyDataModule):
            raise InputError("a plan needs a module and a data module of mstar_pl; give a recipe by --config")
        return module, data


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a recipe runs.

    Attributes:
        is_gpu: Whether on GPUs.
        num_local: Processes of a machine, one a device.
        num: Processes of all machines.
        shards: Whether FSDP2 spreads weights over them.
    """

    is_gpu: bool
    num_local: int
    num: int
    shards: bool

    @classmethod
    def of(cls, trainer: Namespace) -> Machine:
        """Read the arguments of the Trainer.

        Raises:
            InputError: The strategy is none of those that work here.
        """
        is_gpu = trainer.accelerator in ("gpu", "cuda") or (
            trainer.accelerator == "auto" and torch.cuda.is_available()
        )
        devices = trainer.devices
        if isinstance(devices, list):
            num_local = len(devices)
        elif isinstance(devices, str) and "," in devices:
            num_local = len([one for one in devices.split(",") if one.strip()])
        elif str(devices) in ("auto", "-1"):
            num_local = max(1, torch.cuda.device_count()) if is_gpu else 1
        else:
            num_local = int(devices)
        strategy = getattr(trainer.strategy, "class_path", trainer.strategy).rpartition(".")[2]
        shards = strategy in ("fsdp2", "FSDP2Strategy", "ModelParallelStrategy")
        if not shards and not strategy.lower().startswith(("auto", "ddp", "single")):
            raise InputError(f"trainer.strategy {strategy} is not supported; take auto, ddp or fsdp2")
        return cls(is_gpu, num_local, num_local * trainer.num_nodes, shards)


def plan(recipe: Recipe, gpu_gib: float | None = None) -> dict[str, Any]:
    """Return the bytes on a device by phase and part (`phases`), and what else there is to say (`notes`).

    Args:
        recipe: The recipe.
        gpu_gib: Memory of a GPU in GiB; None takes that of this machine's, else 80.
    """
    trainer = recipe.trainer_config
    machine, evolution = Machine.of(trainer), trainer.get("evolution")
    num_shards = machine.num if machine.shards else 1
    module, footprint, micro_batch = _worst(recipe, machine, evolution)
    weights, peak, left = _weights(module, num_shards), footprint.peak(num_shards), footprint.left()
    training = weights | {title: peak[kind] for kind, title in TITLES.items()}
    between = weights | {"optimizer": left["optimizer"] // num_shards}
    if machine.shards and machine.num > 1:
        training["blocks put together"] = _unsharded(module)
    elif machine.num > 1:
        between["gradient buckets"] = left["gradients"]  # in training the gradients lie in them
    found: dict[str, Any] = {"phases": {"training": training}, "notes": [f"micro-batch: {micro_batch}"]}
    if machine.is_gpu:
        found["device"] = int((gpu_gib or _gpu_gib()) * GIB)
    if evolution is not None:
        _add_generation(found, evolution.init_args, module, between, machine)
    return found


def _worst(recipe: Recipe, machine: Machine, evolution: Namespace | None) -> tuple[LMMModule, Footprint, str]:
    """Dry-run the micro-batch with the largest image and that with the longest response; return the worse."""
    runs = []
    for image_first in (False, True):
        module, data = recipe.make()
        rows = min(data.micro_batch_size, max(1, data.batch_size // machine.num))
        try:
            with tempfile.TemporaryDirectory() as folder:
                batch = largest_batch(
                    data,
                    module.lmm,
                    Path(folder),
                    num_rows=rows,
                    max_response=evolution.init_args.sampling.max_tokens if evolution else None,
                    image_first=image_first,
                )
        except OSError as error:  # what Transformers raises where its files are missing
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{module.lmm.path}: no processor ({reason}); copy its files there, too"
            ) from None
        footprint = dry_run(
            module,
            batch,
            precision=recipe.trainer_config.precision or "32-true",
            accumulates=data.batch_size > rows * machine.num,
            foreach=machine.is_gpu,
        )
        kind = "the largest image that fits" if image_first else "the longest response"
        shape = f"{rows} rows of {batch['input_ids'].shape[1]} tokens each, with {kind}"
        runs.append((module, footprint, shape))
    return max(runs, key=lambda run: run[1].peak(machine.num if machine.shards else 1).total())


def _weights(module: LMMModule, num_shards: int) -> dict[str, int]:
    """Return the bytes of weights and buffers by group, trained and frozen."""
    found: Counter[str] = Counter()
    inner = plain_model(module.model)
    for name, weight in inner.named_parameters():
        state = "trained" if weight.requires_grad else "frozen"
        found[f"weights: {module.lmm.group(inner, name)}, {state}"] += weight.nbytes
    whole = {id(one): one.nbytes for one in (*module.parameters(), *module.buffers())}
    found["weights: others and buffers"] = sum(whole.values()) - found.total()
    return {name: found[name] // num_shards for name in sorted(found) if found[name]}


def _unsharded(module: LMMModule) -> int:
    """Return the bytes of what FSDP2 puts together at a time: weights, and gradients to be spread.

    Those outside the blocks stay whole from forward to backward pass. Of the blocks there are two: one at
    work, and the next one that arrives, or the gradients of the last one that leave.
    """
    blocks = [sorted(block.parameters(), key=id) for _, block in module.lmm.shard_blocks(module.model)]
    inside = {id(one) for block in blocks for one in block}
    outside = [one for one in module.parameters() if id(one) not in inside]

    def size(weights: Iterable[Tensor]) -> int:
        return sum(one.nbytes * (2 if one.requires_grad else 1) for one in weights)

    return size(outside) + 2 * max(map(size, blocks), default=0)


def _add_generation(
    found: dict[str, Any], evolution: Namespace, module: LMMModule, between: dict[str, int], machine: Machine
) -> None:
    """Add the phases of an iteration in which the engine is awake, and what it has room for."""
    model, given = module.model, evolution.engine.get("init_args") or Namespace()
    width = getattr(torch, given.get("dtype") or module.lmm.dtype).itemsize
    num = sum(one.numel() for name, one in model.named_parameters() if "lora_" not in name)
    engine = {"engine: weights": num * width}
    share = given.get("gpu_memory_utilization") if machine.is_gpu else None
    if share is not None:
        cache = int(share * found["device"]) - engine["engine: weights"]
        if cache <= 0:
            raise InputError(
                f"gpu_memory_utilization {share} of {found['device'] / GIB:.0f} GiB does not hold the "
                f"engine's weights, {engine['engine: weights'] / GIB:.1f} GiB; raise it, or set "
                "the engine's dtype: bfloat16"
            )
    else:
        cache = int(given.get("cpu_kv_cache_gib", 0) * GIB)
    if cache:
        engine["engine: KV cache"] = cache
        token, length = _token_elements(model) * width, context_of(module.lmm, given.max_model_len)
        found["notes"].append(
            f"KV cache: {'at most ' if machine.is_gpu else ''}{cache // token} tokens of {token} bytes, "
            f"{cache // token // length} responses of {length} tokens with their prompts; "
            f"max_num_seqs is {given.max_num_seqs}"
        )
    else:
        found["notes"].append(f"KV cache: not known of {evolution.engine.class_path}")
    judge = _judge(evolution.reward, model)
    resident = {} if machine.is_gpu else engine | judge  # on a CPU nothing goes to sleep
    found["phases"]["training"] |= resident
    found["phases"]["weight sync"] = between | engine | resident | _sync(module, machine)
    found["phases"]["generation"] = between | engine | judge
    if machine.is_gpu:
        parts = {
            "whole weights at the start": sum(one.nbytes for one in model.parameters()),
            "image cache": int(given.get("image_cache_gib", 0) * GIB),
            "process reward model asleep": sum(judge.values()),
        }
        listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        found["notes"].append(
            f"host memory of each of {machine.num_local} processes of a machine, at least: {listed} GiB"
        )


def _sync(module: LMMModule, machine: Machine) -> dict[str, int]:
    """Return what handing the weights over takes in passing."""
    updates = has_updates(module.model)
    if not updates and not (machine.shards and machine.num > 1):
        return {}
    largest = max(one.nbytes for one in module.model.parameters())
    return {"a weight put together": largest}


def _judge(reward: Namespace | None, model: nn.Module) -> dict[str, int]:
    """Return the bytes of a process reward model, also of one inside another reward."""
    given = reward.get("init_args") if reward else None
    if given is None:
        return {}
    if "path" not in given or "dtype" not in given:
        return _judge(given.get("reward"), model)
    if (Path(given.path) / "config.json").is_file():
        with torch.device("meta"):
            model, title = adapter_for(given.path).empty_model(), "process reward model"
    else:
        title = "process reward model (as large as the policy)"
    num = sum(one.numel() for name, one in model.named_parameters() if "lora_" not in name)
    return {title: num * getattr(torch, given.dtype).itemsize}


def _token_elements(model: Any) -> int:
    """Return the numbers that the KV cache holds of a token; all layers are taken to attend to everything."""
    text = model.config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * width


def _gpu_gib() -> float:
    return torch.cuda.get_device_properties(0).total_memory / GIB if torch.cuda.is_available() else 80.0


def table(found: Mapping[str, Any]) -> str:
    """Return a plan as a table with its notes."""
    phases: dict[str, dict[str, int]] = found["phases"]
    totals = {phase: sum(parts.values()) for phase, parts in phases.items()}
    worst = max(totals, key=lambda phase: totals[phase])
    unit, scale = ("GiB", GIB) if totals[worst] >= 16 * GIB else ("MiB", 2**20)
    rows = [[f"{unit} on each device", *phases]]
    for part in dict.fromkeys(part for parts in phases.values() for part in parts):
        cells = [f"{parts.get(part, 0) / scale:.1f}" for parts in phases.values()]
        if {*cells} != {"0.0"}:
            rows.append([part, *("" if cell == "0.0" else cell for cell in cells)])
    rows.append(["TOTAL", *(f"{total / scale:.1f}" for total in totals.values())])
    verdict = f"peak: {totals[worst] / scale:.1f} {unit}, in {worst}"
    if device := found.get("device"):
        fits = "fits" if totals[worst] + ALLOWANCE <= device else "DOES NOT FIT"
        verdict += (
            f"; with {ALLOWANCE / GIB:.0f} GiB for contexts and graphs it {fits} into {device / GIB:.0f} GiB"
        )
    return "\n".join([markdown(rows), verdict, *found["notes"]])


def show(recipe: Recipe, options: argparse.Namespace) -> None:
    """Print the plan of a recipe."""
    found = plan(recipe, options.gpu_gib)
    print(json.dumps(found) if options.json else table(found))
