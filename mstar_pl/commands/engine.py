"""The engine of a command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mstar_pl.types import InputError, Prompt

if TYPE_CHECKING:
    from mstar_pl.models import LMM
    from mstar_pl.rollouts.engine import RolloutEngine

EngineName = Literal["vllm", "transformers"]


def check_counts(**options: int | None) -> None:
    """Refuse options below 1 before anything is read or loaded; None is a default.

    Raises:
        InputError: One is.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: must be at least 1")


def start_engine(
    name: EngineName, adapter: LMM, prompts: Sequence[Prompt], max_tokens: int, max_model_len: int | None
) -> RolloutEngine:
    """Start an engine with the weights of the adapter's folder, once all prompts are known to fit.

    Raises:
        InputError: A prompt does not fit, the model has a shorter context, or vLLM cannot be imported.
    """
    from mstar_pl.rollouts.engine import check_context, context_of

    max_model_len = context_of(adapter, max_model_len)
    for prompt in prompts:
        check_context(adapter, prompt, max_tokens, max_model_len)
    max_images = max(len(prompt.images) for prompt in prompts)
    if name == "transformers":
        from mstar_pl.rollouts.transformers_engine import TransformersEngine

        return TransformersEngine(adapter, adapter.load_model())
    try:
        from mstar_pl.rollouts.vllm_engine import VLLMEngine
    except ImportError as error:
        raise InputError(
            f"vLLM cannot be imported ({error}); install an extra (cpu or vllm), or use --engine transformers"
        ) from None
    weights = adapter.load_model().state_dict()  # before the engine starts, which needs a whole folder
    engine = VLLMEngine(adapter, max_model_len=max_model_len, max_images=max(1, max_images))
    engine.load_policy(weights.items(), version=1)
    return engine
