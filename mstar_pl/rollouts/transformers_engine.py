"""A rollout engine on Transformers' `generate`: slower than vLLM, but always there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from peft import PeftModel
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from mstar_pl.data.collate import TEXT_KEYS, collate_prompts
from mstar_pl.models import LMM
from mstar_pl.rollouts.engine import RolloutEngine, request_seed
from mstar_pl.types import Prompt, Rollout, RolloutGroup, SamplingConfig


class TransformersEngine(RolloutEngine):
    """Generate with a Transformers model.

    Greedy decoding runs in batches of prompts. Sampling runs prompt by prompt with the prompt's own seed, so
    that draws do not depend on batch mates.

    Args:
        lmm: Adapter of the model.
        model: A model whose current weights are used as they are; None loads one with the first
            `load_policy`.
        batch_size: Prompts of one greedy batch.
    """

    def __init__(
        self, lmm: LMM, model: PreTrainedModel | PeftModel | None = None, batch_size: int = 32
    ) -> None:
        self.lmm = lmm
        self.batch_size = batch_size
        self._model = model
        self._owned = False
        self._version = 0

    def load_policy(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over weights; see `RolloutEngine`."""
        state = dict(weights)
        if self._model is None:
            self._model = self.lmm.load_model(next(iter(state.values())).device)
            self._owned = True
        self._model.load_state_dict(state)
        self._version = version

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, iteration: int = 0, progress: str = ""
    ) -> list[RolloutGroup]:
        """Sample responses; see `RolloutEngine`."""
        if self._model is None:
            raise RuntimeError("no weights: call load_policy before generate")
        size = self.batch_size if sampling.temperature == 0 else 1
        groups: list[RolloutGroup] = []
        with tqdm(total=len(prompts), desc=progress, unit="prompt", delay=2, disable=not progress) as bar:
            for start in range(0, len(prompts), size):
                batch = prompts[start : start + size]
                seed = request_seed(sampling.seed, iteration, batch[0].id)
                groups += self._generate_batch(self._model, batch, sampling, seed)
                bar.update(len(batch))
        return groups

    def check(self, prompts: Iterable[Prompt], max_tokens: int) -> None:
        """Refuse nothing; see `RolloutEngine`."""

    def sleep(self) -> None:
        """Drop the model, if `load_policy` made it."""
        if self._owned:
            self._model = None

    def wake(self) -> None:
        """Do nothing: `load_policy` loads a model that was dropped."""

    @torch.inference_mode()
    def _generate_batch(
        self,
        model: PreTrainedModel | PeftModel,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        seed: int,
    ) -> list[RolloutGroup]:
        inputs = _pad_left(collate_prompts(self.lmm, prompts))
        inputs = {key: value.to(model.device) for key, value in inputs.items()}
        greedy = sampling.temperature == 0
        drawing = {} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        training = model.training
        model.eval()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            output_ST = model.generate(  # type: ignore[operator] # a method of both
                **inputs,
                do_sample=not greedy,
                repetition_penalty=1.0,  # whatever the folder's generation_config says
                num_return_sequences=sampling.num_samples,
                max_new_tokens=sampling.max_tokens,
                suppress_tokens=list(self.lmm.banned_token_ids),
                eos_token_id=list(self.lmm.stop_token_ids),
                pad_token_id=self.lmm.pad_token_id,
                **drawing,
            )
        model.train(training)
        width = inputs["input_ids"].shape[1]
        responses = [self._rollout(row) for row in output_ST[:, width:].tolist()]
        return [
            RolloutGroup(
                prompt=prompt,
                prompt_token_ids=tuple(
                    inputs["input_ids"][row][inputs["attention_mask"][row].bool()].tolist()
                ),
                rollouts=tuple(responses[row * sampling.num_samples : (row + 1) * sampling.num_samples]),
                weight_version=self._version,
            )
            for row, prompt in enumerate(prompts)
        ]

    def _rollout(self, token_ids: list[int]) -> Rollout:
        end = next((index for index, token in enumerate(token_ids) if token in self.lmm.stop_token_ids), None)
        kept = token_ids if end is None else token_ids[: end + 1]
        return Rollout(
            text=self.lmm.decode(kept),
            token_ids=tuple(kept),
            finish_reason="length" if end is None else "stop",
        )


def _pad_left(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the padding of `(B, P)` inputs from the right to the left, where generation needs it."""
    mask_BP = batch["attention_mask"].bool()
    width = mask_BP.shape[1]
    shift_B = width - mask_BP.sum(1)
    source_BP = (torch.arange(width)[None, :] - shift_B[:, None]) % width
    return {key: value.gather(1, source_BP) if key in TEXT_KEYS else value for key, value in batch.items()}
