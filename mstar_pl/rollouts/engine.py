"""What every rollout engine does, and the seed of a request."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from torch import Tensor

from mstar_pl.models import LMM
from mstar_pl.types import InputError, Prompt, RolloutGroup, SamplingConfig


class RolloutEngine(ABC):
    """Sample responses from the policy whose weights were loaded last."""

    @abstractmethod
    def load_policy(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over the weights of a policy.

        Args:
            weights: Names and tensors as the training model's state dict has them.
            version: Number that each later rollout group records.
        """

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, iteration: int = 0, progress: str = ""
    ) -> list[RolloutGroup]:
        """Sample `sampling.num_samples` responses of each prompt.

        The draws of a prompt depend on the run seed, the iteration and the prompt's id, not on order, batch
        or number of processes.

        Args:
            prompts: The prompts.
            sampling: Temperature, number of samples, limits, run seed.
            iteration: Iteration of the run, part of the seeds.
            progress: Label of the progress bar; empty shows none.

        Returns:
            One group a prompt, in the order of the prompts.

        Raises:
            InputError: An image cannot be read, or a prompt does not fit into the context.
            RuntimeError: No weights were loaded.
        """

    @abstractmethod
    def check(self, prompts: Iterable[Prompt], max_tokens: int) -> None:
        """Refuse prompts that `generate` could not answer, before any is sampled.

        Raises:
            InputError: A prompt, its images and `max_tokens` do not fit; names the prompt.
        """

    @abstractmethod
    def sleep(self) -> None:
        """Free the accelerator's memory; weights are lost until the next `load_policy`."""

    @abstractmethod
    def wake(self) -> None:
        """Take the memory back; `load_policy` must follow before `generate`."""


def request_seed(run_seed: int, iteration: int, prompt_id: str) -> int:
    """Return the seed of one request, a hash of run seed, iteration and prompt id.

    >>> request_seed(0, 0, "a") == request_seed(0, 0, "a") != request_seed(0, 1, "a")
    True
    """
    digest = hashlib.sha256(f"{run_seed}/{iteration}/{prompt_id}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


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
