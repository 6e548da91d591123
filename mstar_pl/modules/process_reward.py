"""Training of a multimodal process reward model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryCalibrationError,
    BinaryF1Score,
)

from mstar_pl.data.batches import Batch
from mstar_pl.data.steps import StepDataModule
from mstar_pl.models import LMM, Group, LoRA
from mstar_pl.models.process_reward import ReadOutKind, StepReadOut, step_logits
from mstar_pl.modules.lmm_module import LMMModule
from mstar_pl.types import InputError


class ProcessRewardModule(LMMModule):
    """Train an LMM to judge each step of a response (the MPRM of arXiv 2412.17451, section 3.2).

    Binary cross entropy at the end of each labelled step, hard or soft labels alike; the loss of an optimizer
    step is the mean over all its labelled steps. Of a soft label, validation takes for correct what is above
    zero, like a hard label.

    Args:
        lmm: Adapter of the LMM family and its weights; best those of the policy that wrote the responses.
        optimizer: Optimizer; the default is AdamW with a constant learning rate of 2e-6.
        lr_scheduler: Learning-rate schedule, stepped once an optimizer step.
        read_out: `token` for the probability of a positive against a negative token, which leaves a plain
            LMM; `head` for a linear layer of its own.
        positive: Text of the positive token.
        negative: Text of the negative token.
        balance_classes: Weigh labels so that correct and wrong steps of the training set count the same.
        freeze: Parameter groups that are not trained; the default is the vision tower, an empty list none.
        lora: Train low-rank updates; `freeze` must then be left out.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        learning_rates: Learning rates of parameter groups that differ from the optimizer's; a read-out with a
            linear layer belongs to `language`.
    """

    def __init__(
        self,
        lmm: LMM,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=2e-6, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        read_out: ReadOutKind = "token",
        positive: str = "+",
        negative: str = "-",
        balance_classes: bool = False,
        freeze: list[Group] | None = None,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        learning_rates: dict[Group, float] | None = None,
    ) -> None:
        frozen: list[Group] = ["vision"] if freeze is None and lora is None else list(freeze or ())
        super().__init__(lmm, optimizer, lr_scheduler, frozen, lora, gradient_checkpointing, learning_rates)
        self.read_out_kind: ReadOutKind = read_out
        self.positive = positive
        self.negative = negative
        self.balance_classes = balance_classes
        self.class_weights = (1.0, 1.0)
        self.val_loss = MeanMetric()
        self.val_steps = MetricCollection(
            {
                "step_accuracy": BinaryAccuracy(),
                "f1": BinaryF1Score(),
                "auroc": BinaryAUROC(),
                "calibration_error": BinaryCalibrationError(n_bins=10),
            },
            prefix="val/",
        )
        self.val_first_error = MeanMetric()

    def configure_model(self) -> None:
        """Load the model and build its read-out; a second call does nothing."""
        super().configure_model()
        if not hasattr(self, "read_out"):
            kind = self.read_out_kind
            self.read_out = StepReadOut(self.lmm, self.model, kind, self.positive, self.negative)
            if self.device_mesh is not None and self.read_out.head is not None:
                fully_shard(self.read_out, mesh=self.device_mesh["data_parallel"])
            # FSDP2 puts weights together in what it knows as a forward pass of the whole model.
            self.model.step_logits = partial(step_logits, self.model, self.read_out)  # type: ignore[assignment] # a method
            register_fsdp_forward_method(self.model, "step_logits")
            words, vocabulary = self.model.get_input_embeddings(), self.model.get_output_embeddings()
            if self.read_out.head is not None and vocabulary.weight is not words.weight:
                vocabulary.requires_grad_(False)  # no loss reaches it

    def on_fit_start(self) -> None:
        """Weigh the classes by their share of the training set.

        Raises:
            InputError: All steps have the same label, so there is nothing to learn.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined] # set by fit
        if not isinstance(data, StepDataModule):
            raise InputError(
                f"ProcessRewardModule needs a StepDataModule, not a {type(data).__name__}; "
                "set data.class_path to mstar_pl.data.steps.StepDataModule"
            )
        share = data.mean_label
        if not 0 < share < 1:
            source = data.source_name("train")
            raise InputError(f"{source}: all steps have the same label; label more responses")
        if self.balance_classes:
            self.class_weights = (0.5 / (1 - share), 0.5 / share)

    def step_losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the labelled steps of a batch give.

        Args:
            batch: What `mstar_pl.data.collate_steps.collate_steps` returns.

        Returns:
            `losses_S` (nats, float32), `logits_S`, `labels_S` and `rows_S` of the S labelled steps.
        """
        known = ~batch["step_labels"].isnan()
        rows_S, places_S = batch["step_rows"][known], batch["step_places"][known]
        labels_S = batch["step_labels"][known].float()
        own = ("step_rows", "step_places", "step_labels", "num_step_losses")
        inputs = {key: value for key, value in batch.items() if key not in own}
        logits_S = cast(Callable[..., Tensor], self.model.step_logits)(inputs, rows_S, places_S)
        wrong, right = self.class_weights
        weights_S = labels_S * right + (1 - labels_S) * wrong
        losses_S = binary_cross_entropy_with_logits(logits_S, labels_S, weights_S, reduction="none")
        return losses_S, logits_S, labels_S, rows_S

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's share of the optimizer step's mean loss."""
        losses_S, *_ = self.step_losses(batch)
        self.log("train/loss", losses_S.detach().mean(), prog_bar=True, batch_size=max(1, len(losses_S)))
        return self.step_share(losses_S, batch["num_step_losses"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log how well steps are judged: unweighted loss, accuracy, F1, AUROC, calibration, first error."""
        _, logits_S, labels_S, rows_S = self.step_losses(batch)
        losses_S = binary_cross_entropy_with_logits(logits_S, labels_S, reduction="none")
        truth_S = (labels_S > 0).int()
        self.val_loss.update(losses_S)
        self.val_steps.update(logits_S.sigmoid(), truth_S)
        for row in rows_S.unique():
            mine = rows_S == row
            found, true = _first(logits_S[mine] <= 0), _first(truth_S[mine] == 0)
            self.val_first_error.update(float(found == true))
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log_dict(self.val_steps)
        self.log("val/first_error_accuracy", self.val_first_error)


def _first(flags: Tensor) -> int:
    """Return the place of the first true value, or -1.

    >>> _first(torch.tensor([False, True, True])), _first(torch.tensor([False]))
    (1, -1)
    """
    places = flags.nonzero()
    return int(places[0]) if len(places) else -1
