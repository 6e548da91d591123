"""The process reward model: an LMM that says of each step whether it can still lead to the right answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache

from mstar_pl.data.collate import collate_prompts, special_tokens
from mstar_pl.data.collate_steps import encode_steps
from mstar_pl.models.digest import weights_digest
from mstar_pl.models.families import ADAPTER_FILE, adapter_for
from mstar_pl.models.lmm import LMM
from mstar_pl.models.lora import TrainedModel, plain_model
from mstar_pl.types import InputError, Prompt

ReadOutKind = Literal["token", "head"]

HEAD_FILE = "process_head.safetensors"
"""File of an exported process reward model that holds its scalar head."""

TAIL_TOKENS = 8192
"""Response tokens of one forward pass in scoring; more responses of a prompt take another one."""


class StepReadOut(nn.Module):
    """Read one number off the hidden state at the end of a step.

    The logit of a step is positive where it is judged correct; its sigmoid is the step's score. `token` takes
    the next-token logit of a positive token minus that of a negative one, whose sigmoid is the probability of
    the one against the other; the model stays a plain LMM. `head` is a linear layer of its own.

    Args:
        lmm: Adapter of the model.
        model: The model.
        kind: `token` or `head`.
        positive: Text of the positive token, one token in the model's vocabulary.
        negative: Text of the negative token.

    Raises:
        InputError: A text is not one token, or both are the same.
    """

    def __init__(
        self,
        lmm: LMM,
        model: TrainedModel,
        kind: ReadOutKind = "token",
        positive: str = "+",
        negative: str = "-",
    ) -> None:
        super().__init__()
        self.options = {"kind": kind, "positive": positive, "negative": negative}
        self.token_ids = [_single(lmm, text) for text in (positive, negative)]
        if self.token_ids[0] == self.token_ids[1]:
            raise InputError(f"positive and negative token are the same ({positive!r}); choose two")
        size = int(cast(Tensor, model.get_input_embeddings().weight).shape[1])
        self.head = nn.Linear(size, 1) if kind == "head" else None

    def forward(self, model: TrainedModel, hidden_SH: Tensor) -> Tensor:
        """Return the S logits of S steps."""
        if self.head is not None:
            return self.head(hidden_SH.to(self.head.weight.dtype))[:, 0].float()
        # Two rows of the language-model head, in float32: rounded logits would tie.
        head = model.get_output_embeddings()
        rows_2H = cast(Tensor, head.weight)[self.token_ids].float()
        bias = getattr(head, "bias", None)
        offset = 0.0 if bias is None else (bias[self.token_ids[0]] - bias[self.token_ids[1]]).float()
        return hidden_SH.float() @ (rows_2H[0] - rows_2H[1]) + offset


def step_logits(
    model: TrainedModel,
    read_out: StepReadOut,
    inputs: Mapping[str, Tensor],
    rows_S: Tensor,
    places_S: Tensor,
) -> Tensor:
    """Return the logits of S steps of a batch, `read_out` applied at their ends only.

    Args:
        model: The LMM.
        read_out: Its read-out.
        inputs: Model inputs of B responses.
        rows_S: The row of each step.
        places_S: The token at which it ends.
    """
    hidden_BTH = _body(model)(**inputs, use_cache=False).last_hidden_state
    return read_out(model, hidden_BTH[rows_S, places_S])


class ProcessRewardModel:
    """A trained process reward model that scores the steps of responses.

    Args:
        lmm: Adapter of the model.
        model: The model.
        read_out: Its read-out.
    """

    def __init__(self, lmm: LMM, model: TrainedModel, read_out: StepReadOut) -> None:
        self.lmm = lmm
        self.model = model.eval()
        self.read_out = read_out.eval()

    @classmethod
    def load(cls, path: str, **options: Any) -> ProcessRewardModel:
        """Load an exported process reward model.

        Args:
            path: Its folder.
            options: Arguments of the LMM adapter, e.g. `dtype`.

        Raises:
            InputError: The folder holds no process reward model.
        """
        lmm = adapter_for(path, **options)
        file = Path(lmm.path) / ADAPTER_FILE
        settings = json.loads(file.read_text()).get("process_reward") if file.is_file() else None
        if settings is None:
            raise InputError(
                f"{path}: not a process reward model ({ADAPTER_FILE} names no read-out); train one with "
                "configs/experiments/mprm.yaml"
            )
        model = lmm.load_model()
        read_out = StepReadOut(lmm, model, **settings)
        if read_out.head is not None:
            read_out.head.load_state_dict(load_file(Path(lmm.path) / HEAD_FILE))
        return cls(lmm, model, read_out)

    def to(self, device: str | torch.device) -> None:
        """Move the model to a device."""
        self.model.to(torch.device(device))
        self.read_out.to(torch.device(device))

    def digest(self) -> str:
        """Return a text that tells this model, and what it is asked and computes in, from another."""
        weights = [*self.model.state_dict().items(), *self.read_out.state_dict().items()]
        return f"{weights_digest(weights)} {json.dumps([self.read_out.options, self.lmm.settings])}"

    @torch.inference_mode()
    def score(self, prompt: Prompt, responses: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """Score the steps of K responses to a prompt, which is encoded once with its images.

        The KV cache of the prompt is shared by the responses: K (P + R) tokens become P + K R.

        Args:
            prompt: The prompt.
            responses: K responses in steps. One that spells a special token is scored 0: no policy should
                write it, and it would be taken for an image.

        Returns:
            A score in [0, 1] for each step of each response.
        """
        encoded = [encode_steps(self.lmm, steps) for steps in responses]
        usable = [k for k, (ids, _) in enumerate(encoded) if ids and not special_tokens(self.lmm, ids)]
        scores: list[tuple[float, ...]] = [(0.0,) * len(ends) for _, ends in encoded]
        if not usable:
            return scores
        device = self.model.device
        inputs = {key: value.to(device) for key, value in collate_prompts(self.lmm, [prompt]).items()}
        body = _body(self.model)
        self.lmm.forget_positions(body)
        prefix = body(**inputs, use_cache=True).past_key_values
        # Of like length together: little is padded.
        usable.sort(key=lambda k: len(encoded[k][0]))
        size = max(1, TAIL_TOKENS // len(encoded[usable[-1]][0]))
        for start in range(0, len(usable), size):
            part = usable[start : start + size]
            for k, found in zip(part, self._continue(prefix, [encoded[k] for k in part]), strict=True):
                scores[k] = found
        return scores

    def _continue(
        self, prefix: Cache, tails: Sequence[tuple[list[int], list[int]]]
    ) -> list[tuple[float, ...]]:
        """Return the step scores of K encoded responses behind the cache of their prompt."""
        device = self.model.device
        cache = copy.deepcopy(prefix)
        first = torch.zeros(len(tails), dtype=torch.long, device=device)
        cache.reorder_cache(cast(torch.LongTensor, first))
        ids_KR = pad_sequence(
            [torch.tensor(ids) for ids, _ in tails], batch_first=True, padding_value=self.lmm.pad_token_id
        )
        # No mask: attention is causal and padding is on the right. Qwen2.5-VL would count positions by it.
        hidden_KRH = _body(self.model)(
            input_ids=ids_KR.to(device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        rows_S = [row for row, (_, ends) in enumerate(tails) for _ in ends]
        places_S = [end for _, ends in tails for end in ends]
        scores_S = self.read_out(self.model, hidden_KRH[rows_S, places_S]).sigmoid()
        return [tuple(part.tolist()) for part in scores_S.split([len(ends) for _, ends in tails])]


def _body(model: TrainedModel) -> nn.Module:
    """Return the model without its language-model head."""
    return plain_model(model).base_model


def _single(lmm: LMM, text: str) -> int:
    tokens = lmm.tokenizer.encode(text, add_special_tokens=False)
    if len(tokens) != 1:
        raise InputError(f"{text!r} is {len(tokens)} tokens for this model; choose a text of one token")
    return tokens[0]
