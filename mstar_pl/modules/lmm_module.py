"""What the LightningModules share: an LMM with its optimizer, frozen groups and low-rank updates."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import HalfPrecision
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import write_json
from mstar_pl.models import GROUPS, LMM, Group, LoRA
from mstar_pl.models.gathered import whole
from mstar_pl.models.lora import TrainedModel, plain_model
from mstar_pl.models.parts import check_groups
from mstar_pl.types import InputError

log = logging.getLogger(__name__)


class LMMModule(LightningModule):
    """An LMM that is trained.

    Args:
        lmm: Adapter of the LMM family and its weights.
        optimizer: Optimizer of the trained parameters.
        lr_scheduler: Learning-rate schedule, stepped once an optimizer step.
        freeze: Parameter groups that are not trained: `vision`, `projector`, `language`.
        lora: Train low-rank updates; None trains all parameters that are not frozen.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        learning_rates: Learning rates of parameter groups that differ from the optimizer's; a schedule scales
            each.

    Raises:
        InputError: `lora`, `freeze` and `learning_rates` contradict each other, or a rate is not above 0.
    """

    model: TrainedModel

    def __init__(
        self,
        lmm: LMM,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        freeze: list[Group] | None = None,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        learning_rates: dict[Group, float] | None = None,
    ) -> None:
        super().__init__()
        if lora is not None and freeze:
            raise InputError("model.lora freezes all weights that it does not name; remove model.freeze")
        check_groups(learning_rates or ())
        trained = set(GROUPS) - set(freeze or ()) if lora is None else set(lora.trained)
        if idle := sorted(set(learning_rates or ()) - trained):
            raise InputError(
                f"model.learning_rates: {idle[0]} is not trained (freeze, lora.groups); remove it"
            )
        if wrong := [group for group, rate in (learning_rates or {}).items() if rate <= 0]:
            raise InputError(f"model.learning_rates: {wrong[0]} must be above 0; freeze what is not to learn")
        self.lmm = lmm
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.freeze_groups = list(freeze or ())
        self.lora = lora
        self.gradient_checkpointing = gradient_checkpointing
        self.learning_rates = dict(learning_rates or {})

    def configure_model(self) -> None:
        """Load the weights, freeze groups and add low-rank updates; a second call does nothing."""
        if hasattr(self, "model"):
            return
        if isinstance(self.trainer.precision_plugin, HalfPrecision):
            raise InputError(
                f"trainer.precision {self.trainer.precision} casts the rotary frequencies of the model; "
                "use bf16-mixed, or, with model.lora, 32-true and model.lmm.init_args.dtype: bfloat16"
            )
        model = self.lmm.load_model()
        self.lmm.freeze(model, self.freeze_groups)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        # Transformers loads in evaluation mode, and Lightning restores each module's mode after validation.
        device = self.trainer.strategy.root_device
        self.model = (self.lora.apply(self.lmm, model, device) if self.lora else model).train()
        if any(one.requires_grad and one.dtype == torch.bfloat16 for one in self.model.parameters()):
            log.warning(
                "weights in bfloat16 are trained, which rounds small steps away (at a learning rate of 1e-6 "
                "nearly all); set model.lmm.init_args.dtype float32, on a GPU with precision bf16-mixed"
            )
        if self.device_mesh is not None:
            self._shard(self.device_mesh)

    def _shard(self, mesh: DeviceMesh) -> None:
        """Spread the weights over the processes, block by block (FSDP2)."""
        if self.trainer.testing or self.trainer.predicting:
            raise InputError(
                "test and predict need whole weights in each process; use strategy ddp, or mstar-pl evaluate"
            )
        if self.lora is not None and self.lora.quantize:
            raise InputError("weights in 4 bits cannot be spread over processes; use strategy ddp")
        if mesh["tensor_parallel"].size() > 1:
            raise InputError("tensor parallelism is not supported in training; set tensor_parallel_size: 1")
        kept = getattr(self.trainer.strategy, "keep_whole", ())
        for group, block in self.lmm.shard_blocks(plain_model(self.model)):
            fully_shard(block, mesh=mesh["data_parallel"], reshard_after_forward=group not in kept)
        fully_shard(self.model, mesh=mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule over the parameters that are trained."""
        optimizer = self.optimizer(self._trained())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def _trained(self) -> list[Any]:
        """Return the trained parameters, by group where one has a learning rate of its own."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not self.learning_rates:
            return trained
        model = plain_model(self.model)
        groups = {parameter: self.lmm.group(model, name) for name, parameter in model.named_parameters()}
        found: dict[str, dict[str, Any]] = {}
        for parameter in trained:
            group = groups.get(parameter, "language")  # the read-out of a process reward model sits on it
            own = {"lr": self.learning_rates[group]} if group in self.learning_rates else {}
            found.setdefault(group, {"name": group, "params": [], **own})["params"].append(parameter)
        return list(found.values())

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop at a loss that is not finite, before it reaches the weights.

        With several processes the gradients tell, which all of them share.
        """
        if self.trainer.world_size == 1 and not loss.isfinite():
            self._diverged("loss", 1)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop at gradients that are not finite; with `16-mixed` the scaler skips such a step."""
        gradients = [one.grad for one in self.parameters() if one.grad is not None]
        if self.trainer.precision != "16-mixed" and not whole(get_total_norm(gradients)).isfinite():
            self._diverged("gradient", self.trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the last checkpoint rather than to replace it by weights that are not finite."""
        for name, weight in self.named_parameters():
            if not whole(weight.detach().isfinite().all()):
                self._diverged(f"weight {name}", 1)

    def _diverged(self, what: str, num_batches: int) -> None:
        """Write down which prompts the last micro-batches held, and end the run.

        Raises:
            InputError: Always; says what can be done.
        """
        data, last = self.trainer.datamodule, self.trainer.fit_loop.epoch_loop.batch_idx  # type: ignore[attr-defined]
        batches = range(max(0, last + 1 - num_batches), last + 1)
        found = {"what": what, "epoch": self.trainer.current_epoch, "step": self.trainer.global_step}
        if isinstance(data, PolicyDataModule):
            found["prompt_ids"] = data.prompt_ids(batches)
        name = f"diverged-rank-{self.trainer.global_rank}.json"
        file = write_json(Path(self.trainer.default_root_dir) / name, found)
        raise InputError(
            f"step {self.trainer.global_step}: the {what} is not finite; the prompts of its batch are in "
            f"{file}. Look at them, lower the learning rate or set trainer.gradient_clip_val, and go on from "
            "the last checkpoint with --ckpt_path last"
        )

    def step_share(self, losses: Tensor, step_weight: Tensor) -> Tensor:
        """Return a micro-batch's share of the optimizer step's mean loss.

        Args:
            losses: The losses of this micro-batch.
            step_weight: How many losses the whole optimizer step has, over micro-batches and processes.
        """
        # Lightning divides by the accumulated micro-batches and the strategy averages over processes.
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return losses.sum() * scale / step_weight
