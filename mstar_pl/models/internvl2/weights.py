"""The published weights of InternVL2 under native names, read and written shard by shard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import InternVLConfig

from mstar_pl.data.jsonl import write_json
from mstar_pl.models.checkpoint_files import INDEX, read_tensor
from mstar_pl.types import InputError

SHARD_BYTES = 1_000_000_000
"""Most bytes of a written shard, and so of the weights in memory."""

_LAYERS = {
    "vision_model.encoder.layers": (
        "model.vision_tower.encoder.layer",
        {
            "attn.qkv": "attention.{}_proj",
            "attn.proj": "attention.projection_layer",
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            "ls1": "lambda_1",
            "ls2": "lambda_2",
            "mlp.fc1": "mlp.fc1",
            "mlp.fc2": "mlp.fc2",
        },
    ),
    "language_model.model.layers": (
        "model.language_model.layers",
        {
            "attention.wqkv": "self_attn.{}_proj",
            "attention.wo": "self_attn.o_proj",
            "feed_forward.w1": "mlp.gate_proj",
            "feed_forward.w3": "mlp.up_proj",
            "feed_forward.w2": "mlp.down_proj",
            "attention_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
        },
    ),
}
_OTHERS = {
    "vision_model.embeddings.class_embedding": "model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "model.vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding": "model.vision_tower.embeddings.patch_embeddings.projection",
    "mlp1.0": "model.multi_modal_projector.layer_norm",
    "mlp1.1": "model.multi_modal_projector.linear_1",
    "mlp1.3": "model.multi_modal_projector.linear_2",
    "language_model.model.tok_embeddings": "model.language_model.embed_tokens",
    "language_model.model.norm": "model.language_model.norm",
    "language_model.output": "lm_head",
}


def native_tensors(name: str, tensor: Tensor, config: InternVLConfig) -> dict[str, Tensor]:
    """Return the native weights that a published one holds: one, or three where attention is packed.

    InternViT packs queries, keys and values one after the other; InternLM2 packs, for each of its key heads,
    the query heads that share it, then the key head, then the value head.

    Args:
        name: Published name.
        tensor: The weight.
        config: Native configuration.

    Raises:
        KeyError: The published model has no weight of this name.
        RuntimeError: The packed weight does not divide into heads.

    >>> list(native_tensors("mlp1.3.bias", torch.zeros(2), InternVLConfig()))
    ['model.multi_modal_projector.linear_2.bias']
    """
    stem, kind = re.fullmatch(r"(.*?)(\.weight|\.bias)?", name).groups(default="")  # type: ignore[union-attr]
    layer = re.fullmatch(r"(.*\.layers)\.(\d+)\.(.*)", stem)
    if layer is None:
        return {_OTHERS[stem] + kind: tensor}
    parent, parts = _LAYERS[layer[1]]
    native = f"{parent}.{layer[2]}.{parts[layer[3]]}{kind}"
    if "{}" not in native:
        return {native: tensor}
    in_turn = layer[3] == "attn.qkv"
    packed = tensor.unflatten(0, (3, -1)).unbind() if in_turn else _unpacked(tensor, config)
    return {native.format(one): part for one, part in zip("qkv", packed, strict=True)}


def _unpacked(wqkv: Tensor, config: InternVLConfig) -> tuple[Tensor, ...]:
    """Return the weights of queries, keys and values of InternLM2."""
    text = config.get_text_config()
    queries = text.num_attention_heads // text.num_key_value_heads
    heads = wqkv.unflatten(0, (text.num_key_value_heads, queries + 2, -1))
    return tuple(part.flatten(0, 2) for part in heads.split([queries, 1, 1], dim=1))


@dataclass(frozen=True)
class WeightPlan:
    """What is to be written, and from where.

    Args:
        files: File of each published weight.
        sources: Published weight of each native one.
        weights: The native weights in the order of the model, without contents.
        config: Native configuration.
    """

    files: Mapping[str, Path]
    sources: Mapping[str, str]
    weights: dict[str, Tensor]
    config: InternVLConfig


def plan_weights(
    files: Mapping[str, Path], config: InternVLConfig, expected: Mapping[str, Tensor]
) -> WeightPlan:
    """Check that the published weights make exactly the native ones, before any is written.

    Args:
        files: File of each published weight.
        config: Native configuration.
        expected: The native weights in the order of the model, without contents.

    Raises:
        InputError: A weight is missing, surplus, or has a wrong shape.
    """
    made: dict[str, Tensor] = {}
    sources: dict[str, str] = {}
    for name, file in files.items():
        empty = torch.empty_like(read_tensor(file, name), device="meta")
        try:
            parts = native_tensors(name, empty, config)
        except KeyError:
            raise InputError(f"{file}: InternVL2 has no weight {name}; give the published folder") from None
        except RuntimeError:
            parts = {}
        if surplus := parts.keys() - expected.keys():
            raise InputError(f"{file}: {name} is surplus: config.json asks for no {min(surplus)}")
        if not parts or any(part.shape != expected[one].shape for one, part in parts.items()):
            raise InputError(
                f"{file}: {name} has shape {tuple(empty.shape)}, which config.json does not give"
            )
        made |= parts
        sources |= dict.fromkeys(parts, name)
    if missing := [name for name in expected if name not in made]:
        folder = next(iter(files.values())).parent
        raise InputError(f"{folder}: no weights for {missing[0]}; download the folder again")
    return WeightPlan(files, sources, {name: made[name] for name in expected}, config)


def write_weights(plan: WeightPlan, out: Path) -> None:
    """Write native weights in shards, one of them in memory at a time, with their index."""
    split = split_torch_state_dict_into_shards(plan.weights, max_shard_size=SHARD_BYTES)
    with tqdm(total=len(plan.weights), desc="converting", unit="weight", delay=2) as bar:
        for file, names in split.filename_to_tensors.items():
            shard: dict[str, Tensor] = {}
            for source in dict.fromkeys(plan.sources[name] for name in names):
                parts = native_tensors(source, read_tensor(plan.files[source], source), plan.config)
                shard |= {
                    name: parts[name].contiguous() for name in parts if split.tensor_to_filename[name] == file
                }
            save_file(shard, out / file, metadata={"format": "pt"})
            bar.update(len(names))
    if split.is_sharded:
        write_json(out / INDEX, {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
