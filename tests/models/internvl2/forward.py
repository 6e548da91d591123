"""The published InternVL2 in plain PyTorch, from its published names; nothing of Transformers or of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear, silu


def vision_features(weights: Mapping[str, Tensor], config: Mapping[str, Any], tiles: Tensor) -> Tensor:
    """InternViT-300M without a final norm: tiles of shape (N, 3, S, S) to (N, 1 + patches, width)."""

    def weight(name: str) -> Tensor:
        return weights[f"vision_model.{name}"]

    def affine(name: str, x: Tensor) -> Tensor:
        return linear(x, weight(f"{name}.weight"), weight(f"{name}.bias"))

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, x.shape[-1:], weight(f"{name}.weight"), weight(f"{name}.bias"), 1e-6)

    patch = "embeddings.patch_embedding"
    x = conv2d(tiles, weight(f"{patch}.weight"), weight(f"{patch}.bias"), stride=config["patch_size"])
    first = weight("embeddings.class_embedding").expand(len(tiles), 1, -1)
    x = torch.cat([first, x.flatten(2).mT], dim=1) + weight("embeddings.position_embedding")
    heads = config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layers.{layer}"
        packed = affine(f"{at}.attn.qkv", norm(f"{at}.norm1", x))
        queries, keys, values = packed.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = queries @ keys.mT / queries.shape[-1] ** 0.5
        mixed = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
        x = x + affine(f"{at}.attn.proj", mixed) * weight(f"{at}.ls1")
        inner = gelu(affine(f"{at}.mlp.fc1", norm(f"{at}.norm2", x)))
        x = x + affine(f"{at}.mlp.fc2", inner) * weight(f"{at}.ls2")
    return x


def pixel_shuffle(x: Tensor) -> Tensor:
    """Fold 2 x 2 patches into channels, version v2: (N, H, W, C) to (N, H/2, W/2, 4C).

    Channels are ordered by the row, then the column within the fold.
    """
    corners = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    return torch.cat(corners, dim=-1)


def image_embeddings(weights: Mapping[str, Tensor], config: Mapping[str, Any], tiles: Tensor) -> Tensor:
    """Embeddings of all image tokens, tile by tile."""
    x = vision_features(weights, config["vision_config"], tiles)[:, 1:]
    side = round(x.shape[1] ** 0.5)
    x = pixel_shuffle(x.unflatten(1, (side, side))).flatten(1, 2)
    x = layer_norm(x, x.shape[-1:], weights["mlp1.0.weight"], weights["mlp1.0.bias"], 1e-5)
    x = gelu(linear(x, weights["mlp1.1.weight"], weights["mlp1.1.bias"]))
    return linear(x, weights["mlp1.3.weight"], weights["mlp1.3.bias"]).flatten(0, 1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale to a root mean square of one."""
    return weight * x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def rotated(x: Tensor, base: float) -> Tensor:
    """Rotate the pairs (i, i + d/2) of each head by its position: x of shape (T, heads, d)."""
    length, half = x.shape[0], x.shape[-1] // 2
    angles = torch.arange(length)[:, None] * base ** -(torch.arange(half) / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)


def attention(weights: Mapping[str, Tensor], llm: Mapping[str, Any], at: str, x: Tensor) -> Tensor:
    """Causal attention of InternLM2: each key head comes behind the query heads that share it."""
    shared = llm["num_attention_heads"] // llm["num_key_value_heads"]
    packed = linear(x, weights[f"{at}.wqkv.weight"])
    packed = packed.view(len(x), llm["num_key_value_heads"], shared + 2, -1)
    mixed = []
    for group in packed.unbind(1):
        queries, keys = (
            rotated(part, llm["rope_theta"]) for part in (group[:, :shared], group[:, shared:-1])
        )
        scores = torch.einsum("thd,sd->hts", queries, keys[:, 0]) / queries.shape[-1] ** 0.5
        future = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        mixed.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ group[:, -1])
    return linear(torch.cat(mixed).transpose(0, 1).flatten(1), weights[f"{at}.wo.weight"])


def logits(
    weights: Mapping[str, Tensor], config: Mapping[str, Any], tokens: Tensor, tiles: Tensor, image_token: int
) -> Tensor:
    """Logits of one sequence of shape (T, vocabulary)."""
    llm = config["llm_config"]
    x = weights["language_model.model.tok_embeddings.weight"][tokens]
    x[tokens == image_token] = image_embeddings(weights, config, tiles)
    for layer in range(llm["num_hidden_layers"]):
        at = f"language_model.model.layers.{layer}"
        norms = (weights[f"{at}.{name}.weight"] for name in ("attention_norm", "ffn_norm"))
        x = x + attention(weights, llm, f"{at}.attention", rms_norm(x, next(norms), llm["rms_norm_eps"]))
        inner = rms_norm(x, next(norms), llm["rms_norm_eps"])
        gate, up, down = (weights[f"{at}.feed_forward.{name}.weight"] for name in ("w1", "w3", "w2"))
        x = x + linear(silu(linear(inner, gate)) * linear(inner, up), down)
    x = rms_norm(x, weights["language_model.model.norm.weight"], llm["rms_norm_eps"])
    return linear(x, weights["language_model.output.weight"])
