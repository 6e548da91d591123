"""What every rollout engine does, and what it is asked."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from mstar_pl.models import LMM
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to an engine: responses to a prompt, or continuations of a response that was begun.

    Attributes:
        prompt: The prompt.
        sampling: How to sample; `max_tokens` counts the prefix, too.
        iteration: Iteration of the run, part of the seed.
        prefix: Beginning of the response, to be continued.
        first: Number of the first sample. A request for samples 4 to 7 draws what a request for samples 0 to
            15 has there.
    """

    prompt: Prompt
    sampling: SamplingConfig
    iteration: int = 0
    prefix: str = ""
    first: int = 0

    @property
    def seed(self) -> int:
        """Seed of the first sample, a hash of run seed, iteration, prompt id and prefix; then rising by one.

        The temperature is no part of it: at two temperatures a prompt is given the same random numbers.

        >>> from dataclasses import replace
        >>> ask = Request(prompt=Prompt(id="a", question="?"), sampling=SamplingConfig())
        >>> replace(ask, first=3).seed - ask.seed, replace(ask, iteration=1).seed == ask.seed
        (3, False)
        """
        identity = f"{self.sampling.seed}/{self.iteration}/{self.prompt.id}"
        if self.prefix:
            identity += f"/{self.prefix}"
        digest = hashlib.sha256(identity.encode()).digest()
        return (int.from_bytes(digest[:4], "little") >> 1) + self.first


class EngineError(RuntimeError):
    """The engine failed while it answered; another one may give the same answers."""


class RolloutEngine(ABC):
    """Sample responses from the policy whose weights were loaded last.

    Attributes:
        lmm: Adapter of the policy.
        dtype: Type of its weights, where it is not the adapter's.
        gpu_share: Share of the GPU's memory that it takes for itself while awake.
        num_processes: Training processes that hold the engine together: consecutive ones, which make each
            call together, with the same arguments, and get the same answers.
        takes_updates: Whether `load_policy` gets low-rank updates alone, as `low_rank_updates` of
            `mstar_pl.models.lora` returns them; the weights below are those of the model folder.
    """

    lmm: LMM
    dtype: str | None = None
    gpu_share: float = 0.0
    num_processes: int = 1
    takes_updates: bool = False

    @abstractmethod
    def load_policy(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over the weights of a policy.

        Args:
            weights: Names and tensors as the training model's state dict has them.
            version: Number that each later rollout group records.
        """

    @abstractmethod
    def submit(self, requests: Sequence[Request], progress: str = "") -> list[RolloutGroup]:
        """Answer requests as one job; they may differ in temperature, number of samples and prefix.

        The draws of a sample depend on the run seed, the iteration, the prompt's id, the prefix and the
        sample's number, not on order, batch or number of processes.

        Args:
            requests: The requests; those of one prompt best next to each other, so that caches serve them.
            progress: Label of the progress bar; empty shows none.

        Returns:
            One group a request, in their order. Its rollouts hold what was sampled, without the prefix.

        Raises:
            InputError: An image cannot be read, or a request does not fit into the context.
            RuntimeError: No weights were loaded.
        """

    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, iteration: int = 0, progress: str = ""
    ) -> list[RolloutGroup]:
        """Sample `sampling.num_samples` responses of each prompt; see `submit`."""
        return self.submit(
            [Request(prompt=prompt, sampling=sampling, iteration=iteration) for prompt in prompts], progress
        )

    @abstractmethod
    def check(self, prompts: Iterable[Prompt], max_tokens: int) -> None:
        """Refuse prompts that `generate` could not answer, before any is sampled.

        Raises:
            InputError: A prompt, its images and `max_tokens` do not fit; names the prompt.
        """

    @abstractmethod
    def sleep(self) -> None:
        """Free the accelerator's memory; weights are lost until the next `load_policy`."""

    def close(self) -> None:
        """Give everything back; the engine is not used any more."""
        self.sleep()

    @abstractmethod
    def wake(self) -> None:
        """Take the memory back; `load_policy` must follow before `generate`."""


def context_of(lmm: LMM, max_model_len: int | None) -> int:
    """Return the context that is asked for, or else as much as the model has, up to 4,096 tokens.

    Raises:
        InputError: The model has fewer positions.
    """
    num_positions = lmm.num_positions
    if max_model_len is None:
        return min(4096, num_positions or 4096)
    lmm.check_context(max_model_len, "max_model_len")
    if num_positions is not None and max_model_len > num_positions:
        raise InputError(
            f"max_model_len {max_model_len} is over the {num_positions} tokens that {lmm.path} has "
            "positions for; lower it"
        )
    return max_model_len


def check_context(lmm: LMM, prompt: Prompt, max_tokens: int, max_model_len: int) -> None:
    """Refuse a prompt that leaves no room for a whole response.

    Raises:
        InputError: Prompt, image tokens included, and `max_tokens` exceed the context; names the prompt.
    """
    length = lmm.num_prompt_tokens(prompt)
    if length + max_tokens > max_model_len:
        raise InputError(
            f"prompt {prompt.id!r}: {length} prompt tokens and max_tokens {max_tokens} exceed "
            f"the context of {max_model_len}; raise max_model_len or lower max_tokens"
        )


def count_tokens(lmm: LMM, request: Request) -> tuple[int, int]:
    """Return the tokens of a request's prefix, and how many may follow it; at least one."""
    prefix = len(lmm.encode_response(request.prefix)) - 1 if request.prefix else 0
    return prefix, max(1, request.sampling.max_tokens - prefix)
