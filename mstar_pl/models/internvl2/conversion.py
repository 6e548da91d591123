"""A published InternVL2 folder as a native one, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoProcessor, GenerationConfig, InternVLForConditionalGeneration

from mstar_pl.data.durable import written_new
from mstar_pl.models.checkpoint_files import blamed_on, read_settings, weight_files
from mstar_pl.models.internvl2.configuration import check_published, native_config
from mstar_pl.models.internvl2.processing import native_processor
from mstar_pl.models.internvl2.tokenizer import END_OF_TURN, NAMED, check_tokenizer, native_tokenizer
from mstar_pl.models.internvl2.weights import plan_weights, write_weights
from mstar_pl.types import InputError


def convert_internvl2(source: Path, out: Path) -> Path:
    """Write a published InternVL2-2B or -8B in the native architecture: weights, tokenizer, processor.

    Everything is checked before weights are written; of these, one shard is in memory at a time.

    Args:
        source: The published folder: `config.json`, safetensors, `tokenizer.model`, `tokenizer_config.json`.
        out: New folder.

    Returns:
        The new folder.

    Raises:
        InputError: `out` exists, or the source is not whole or not of this architecture.
    """
    file = source / "config.json"
    with written_new(out) as temporary:
        published = read_settings(file)
        with blamed_on(file):
            check_published(published, str(file))
        tokenizer = native_tokenizer(source)
        image, end = (tokenizer.get_vocab()[name] for name in (NAMED["context_image_token"], END_OF_TURN))
        with blamed_on(file), torch.device("meta"):
            config = native_config(published, image)
            model = InternVLForConditionalGeneration(config)
            processor = native_processor(published, config, tokenizer)
        if len(tokenizer) > config.get_text_config().vocab_size:
            raise InputError(f"{file}: llm_config.vocab_size is less than the tokenizer's {len(tokenizer)}")
        plan = plan_weights(weight_files(source), config, model.state_dict())
        processor.save_pretrained(temporary)
        check_tokenizer(AutoProcessor.from_pretrained(temporary, local_files_only=True).tokenizer, source)
        config.save_pretrained(temporary)
        special = {name: published["llm_config"][name] for name in ("bos_token_id", "pad_token_id")}
        GenerationConfig(**special, eos_token_id=end).save_pretrained(temporary)
        write_weights(plan, temporary)
    return out
