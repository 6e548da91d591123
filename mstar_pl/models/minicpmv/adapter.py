"""Adapter of MiniCPM-Llama3-V-2.5."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from mstar_pl.data.images import image_size
from mstar_pl.models.checkpoint_files import read_settings
from mstar_pl.models.lmm import LMM
from mstar_pl.models.minicpmv.configuration import refusal
from mstar_pl.types import InputError, Prompt


class MiniCPMV(LMM):
    """MiniCPM-Llama3-V-2.5 (openbmb/MiniCPM-Llama3-V-2_5), in a folder that `convert_minicpmv` wrote.

    vLLM takes the image processor from the model folder and no other, hence `trust_remote_code`: what it runs
    is the port's own file, which conversion and export have put there.

    Args:
        *args: See `LMM`.
        **kwargs: See `LMM`; of `processor_options` there is `max_slice_nums`.

    Raises:
        InputError: The folder holds another version of MiniCPM-V, or the published files as they are; or the
            processor has no such option.
    """

    model_types = ("minicpmv",)
    known_options = ("max_slice_nums",)
    ported = True
    engine_args = MappingProxyType({"trust_remote_code": True})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = read_settings(Path(self.path) / "config.json")
        if reason := refusal(config):
            raise InputError(f"{self.path}: {reason}")
        if "AutoModelForImageTextToText" not in config.get("auto_map", {}):
            raise InputError(
                f"{self.path}: the published files, whose code does not run any more; write a folder with: "
                f"mstar-pl convert minicpmv {self.path} OUT"
            )

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt, its image tokens included, from the images' headers alone."""
        sizes = [image_size(image)[::-1] for image in prompt.images]
        texts = self.processor.replacements(sizes, **self.processor_options)
        (whole,), _ = self.processor.get_text_with_replacements([self.render(prompt)], texts)
        return len(self.tokenizer.encode(whole, add_special_tokens=False))
