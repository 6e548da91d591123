"""What the builders of tiny models share: a tokenizer with further tokens, and random weights that answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mstar_pl.models import InternVL

WORDS = "the answer is what sum of bars and area image I count red blue add how many question + - 0 1 2 3 4"


def extended_tokenizer(
    tokens: Sequence[str], *, first: str | None = None, spellings: Sequence[str] = (), **options: Any
) -> PreTrainedTokenizerFast:
    """The embedded LMM's tokenizer with further special tokens; turns end with `<|im_end|>`.

    Args:
        tokens: Special tokens.
        first: The one that it puts first by itself, as the tokenizers of Llama and Gemma do.
        spellings: Plain texts that become one token.
        options: Of the tokenizer; names of special tokens.
    """
    tokenizer = Tokenizer.from_file(str(Path(InternVL().path) / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in spellings])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    if first is not None:
        special = [(first, tokenizer.token_to_id(first))]
        tokenizer.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=special)
        options |= {"bos_token": first}
    defaults = {"eos_token": "<|im_end|>", "model_max_length": 1024}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(defaults | options))


def llama_tokenizer(
    tokens: Sequence[str], *, swallowing: Sequence[str] = (), **options: Any
) -> PreTrainedTokenizerFast:
    """A tokenizer of Llama's kind: a BOS, a space before each text between special tokens, single bytes.

    Args:
        tokens: Special tokens beside its own.
        swallowing: Those of them that take the white space behind them.
        options: Of the tokenizer.
    """
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    vocabulary += [chr(code) for code in range(33, 127)]
    merges = [("▁" + word[:end], word[end]) for word in WORDS.split() for end in range(len(word))]
    vocabulary += dict.fromkeys(first + second for first, second in merges)
    ids = {piece: place for place, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(
        BPE(ids, list(dict.fromkeys(merges)), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in vocabulary[:3]])
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, rstrip=token in swallowing) for token in tokens]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", **({"eos_token": "</s>"} | options)
    )


def llama(tokenizer: PreTrainedTokenizerFast, **options: Any) -> dict[str, Any]:
    """Configuration of a language model of two layers, in what most families agree."""
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    }
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return {"model_type": "llama"} | sizes | tokens | options


def tower(image_size: int, **options: Any) -> dict[str, Any]:
    """Configuration of a vision tower of two layers on patches of 14 pixels."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    return sizes | {"image_size": image_size, "patch_size": 14} | options


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    published: Callable[[str], str] | None = None,
    scale: float = 0.1,
) -> Path:
    """Save a model with random weights.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        folder: Where to.
        published: Name of a weight in a published folder, where it is another than the model's own.
        scale: Standard deviation of the weights.
    """
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            # Larger than the usual initialisation, so that greedy responses differ between prompts.
            parameter.data.normal_(0, scale, generator=generator)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    state = {(published or str)(name): weight for name, weight in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    return folder
