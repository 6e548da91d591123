"""MiniCPM-Llama3-V-2.5, composed of the parts that Transformers has, under its published parameter names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, LlamaForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.models.idefics2.modeling_idefics2 import (
    Idefics2VisionEmbeddings,
    Idefics2VisionTransformer,
)

from .configuration import MiniCPMVConfig

HEAD_SIZE = 128
"""Channels of an attention head of the resampler (`modeling_minicpmv.py`, `init_resampler`)."""


class StripEmbeddings(Idefics2VisionEmbeddings):
    """Patches of slices that come as strips, one row of patches each.

    The vision tower of 2.5 was fed with strips: it sees places along the strip, stretched over the first row
    of its table, instead of rows and columns; so does vLLM. They are computed in integers: in the type of the
    pixels, as the parent class computes them, bfloat16 would shift one in twenty-five. The published code
    cuts [0, 1) with rounded floats: in 34 of the 121 lengths of strips 1 to 16 patches of about 1,000 are one
    place lower there; vLLM's are these.
    """

    def forward(self, pixel_values: Tensor, patch_attention_mask: Tensor) -> Tensor:
        """Return embeddings of shape (slices, patches, channels).

        Args:
            pixel_values: Shape (slices, 3, patch_size, patches * patch_size).
            patch_attention_mask: Shape (slices, 1, patches); False where a strip is padded.
        """
        mask_SL = patch_attention_mask[:, 0]
        index_L = torch.arange(mask_SL.shape[1], device=mask_SL.device)
        position_SL = index_L * self.num_patches_per_side // mask_SL.sum(1, keepdim=True)
        patches_SLC = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        return patches_SLC + self.position_embedding(position_SL * mask_SL)


def sine_positions(places: Tensor, channels: int) -> Tensor:
    """Return sines, then cosines, of places at frequencies from 1 down to 1/10000.

    Args:
        places: Any shape.
        channels: Their number, even.

    Returns:
        One dimension more, of `channels`, in float32.
    """
    exponents = torch.arange(channels // 2, device=places.device, dtype=torch.float32) / (channels / 2)
    angles = places[..., None].float() / 10000**exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Resampler(nn.Module):
    """Reduce the patches of a slice to a fixed number of tokens by cross attention.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__()
        width, vision = config.hidden_size, config.vision_config.hidden_size
        self.query = nn.Parameter(config.initializer_range * torch.randn(config.query_num, width))
        self.kv_proj = nn.Linear(vision, width, bias=False)
        self.attn = nn.MultiheadAttention(width, width // HEAD_SIZE, batch_first=True)
        self.ln_q = nn.LayerNorm(width, eps=1e-6)
        self.ln_kv = nn.LayerNorm(width, eps=1e-6)
        self.ln_post = nn.LayerNorm(width, eps=1e-6)
        self.proj = nn.Parameter(config.initializer_range * torch.randn(width, width))

    def forward(self, vision_SLC: Tensor, sizes_S2: Tensor) -> Tensor:
        """Return features of shape (slices, queries, channels).

        Args:
            vision_SLC: Patches of S slices, padded to L.
            sizes_S2: Their patches in height and width.
        """
        patches_SLD = self.ln_kv(self.kv_proj(vision_SLC))
        index_L = torch.arange(vision_SLC.shape[1], device=vision_SLC.device)
        columns_S1 = sizes_S2[:, 1:]
        half = patches_SLD.shape[-1] // 2
        # A table, because there are far fewer places than patches.
        table = sine_positions(torch.arange(int(sizes_S2.max()), device=index_L.device), half)
        column_SL = index_L % columns_S1
        row_SL = (index_L // columns_S1).clamp(max=len(table) - 1)  # of padding, which is masked
        positions_SLD = torch.cat([table[column_SL], table[row_SL]], dim=-1).to(patches_SLD.dtype)
        query_SQD = self.ln_q(self.query).expand(len(sizes_S2), -1, -1)
        features_SQD, _ = self.attn(
            query_SQD,
            patches_SLD + positions_SLD,
            patches_SLD,
            key_padding_mask=index_L >= sizes_S2.prod(1, keepdim=True),
            need_weights=False,
        )
        return self.ln_post(features_SQD) @ self.proj


@dataclass
class MiniCPMVOutput(CausalLMOutputWithPast):
    """Output of `MiniCPMV`.

    Attributes:
        last_hidden_state: Hidden states before the language-model head.
    """

    last_hidden_state: torch.FloatTensor | None = None


class MiniCPMV(PreTrainedModel, GenerationMixin):
    """MiniCPM-Llama3-V-2.5: SigLIP at variable resolution, a resampler, and Llama 3.

    A slice's features do not depend on the slices beside it: padding is masked, as vLLM does it. (The
    published training code attends to it.)
    """

    config_class = MiniCPMVConfig
    config: MiniCPMVConfig
    input_modalities = ["image", "text"]  # noqa: RUF012
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["Idefics2EncoderLayer", "LlamaDecoderLayer", "Resampler"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        self.loss_type = "ForCausalLM"
        self.vpm = Idefics2VisionTransformer(config.vision_config)
        self.vpm.embeddings = StripEmbeddings(config.vision_config)
        self.resampler = Resampler(config)
        self.llm = LlamaForCausalLM(config)
        self.post_init()

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the vision tower."""
        return self.vpm

    def get_decoder(self) -> nn.Module:
        """Return the language model, with its head."""
        return self.llm

    def get_input_embeddings(self) -> nn.Module:
        """Return the embeddings of tokens."""
        return self.llm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embeddings of tokens."""
        self.llm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language-model head."""
        return self.llm.lm_head

    def get_image_features(
        self, pixel_values: Tensor, tgt_sizes: Tensor, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Return the features of S slices.

        Args:
            pixel_values: Strips of patches, shape (S, 3, patch_size, patches * patch_size).
            tgt_sizes: Patches in height and width, shape (S, 2).
            **kwargs: What `generate` passes on; not used.

        Returns:
            `pooler_output` of shape (S, queries, channels).
        """
        num_patches = pixel_values.shape[-1] // self.config.vision_config.patch_size
        index_L = torch.arange(num_patches, device=pixel_values.device)
        mask_SL = index_L < tgt_sizes.prod(1, keepdim=True)
        vision = self.vpm(pixel_values.to(self.vpm.dtype), patch_attention_mask=mask_SL[:, None])
        features = self.resampler(vision.last_hidden_state, tgt_sizes)
        return BaseModelOutputWithPooling(last_hidden_state=vision.last_hidden_state, pooler_output=features)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        tgt_sizes: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> MiniCPMVOutput:
        """Return logits, and the loss where labels are given.

        Args:
            input_ids: Shape (B, T).
            pixel_values: Strips of all slices of the batch, in the order of their tokens.
            tgt_sizes: Their patches in height and width, shape (S, 2).
            attention_mask: Shape (B, T).
            position_ids: Shape (B, T).
            past_key_values: Cache of the tokens before.
            inputs_embeds: Embeddings in place of `input_ids`.
            labels: Shape (B, T); -100 carries no loss.
            logits_to_keep: How many last logits are computed, or which; 0 is all.
            mm_encoder_outputs: Features that `generate` has computed, under `image`.
            **kwargs: What Llama takes.

        Raises:
            ValueError: There are more or fewer image tokens than features.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        images = (mm_encoder_outputs or {}).get("image")
        if images is None and pixel_values is not None and tgt_sizes is not None:
            images = self.get_image_features(pixel_values, tgt_sizes)
        if images is not None:
            inputs_embeds = self._put(cast(Tensor, images.pooler_output), input_ids, inputs_embeds)
        outputs = self.llm.model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.llm.lm_head(hidden[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return MiniCPMVOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            last_hidden_state=hidden,
        )

    def _put(self, features_SQD: Tensor, input_ids_BT: Tensor | None, embeds_BTD: Tensor) -> Tensor:
        """Put features in the places of image tokens."""
        if input_ids_BT is None:
            raise ValueError("images need input_ids: their places are those of the image token")
        mask_BT = input_ids_BT == self.config.image_token_id
        num_tokens, num_features = int(mask_BT.sum()), features_SQD.shape[0] * features_SQD.shape[1]
        if num_tokens != num_features:
            raise ValueError(f"image features and image tokens do not match: {num_features} and {num_tokens}")
        return embeds_BTD.masked_scatter(mask_BT[..., None], features_SQD.to(embeds_BTD.dtype))
