"""From the published files of MiniCPM-Llama3-V-2.5 to a folder that needs none of their code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import custom_object_save

from mstar_pl.data.durable import written_new
from mstar_pl.models.minicpmv.configuration import MiniCPMVConfig, refusal
from mstar_pl.models.minicpmv.image_processing import MiniCPMVImageProcessor
from mstar_pl.models.minicpmv.processing import MiniCPMVProcessor
from mstar_pl.types import InputError

END_OF_TURN = "<|eot_id|>"

SPECIAL_TOKENS = {
    "bos_token": "<|begin_of_text|>",
    "eos_token": "<|end_of_text|>",
    "pad_token": "<|end_of_text|>",  # masked everywhere; the published one is an ordinary word
    "unk_token": "<unk>",
}
IMAGE_TOKENS = {
    "im_start": "<image>",
    "im_end": "</image>",
    "slice_start": "<slice>",
    "slice_end": "</slice>",
}
"""Tokens that the published tokenizer's wrapper class names (`modeling_minicpmv.py`); vLLM asks for them."""


def convert_minicpmv(source: Path, out: Path) -> Path:
    """Write the published checkpoint as a folder for the port.

    Weights are copied as they are, each checked to be one of the model's, of its shape, and none missing.
    Configuration, tokenizer, chat template and image processor are written anew.

    Args:
        source: Local copy of openbmb/MiniCPM-Llama3-V-2_5.
        out: New folder.

    Returns:
        The new folder.

    Raises:
        InputError: The source is something else, lacks files, or its weights are not those of the model.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (source / name).is_file():
            raise InputError(f"{source}: no {name}; give a local copy of openbmb/MiniCPM-Llama3-V-2_5")
    stated = json.loads((source / "config.json").read_text())
    if reason := refusal(stated):
        raise InputError(f"{source}: {reason}")
    shards = sorted(source.glob("*.safetensors"))
    tokenizer = published_tokenizer(source)
    config = MiniCPMVConfig.from_dict(stated | {"image_token_id": tokenizer.unk_token_id, "auto_map": {}})
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    check_weights(shards, {name: tuple(weight.shape) for name, weight in model.state_dict().items()}, source)
    with written_new(out) as folder:
        folder.mkdir()
        for file in (*shards, *source.glob("*.safetensors.index.json")):
            shutil.copy2(file, folder)
        custom_object_save(model, folder, config)  # type: ignore[arg-type] # takes both
        config.save_pretrained(folder)
        GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[tokenizer.convert_tokens_to_ids(END_OF_TURN), tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(folder)
        MiniCPMVProcessor(_image_processor(source, config), tokenizer).save_pretrained(folder)
    return out


def published_tokenizer(source: Path) -> PreTrainedTokenizerFast:
    """Return the published tokenizer without its wrapper class, its tokens named as special.

    It adds no token of its own: the chat template has the first one, and vLLM would add a second.

    Raises:
        InputError: A token is missing.
    """
    file = source / "tokenizer.json"
    backend = Tokenizer.from_file(str(file))
    names = {END_OF_TURN, *SPECIAL_TOKENS.values(), *IMAGE_TOKENS.values()}
    if missing := sorted(name for name in names if backend.token_to_id(name) is None):
        raise InputError(f"{file}: no token {', '.join(missing)}; it is not that of MiniCPM-Llama3-V-2.5")
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in sorted(names)])
    backend.post_processor = None
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=IMAGE_TOKENS, **SPECIAL_TOKENS
    )


def check_weights(shards: Sequence[Path], expected: dict[str, tuple[int, ...]], source: Path) -> None:
    """Compare names and shapes of weights in files with those of the model.

    Raises:
        InputError: One is missing, unknown, in two files, or of another shape; names it.
    """
    found: dict[str, tuple[int, ...]] = {}
    for shard in shards:
        with safe_open(shard, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 # not a mapping
                if name in found:
                    raise InputError(f"{source}: weight {name} is in two files")
                found[name] = tuple(weights.get_slice(name).get_shape())
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise InputError(
                f"{source}: weight {name} is {found.get(name, 'missing')}, expected is "
                f"{expected.get(name, 'no such weight')}; load the files again (*.safetensors)"
            )


def _image_processor(source: Path, config: MiniCPMVConfig) -> MiniCPMVImageProcessor:
    """Return the image processor with the published limit of slices."""
    file = source / "preprocessor_config.json"
    stated = json.loads(file.read_text()) if file.is_file() else {}
    known = ("max_slice_nums", "scale_resolution", "patch_size")
    options = {key: value for key, value in stated.items() if key in known}
    return MiniCPMVImageProcessor(image_feature_size=config.query_num, **options)
