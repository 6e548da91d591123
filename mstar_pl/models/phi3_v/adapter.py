"""The adapter of Phi-3.5-vision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, cast

from torch import Tensor, nn
from transformers import AutoConfig

from mstar_pl.data.images import image_size
from mstar_pl.models.lmm import LMM
from mstar_pl.models.parts import Group
from mstar_pl.models.phi3_v.configuration import Phi3VConfig
from mstar_pl.models.phi3_v.processing import PLACEHOLDER
from mstar_pl.types import InputError, Prompt

_IMAGES = "model.vision_embed_tokens."


class Phi3V(LMM):
    """Phi-3.5-vision, under its published parameter names.

    `processor_options` takes `num_crops`, the most squares of 336 pixels that an image is cut into.
    """

    model_types = ("phi3_v",)
    known_options = ("num_crops",)
    ported = True

    @cached_property
    def config(self) -> Phi3VConfig:
        """Configuration of the model folder.

        Raises:
            InputError: It asks for another vision tower or projector.
        """
        try:
            return cast(Phi3VConfig, AutoConfig.from_pretrained(self.path, local_files_only=True))
        except ValueError as error:
            raise InputError(f"{self.path}/config.json: {error}") from None

    @cached_property
    def never_used(self) -> str:
        """Pattern of the tower's last layer and its norm: the projector reads the layer before."""
        last = self.config.clip.num_hidden_layers - 1
        return rf"\.vision_model\.(encoder\.layers\.{last}|post_layernorm)\."

    @cached_property
    def num_positions(self) -> int:
        """Positions to which the short factors of LongRoPE belong."""
        return self.config.original_max_position_embeddings

    def check_context(self, num_tokens: int, option: str) -> None:
        """Refuse sequences on which training and engine would differ.

        Raises:
            InputError: The longest sequence is over the length that LongRoPE starts from.
        """
        if num_tokens > self.num_positions:
            raise InputError(
                f"{option} {num_tokens} is over {self.num_positions}: with a longer context vLLM turns every "
                "position by the long factors of LongRoPE, training turns short sequences by the short ones; "
                f"set {option} to at most {self.num_positions}"
            )

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt, its image tokens included, from the images' headers alone.

        Raises:
            InputError: An image is too narrow, or the text spells a special token.
        """
        sizes = [image_size(image) for image in prompt.images]
        try:
            counts = [
                self.processor.calc_num_image_tokens_from_image_size(
                    width, height, self.processor_options.get("num_crops")
                )
                for height, width in sizes
            ]
        except ValueError as error:
            raise InputError(f"prompt {prompt.id!r}: {', '.join(prompt.images)}: {error}") from None
        return len(self.processor.tokenize(self.render(prompt), counts))

    def engine_prompt(self, text: str) -> dict[str, Any]:
        """Return a prompt for vLLM, which reads the pieces around images one by one."""
        return {"prompt": text}

    @cached_property
    def _special_text(self) -> re.Pattern[str]:
        """Special tokens, and the placeholders, which are plain text to the tokenizer."""
        return re.compile(f"{PLACEHOLDER.pattern}|{super()._special_text.pattern}")

    def group(self, model: nn.Module, name: str) -> Group:
        """Return the group of a parameter; all parts share the prefix `model.`."""
        if name.startswith(f"{_IMAGES}img_processor."):
            return "vision"
        return "projector" if name.startswith(_IMAGES) else "language"

    def engine_weights(self, named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield weights, the token embeddings also under the name that the engine's image part gives them."""
        for name, tensor in named:
            yield name, tensor
            if name == "model.embed_tokens.weight":
                yield f"{_IMAGES}wte.weight", tensor
