"""A tiny MiniCPM-Llama3-V-2.5, as it is published and as the port has it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import processors

from mstar_pl.models.minicpmv import MiniCPMV, MiniCPMVConfig
from mstar_pl.models.minicpmv.conversion import convert_minicpmv
from tests.tiny.common import extended_tokenizer

TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<unk>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<image>",
    "</image>",
    "<slice>",
    "</slice>",
)
PUBLISHED: dict[str, Any] = {
    "model_type": "minicpmv",
    "version": "2.5",
    "architectures": ["MiniCPMV"],
    "auto_map": {"AutoConfig": "configuration_minicpm.MiniCPMVConfig", "AutoModel": "modeling.MiniCPMV"},
    "batch_vision_input": True,
    "drop_vision_last_layer": False,
    "image_size": 448,
    "mm_use_im_start_end": True,
    "patch_size": 14,
    "pretraining_tp": 1,
    "query_num": 96,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "slice_config": {"max_slice_nums": 9, "patch_size": 14, "model_type": "minicpmv"},
    "slice_mode": True,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
    "use_cache": False,
    "vision_config": {"model_type": "idefics2", "image_size": 980, "patch_size": 14},
}
"""`config.json` of the published model, without its sizes."""


def build_minicpmv(folder: Path) -> Path:
    """Two layers each, slices of sixteen patches and eight tokens, at most four beside the overview."""
    with tempfile.TemporaryDirectory() as published:
        return convert_minicpmv(build_published(Path(published)), folder)


def build_published(folder: Path) -> Path:
    """The same weights in files as the hub has them: a wrapped tokenizer, and names of remote code."""
    sizes = {
        "hidden_size": 128,  # the resampler's heads have 128 channels
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "query_num": 8,
    }
    vision = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokenizer = extended_tokenizer(TOKENS)
    bos, eos, image = tokenizer.convert_tokens_to_ids(TOKENS[:3])
    config = PUBLISHED | sizes | {"vocab_size": len(tokenizer), "bos_token_id": bos, "eos_token_id": eos}
    config["vision_config"] = PUBLISHED["vision_config"] | vision
    (folder / "config.json").write_text(json.dumps(config))
    slicing = {"max_slice_nums": 4, "scale_resolution": 56, "patch_size": 14, "image_feature_size": 8}
    kinds = {"processor_class": "MiniCPMVProcessor", "image_processor_type": "MiniCPMVImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(slicing | kinds))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{TOKENS[0]} $A", special_tokens=[(TOKENS[0], bos)]
    )
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    wrapped = {"tokenizer_class": "PreTrainedTokenizerFastWrapper", "pad_token": "!"}
    (folder / "tokenizer_config.json").write_text(json.dumps(wrapped))
    generator = torch.Generator().manual_seed(0)
    weights = MiniCPMV(MiniCPMVConfig.from_dict(config | {"image_token_id": image})).state_dict()
    for weight in weights.values():
        if weight.ndim > 1:
            # Larger than the usual initialisation, so that greedy responses differ between prompts.
            weight.normal_(0, 0.1, generator=generator)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
