"""What the builders of tiny models share: a tokenizer with further tokens, and random weights that answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mstar_pl.models import InternVL


def extended_tokenizer(tokens: Sequence[str], **options: Any) -> PreTrainedTokenizerFast:
    """The embedded LMM's tokenizer with further special tokens; turns end with `<|im_end|>`."""
    tokenizer = Tokenizer.from_file(str(Path(InternVL().path) / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    defaults = {"eos_token": "<|im_end|>", "model_max_length": 1024}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(defaults | options))


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Save a model with random weights."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            # Larger than the usual initialisation, so that greedy responses differ between prompts.
            parameter.data.normal_(0, 0.1, generator=generator)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    return folder
