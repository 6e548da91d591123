"""Supervised fine-tuning of a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric

from mstar_pl.data.batches import Batch
from mstar_pl.data.collate import IGNORE
from mstar_pl.models import LMM, Group, LoRA
from mstar_pl.models.gathered import Gathered
from mstar_pl.models.lora import has_updates, low_rank_updates, merged_weights, plain_model
from mstar_pl.modules.lmm_module import LMMModule
from mstar_pl.rewards import grade
from mstar_pl.rollouts.transformers_engine import TransformersEngine
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig


class PolicyModule(LMMModule):
    """Train an LMM on responses: next-token loss on response tokens only (arXiv 2412.17451, section 2).

    The loss of an optimizer step is the mean over all its response tokens, however the step is cut into
    micro-batches and processes.

    Args:
        lmm: Adapter of the LMM family and its weights.
        optimizer: Optimizer; the default is AdamW with the paper's constant learning rate of 1e-6.
        lr_scheduler: Learning-rate schedule, stepped once an optimizer step. Give explicit horizons, e.g.
            `torch.optim.lr_scheduler.LinearLR` with `total_iters` for a warm-up that then stays constant.
        freeze: Parameter groups that are not trained: `vision`, `projector`, `language`.
        lora: Train low-rank updates; None trains all parameters that are not frozen.
        gradient_checkpointing: Recompute activations in the backward pass to save memory.
        sampling: How `test` and `predict` generate.
        learning_rates: Learning rates of parameter groups that differ from the optimizer's, e.g.
            `{vision: 1.0e-6, projector: 1.0e-5}`; a schedule scales each.

    Raises:
        InputError: `lora`, `freeze` and `learning_rates` contradict each other.
    """

    def __init__(
        self,
        lmm: LMM,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(params, lr=1e-6, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        freeze: list[Group] | None = None,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        sampling: SamplingConfig | None = None,
        learning_rates: dict[Group, float] | None = None,
    ) -> None:
        super().__init__(lmm, optimizer, lr_scheduler, freeze, lora, gradient_checkpointing, learning_rates)
        self.sampling = sampling or SamplingConfig()
        self.val_loss = MeanMetric()
        self.val_accuracy = MeanMetric()
        self.test_accuracy = MeanMetric()

    def token_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits and label of every position that carries loss.

        Args:
            batch: What `mstar_pl.data.collate.collate_examples` returns; T tokens a row.

        Returns:
            `logits_NV` (float32) and `labels_N`, for the N response tokens of the batch.
        """
        inputs = {key: value for key, value in batch.items() if key not in ("labels", "num_step_losses")}
        labels_BT = batch["labels"]
        # Logits only from the first response token on: the head is the largest layer, the prompt the longest
        # part.
        first = int((labels_BT != IGNORE).any(0).int().argmax())
        width = labels_BT.shape[1] - first + 1
        # Cut once more: MiniCPM-V 4.6 gives the logits of all positions.
        logits_BWV = self.model(**inputs, use_cache=False, logits_to_keep=width).logits[:, -width:-1]
        labels_BW = labels_BT[:, first:]
        mask_BW = labels_BW != IGNORE
        return logits_BWV[mask_BW].float(), labels_BW[mask_BW]

    def token_losses(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return cross entropy, hit and label of every position that carries loss.

        Args:
            batch: What `mstar_pl.data.collate.collate_examples` returns.

        Returns:
            `losses_N` (nats, float32), `hits_N` (whether the most likely token is the label) and `labels_N`,
            for the N response tokens of the batch.
        """
        logits_NV, labels_N = self.token_logits(batch)
        losses_N = cross_entropy(logits_NV, labels_N, reduction="none")
        return losses_N, logits_NV.argmax(-1) == labels_N, labels_N

    def training_losses(self, logits_NV: Tensor, labels_N: Tensor, batch: Batch) -> Tensor:
        """Return what training minimises at each response token; override it to add a term of your own.

        The loss of an optimizer step is the mean of these over all its response tokens, so a term is weighed
        as the cross entropy is, however the step is cut.

        Args:
            logits_NV: Logits at the N response tokens of the batch, float32.
            labels_N: The tokens themselves.
            batch: What they come from, for a term that needs more, e.g. the logits of another policy.

        Returns:
            `losses_N` (nats); by default the cross entropy.
        """
        return cross_entropy(logits_NV, labels_N, reduction="none")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return this micro-batch's share of the optimizer step's mean loss."""
        losses_N = self.training_losses(*self.token_logits(batch), batch)
        self.log("train/loss", losses_N.detach().mean(), prog_bar=True, batch_size=losses_N.shape[0])
        return self.step_share(losses_N, batch["num_step_losses"])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mean loss of a response token and the share predicted right, given those before it."""
        losses_N, hits_N, _ = self.token_losses(batch)
        self.val_loss.update(losses_N)
        self.val_accuracy.update(hits_N.float())
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log("val/token_accuracy", self.val_accuracy)

    def test_step(self, batch: list[Prompt], batch_idx: int) -> None:
        """Answer prompts with the configured sampling and log the share of correct responses."""
        for group in self.answer(batch):
            grades = [grade(rollout.text, group.prompt).outcome for rollout in group.rollouts]
            self.test_accuracy.update(sum(outcome == "correct" for outcome in grades) / len(grades))
        self.log("test/accuracy", self.test_accuracy, batch_size=len(batch))

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> list[dict[str, Any]]:
        """Answer prompts with the configured sampling and return one row a response."""
        return [
            {"id": group.prompt.id, "response": rollout.text, "finish_reason": rollout.finish_reason}
            for group in self.answer(batch)
            for rollout in group.rollouts
        ]

    @contextmanager
    def policy_weights(self, updates: bool = False) -> Iterator[Mapping[str, Tensor]]:
        """Give the weights as a checkpoint of the model folder has them, low-rank updates merged in.

        Where they are spread over processes, all of these must read them together, in the same order; one
        weight at a time is put together.

        Args:
            updates: Give low-rank updates alone, for an engine that has the weights below.

        Raises:
            InputError: Other weights than those of updates are not as in the model folder.
        """
        if not updates:
            with merged_weights(self.model) as weights:
                yield Gathered(weights)
            return
        if self.lora is None or set(self.lora.trained) != {"language"} or self.lora.quantize:
            raise InputError(
                "the engine's lora_rank takes updates of the language model alone (vLLM ignores those of a "
                "vision tower), over weights as in the folder, not in 4 bits; leave lora_rank out"
            )
        yield Gathered(low_rank_updates(self.model))

    def restart_policy(self) -> None:
        """Put the initial weights back: those of the model folder, and fresh low-rank updates."""
        if has_updates(self.model):
            assert self.lora is not None
            self.lora.restart(self.model)
        if self.lora is None or "full" in self.lora.trained.values():
            model, initial = plain_model(self.model), self.lmm.load_model().state_dict()
            trained = {name for name, one in model.named_parameters() if one.requires_grad}
            # Where weights are spread over processes, all of these must come to them in the same order.
            named = {name: weight for name, weight in initial.items() if name in trained}
            set_model_state_dict(model, named, options=StateDictOptions(full_state_dict=True, strict=False))

    def answer(self, prompts: list[Prompt]) -> list[RolloutGroup]:
        """Answer prompts with the weights as they are, in this process."""
        engine = TransformersEngine(self.lmm, self.model, batch_size=len(prompts))
        return engine.generate(prompts, self.sampling)
