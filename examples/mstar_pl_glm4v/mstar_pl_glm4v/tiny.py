"""A tiny random model with the architecture, tokenizer and processor of a published one."""

from __future__ import annotations

import sys

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

LAYERS = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}  # of 32: vLLM's CPU attention takes 32, 64, 128
TEXT = LAYERS | HEADS
VISION = {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 2, "out_hidden_size": 64}


def shrink(published: str, out: str) -> None:
    """Write a tiny random model.

    Args:
        published: Folder with the published `config.json`, tokenizer and processor; weights are not read.
        out: Where the tiny model goes.
    """
    config = AutoConfig.from_pretrained(published, local_files_only=True)
    config.text_config.update(TEXT)
    config.text_config.rope_parameters["mrope_section"] = [2, 3, 3]  # times 2: the half of 32 that is rotated
    config.vision_config.update(VISION)
    model = AutoModelForImageTextToText.from_config(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        # Biases and norms too, or an engine that ignores them goes unnoticed; large, so that greedy responses
        # to different prompts differ.
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(published, local_files_only=True).save_pretrained(out)


if __name__ == "__main__":
    shrink(*sys.argv[1:])
