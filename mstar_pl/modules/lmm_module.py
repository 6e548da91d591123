"""What the LightningModules share: an LMM with its optimizer, frozen groups and low-rank updates."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import HalfPrecision
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from mstar_pl.models import LMM, Group, LoRA
from mstar_pl.types import InputError


class LMMModule(LightningModule):
    """An LMM that is trained.

    Args:
        lmm: Adapter of the LMM family and its weights.
        optimizer: Optimizer of the trained parameters.
        lr_scheduler: Learning-rate schedule, stepped once an optimizer step.
        freeze: Parameter groups that are not trained: `vision`, `projector`, `language`.
        lora: Train low-rank updates of the language model; None trains all parameters that are not frozen.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.

    Raises:
        InputError: `lora` and `freeze` contradict each other.
    """

    model: PreTrainedModel | PeftModel

    def __init__(
        self,
        lmm: LMM,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        freeze: list[Group] | None = None,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if lora is not None and freeze:
            raise InputError("model.lora freezes all weights below the updates; remove model.freeze")
        self.lmm = lmm
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.freeze_groups = list(freeze or ())
        self.lora = lora
        self.gradient_checkpointing = gradient_checkpointing

    def configure_model(self) -> None:
        """Load the weights, freeze groups and add low-rank updates; a second call does nothing."""
        if hasattr(self, "model"):
            return
        if isinstance(self.trainer.precision_plugin, HalfPrecision):
            raise InputError(
                f"trainer.precision {self.trainer.precision} casts the rotary frequencies of the model; "
                "use bf16-mixed, or 32-true with model.lmm.init_args.dtype: bfloat16"
            )
        model = self.lmm.load_model()
        self.lmm.freeze(model, self.freeze_groups)
        if self.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        # Transformers loads in evaluation mode, and Lightning restores each module's mode after validation.
        self.model = (self.lora.apply(self.lmm, model) if self.lora else model).train()

    def configure_optimizers(self) -> Any:
        """Build optimizer and schedule over the parameters that are trained."""
        optimizer = self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def step_share(self, losses: Tensor, step_weight: Tensor) -> Tensor:
        """Return a micro-batch's share of the optimizer step's mean loss.

        Args:
            losses: The losses of this micro-batch.
            step_weight: How many losses the whole optimizer step has, over micro-batches and processes.
        """
        # Lightning divides by the accumulated micro-batches and the strategy averages over processes.
        scale = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return losses.sum() * scale / step_weight
