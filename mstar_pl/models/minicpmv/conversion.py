"""From the published files of MiniCPM-Llama3-V-2.5 to a folder that needs none of their code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import AutoModelForImageTextToText, GenerationConfig, PreTrainedTokenizerFast
from transformers.dynamic_module_utils import custom_object_save

from mstar_pl.data.durable import written_new
from mstar_pl.data.jsonl import write_json
from mstar_pl.models.checkpoint_files import (
    INDEX,
    SINGLE,
    blamed_on,
    read_settings,
    read_tensor,
    stated_counts,
    weight_files,
)
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
    file = source / "config.json"
    with written_new(out) as temporary:
        published = read_settings(file)
        if reason := refusal(published):
            raise InputError(f"{file}: {reason}")
        tokenizer = published_tokenizer(source / "tokenizer.json")
        stated = published | {"image_token_id": tokenizer.unk_token_id, "auto_map": {}}
        with blamed_on(file), torch.device("meta"):
            config = MiniCPMVConfig.from_dict(stated)
            model = AutoModelForImageTextToText.from_config(config)
        files = weight_files(source)
        check_weights(
            files, {name: tuple(weight.shape) for name, weight in model.state_dict().items()}, source
        )
        processor = MiniCPMVProcessor(_image_processor(source, config), tokenizer)
        processor.save_pretrained(temporary)
        custom_object_save(model, temporary, config)  # type: ignore[arg-type] # takes both
        config.save_pretrained(temporary)
        GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=[tokenizer.convert_tokens_to_ids(END_OF_TURN), tokenizer.eos_token_id],
            pad_token_id=tokenizer.pad_token_id,
        ).save_pretrained(temporary)
        copy_weights(files, temporary)
    return out


def published_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """Return the published tokenizer without its wrapper class, its tokens named as special.

    It adds no token of its own: the chat template has the first one, and vLLM would add a second.

    Args:
        file: The published `tokenizer.json`.

    Raises:
        InputError: It is not whole, or a token is missing.
    """
    if "model" not in read_settings(file):
        raise InputError(f"{file}: has no model; download it again")
    backend = Tokenizer.from_file(str(file))
    names = {END_OF_TURN, *SPECIAL_TOKENS.values(), *IMAGE_TOKENS.values()}
    if missing := sorted(name for name in names if backend.token_to_id(name) is None):
        raise InputError(f"{file}: no token {', '.join(missing)}; it is not that of MiniCPM-Llama3-V-2.5")
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in sorted(names)])
    backend.post_processor = None
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=IMAGE_TOKENS, **SPECIAL_TOKENS
    )


def check_weights(files: Mapping[str, Path], expected: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Compare names and shapes of weights in files with those of the model.

    Raises:
        InputError: One is missing, unknown, or of another shape; names it.
    """
    found = {name: tuple(read_tensor(file, name).shape) for name, file in files.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise InputError(
                f"{files.get(name, source)}: weight {name} is {found.get(name, 'missing')}, expected is "
                f"{expected.get(name, 'no such weight')}; download it again"
            )


def copy_weights(files: Mapping[str, Path], out: Path) -> None:
    """Copy files of weights, and write the index of what is in them."""
    for file in set(files.values()):
        shutil.copy2(file, out)
    places = {name: file.name for name, file in files.items()}
    if {*places.values()} != {SINGLE}:
        num_bytes = sum(read_tensor(file, name).nbytes for name, file in files.items())
        write_json(out / INDEX, {"metadata": {"total_size": num_bytes}, "weight_map": places})


def _image_processor(source: Path, config: MiniCPMVConfig) -> MiniCPMVImageProcessor:
    """Return the image processor with the published limit of slices."""
    file = source / "preprocessor_config.json"
    stated = read_settings(file) if file.is_file() else {}
    with blamed_on(file):
        options = stated_counts(stated, "max_slice_nums", "scale_resolution", "patch_size")
        return MiniCPMVImageProcessor(image_feature_size=config.query_num, **options)
