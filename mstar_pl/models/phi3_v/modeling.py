"""Phi-3.5-vision of native parts: CLIP's vision tower, the HD projector and Phi-3.

Names of parameters are the published ones (`modeling_phi3_v.py`, `image_embedding_phi3_v.py`), so a published
folder loads and an export is read by everybody who knows it. Nothing is computed from the configuration when
the model is built: `from_pretrained` would leave such buffers without contents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModel, Phi3ForCausalLM, Phi3Model
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)

from mstar_pl.models.phi3_v.configuration import Phi3VConfig
from mstar_pl.models.phi3_v.image_processing import SIDE, TOKENS_A_SIDE


class HDImageEmbedding(nn.Module):
    """Vision tower and projector.

    Shapes: T squares, C channels of the tower, D = 4 C, H hidden size of the language model.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        clip = config.clip
        clip._attn_implementation = config._attn_implementation
        merged = 4 * clip.hidden_size
        self.img_processor = nn.ModuleDict({"vision_model": CLIPVisionModel(clip)})
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, merged))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, merged))
        self.img_projection = nn.Sequential(
            nn.Linear(merged, config.hidden_size),
            nn.GELU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> list[Tensor]:
        """Return the embeddings of each image, of shape (tokens, H).

        Args:
            pixel_values: Squares of N images, the whole image first, of shape (N, crops + 1, 3, 336, 336).
            image_sizes: Height and width of their grids in pixels, of shape (N, 2).
        """
        grids = [(height // SIDE, width // SIDE) for height, width in image_sizes.tolist()]
        nums = [1 + rows * columns for rows, columns in grids]  # squares beyond them only fill the tensor
        squares = torch.cat([squares[:num] for squares, num in zip(pixel_values, nums, strict=True)])
        merged_TSSD = _merge(self._features(squares))
        images = [
            torch.cat([self._rows(parts[1:], grid), self.glb_GN[0], self._rows(parts[:1], (1, 1))])
            for parts, grid in zip(merged_TSSD.split(nums), grids, strict=True)
        ]
        projected = self.img_projection(torch.cat(images))
        return list(projected.split([len(image) for image in images]))

    def _features(self, squares: Tensor) -> Tensor:
        """Return the output of the last layer but one, of shape (T, 576, C); the last never runs."""
        tower: Any = self.img_processor["vision_model"]
        hidden = tower.pre_layrnorm(tower.embeddings(squares))
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:]

    def _rows(self, squares_TSSD: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the tokens of a grid row by row, each row closed by its separator."""
        picture = squares_TSSD.unflatten(0, grid).transpose(1, 2).flatten(0, 1).flatten(1, 2)
        return torch.cat([picture, self.sub_GN[0].expand(len(picture), -1, -1)], dim=1).flatten(0, 1)


def _merge(features_TPC: Tensor) -> Tensor:
    """Put each two by two patches into one token: (T, 576, C) becomes (T, 12, 12, 4 C)."""
    pairs = features_TPC.unflatten(1, (TOKENS_A_SIDE, 2, TOKENS_A_SIDE, 2))
    return pairs.transpose(2, 3).flatten(3)


class Phi3VModel(Phi3Model):
    """Phi-3 whose input embeddings may come from images.

    Args:
        config: Configuration of the model.
    """

    config_class = Phi3VConfig
    input_modalities = ["image", "text"]  # noqa: RUF012 # as the base class has it

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.vision_embed_tokens = HDImageEmbedding(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HDImageEmbedding):
            init.zeros_(module.glb_GN)
            init.zeros_(module.sub_GN)

    def get_image_features(
        self, pixel_values: Tensor, image_sizes: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Return the embeddings of each image, a list, as `pooler_output`; see `HDImageEmbedding.forward`."""
        features: Any = self.vision_embed_tokens(pixel_values, image_sizes)
        return BaseModelOutputWithPooling(pooler_output=features)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        mm_encoder_outputs: Mapping[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the language model.

        Args:
            input_ids: Tokens, with as many image tokens as the images have embeddings.
            inputs_embeds: Embeddings in their place, images included.
            pixel_values: Squares of the images of all rows, in order.
            image_sizes: Sizes of their grids.
            mm_encoder_outputs: What `get_image_features` returns, as `image`, in place of the images.
            kwargs: Arguments of `Phi3Model`.

        Raises:
            ValueError: Image tokens and images do not match.
        """
        if pixel_values is not None and image_sizes is not None:
            mm_encoder_outputs = {"image": self.get_image_features(pixel_values, image_sizes)}
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
            if images := (mm_encoder_outputs or {}).get("image"):
                inputs_embeds = self._with_images(input_ids, inputs_embeds, images.pooler_output)
        return super().forward(inputs_embeds=inputs_embeds, **kwargs)

    def _with_images(self, input_ids: Any, inputs_embeds: Tensor, images: Any) -> Tensor:
        features = torch.cat(list(images))
        places = input_ids == self.config.image_token_id
        if (num := int(places.sum())) != len(features):
            raise ValueError(f"{num} image tokens for images of {len(features)} tokens")
        return inputs_embeds.masked_scatter(places[..., None], features.to(inputs_embeds.dtype))


class Phi3VForCausalLM(Phi3ForCausalLM):
    """Phi-3.5-vision.

    Args:
        config: Configuration of the model.
    """

    config_class = Phi3VConfig
    input_modalities = ["image", "text"]  # noqa: RUF012 # as the base class has it
    _no_split_modules = ["Phi3DecoderLayer", "CLIPEncoderLayer"]  # noqa: RUF012
    # A second name of the token embeddings.
    _keys_to_ignore_on_load_unexpected = [r"vision_embed_tokens\.wte\."]  # noqa: RUF012

    def __init__(self, config: Phi3VConfig) -> None:
        super(Phi3ForCausalLM, self).__init__(config)  # its own would build a body without images
        self.model = Phi3VModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        mm_encoder_outputs: Mapping[str, BaseModelOutputWithPooling] | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, and the loss where there are labels; see `Phi3VModel.forward`.

        `generate` looks at the names of the arguments to know what the model takes.
        """
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
