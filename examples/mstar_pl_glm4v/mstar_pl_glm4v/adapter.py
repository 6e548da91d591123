"""What GLM-4.1V does otherwise than the generic adapter: each override mends one thing that it gets wrong."""

from __future__ import annotations

from functools import cached_property
from types import MappingProxyType
from typing import Any, cast

from torch import nn

from mstar_pl.models import LMM


class GLM4V(LMM):
    """GLM-4.1V (`zai-org/GLM-4.1V-9B-Thinking`, arXiv 2507.01006) in the native Transformers architecture."""

    model_types = ("glm4v",)
    # Transformers always adds biases to queries, keys and values; vLLM asks the configuration, and drops the
    # weights without a word where it does not say so.
    engine_args = MappingProxyType({"hf_overrides": {"text_config": {"attention_bias": True}}})

    def chat(self, text: str, num_images: int) -> str:
        """Return one user turn; the published template writes a system turn's content as it stands."""
        content = [*[{"type": "image"}] * num_images, {"type": "text", "text": text}]
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        messages = [*system, {"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @cached_property
    def end_token_id(self) -> int:
        """Token that opens the next turn: turns of this family have no end of their own."""
        return self.tokenizer.convert_tokens_to_ids("<|user|>")

    def is_projector(self, name: str) -> bool:
        """Tell whether a parameter of the vision tower belongs to the merger or the convolution before it."""
        return name.startswith(("model.visual.merger.", "model.visual.downsample."))

    def forget_positions(self, body: nn.Module) -> None:
        """Drop the offset of the last prompt's images, which would shift a prompt without images."""
        cast(Any, body).rope_deltas = None
