"""A rollout engine on Transformers' `generate`: slower than vLLM, but always there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from mstar_pl.data.collate import TEXT_KEYS, collate_prompts
from mstar_pl.models import LMM
from mstar_pl.models.lora import TrainedModel
from mstar_pl.rollouts.engine import Request, RolloutEngine, count_tokens
from mstar_pl.types import Prompt, Rollout, RolloutGroup, SamplingConfig


class TransformersEngine(RolloutEngine):
    """Generate with a Transformers model, in batches of requests.

    Each sample draws from its own random numbers, so that it does not depend on its batch mates.

    Args:
        lmm: Adapter of the model.
        model: A model whose current weights are used as they are; None loads one with the first
            `load_policy`.
        batch_size: Samples generated at once.
    """

    def __init__(self, lmm: LMM, model: TrainedModel | None = None, batch_size: int = 64) -> None:
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

    def submit(self, requests: Sequence[Request], progress: str = "") -> list[RolloutGroup]:
        """Answer requests; see `RolloutEngine`."""
        if self._model is None:
            raise RuntimeError("no weights: call load_policy before generate")
        groups: list[RolloutGroup] = []
        with tqdm(total=len(requests), desc=progress, unit="request", delay=2, disable=not progress) as bar:
            for num_samples, run in groupby(requests, key=lambda request: request.sampling.num_samples):
                alike, size = list(run), max(1, self.batch_size // num_samples)
                for start in range(0, len(alike), size):
                    batch = alike[start : start + size]
                    groups += self._answer(self._model, batch)
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
    def _answer(self, model: TrainedModel, batch: Sequence[Request]) -> list[RolloutGroup]:
        num_samples = batch[0].sampling.num_samples
        texts = [request.prefix for request in batch]
        inputs = pad_left(collate_prompts(self.lmm, [request.prompt for request in batch], texts))
        inputs = {key: value.to(model.device) for key, value in inputs.items()}
        limits = [count_tokens(self.lmm, request)[1] for request in batch]
        draw = _Draw([(request.sampling, request.seed + k) for request in batch for k in range(num_samples)])
        training = model.training
        model.eval()
        with torch.random.fork_rng():
            output_ST = model.generate(  # type: ignore[operator] # a method of both
                **inputs,
                do_sample=True,
                logits_processor=LogitsProcessorList([draw]),
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                repetition_penalty=1.0,  # whatever the folder's generation_config says
                num_return_sequences=num_samples,
                max_new_tokens=max(limits),
                suppress_tokens=list(self.lmm.banned_token_ids),
                eos_token_id=list(self.lmm.stop_token_ids),
                pad_token_id=self.lmm.pad_token_id,
            )
        model.train(training)
        rows = output_ST[:, inputs["input_ids"].shape[1] :].tolist()
        return [
            RolloutGroup(
                prompt=request.prompt,
                prompt_token_ids=tuple(
                    inputs["input_ids"][place][inputs["attention_mask"][place].bool()].tolist()
                ),
                rollouts=tuple(
                    self._rollout(row[: limits[place]])
                    for row in rows[place * num_samples : (place + 1) * num_samples]
                ),
                weight_version=self._version,
                temperature=request.sampling.temperature,
            )
            for place, request in enumerate(batch)
        ]

    def _rollout(self, token_ids: list[int]) -> Rollout:
        end = next((index for index, token in enumerate(token_ids) if token in self.lmm.stop_token_ids), None)
        kept = token_ids if end is None else token_ids[: end + 1]
        return Rollout(
            text=self.lmm.decode(kept),
            token_ids=tuple(kept),
            finish_reason="length" if end is None else "stop",
        )


class _Draw(LogitsProcessor):
    """Draw each row's next token with the row's own temperature and random numbers, by the Gumbel maximum.

    The largest of `log p + Gumbel noise` is distributed as p (Maddison et al. 2014, arXiv 1411.0030). Only
    the token drawn is left to the caller, whose own draw is then no draw.
    """

    def __init__(self, rows: Sequence[tuple[SamplingConfig, int]]) -> None:
        self._rows = [(sampling, torch.Generator().manual_seed(seed)) for sampling, seed in rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        drawn_S = torch.stack(
            [self._draw(scores_V.float(), *row) for scores_V, row in zip(scores, self._rows, strict=True)]
        )
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn_S[:, None], 0.0)

    @staticmethod
    def _draw(scores_V: Tensor, sampling: SamplingConfig, generator: torch.Generator) -> Tensor:
        if sampling.temperature == 0:
            return scores_V.argmax()
        scores_V = scores_V / sampling.temperature
        if sampling.top_p < 1:
            scores_V = TopPLogitsWarper(sampling.top_p)(None, scores_V[None])[0]
        noise_V = -torch.empty(scores_V.shape).exponential_(generator=generator).log()
        return (scores_V + noise_V.to(scores_V.device)).argmax()


def pad_left(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Move the padding of `(B, P)` inputs from the right to the left, where generation needs it."""
    mask_BP = batch["attention_mask"].bool()
    width = mask_BP.shape[1]
    shift_B = width - mask_BP.sum(1)
    source_BP = (torch.arange(width)[None, :] - shift_B[:, None]) % width
    return {key: value.gather(1, source_BP) if key in TEXT_KEYS else value for key, value in batch.items()}
