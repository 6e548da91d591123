"""Configuration of MiniCPM-Llama3-V-2.5, as its published `config.json` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig
from transformers.models.idefics2.configuration_idefics2 import Idefics2VisionConfig

VERSION = "2.5"

OTHER_VERSIONS = {
    "2.0": "its language model is MiniCPM-2.4B and its vision tower a timm one, under other names",
    "2.6": "its language model is Qwen2, with 64 queries a slice and positions of patches in two dimensions",
    "4.0": "it has 64 queries a slice and positions of patches in two dimensions",
    "4.5": "its language model is Qwen3, and its resampler packs frames of videos",
}
"""Why a checkpoint with the same `model_type` is not this architecture."""


def refusal(config: Mapping[str, Any]) -> str | None:
    """Say why a `config.json` is not that of MiniCPM-Llama3-V-2.5; None if it is.

    The first published revisions state no version; only 2.0 has a width of 2,304.

    >>> refusal({"model_type": "minicpmo", "version": "2.6"})
    'model_type is minicpmo, another architecture than MiniCPM-Llama3-V-2.5'
    """
    if (model_type := config.get("model_type")) != "minicpmv":
        return f"model_type is {model_type}, another architecture than MiniCPM-Llama3-V-{VERSION}"
    version = str(config.get("version") or ("2.0" if config.get("hidden_size") == 2304 else VERSION))
    if version != VERSION:
        reason = OTHER_VERSIONS.get(version, "an unknown version")
        return f"MiniCPM-V {version} is not ported ({reason}); only MiniCPM-Llama3-V-{VERSION} is"
    if config.get("drop_vision_last_layer"):
        return f"drop_vision_last_layer is set, which MiniCPM-Llama3-V-{VERSION} does not do"
    return None


@strict
class MiniCPMVConfig(LlamaConfig):
    """Llama 3 with a SigLIP vision tower of variable resolution and a resampler between them.

    Defaults are those of openbmb/MiniCPM-Llama3-V-2_5.

    Attributes:
        vision_config: An `Idefics2VisionConfig`, or its values, of the vision tower.
        version: Version of MiniCPM-V; only 2.5 is this architecture.
        query_num: Tokens of one slice of an image.
        image_token_id: Token in whose places the features of slices are put (`<unk>`).
        drop_vision_last_layer: False in this version; vLLM asks for it.

    Raises:
        ValueError: It is the configuration of another version.
    """

    model_type = "minicpmv"
    sub_configs = {"vision_config": Idefics2VisionConfig}  # noqa: RUF012 # as Transformers declares it

    vocab_size: int = 128256
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 8192
    rms_norm_eps: float = 1e-5
    bos_token_id: int | None = 128000
    eos_token_id: int | list[int] | None = 128001
    default_theta = 500000.0
    vision_config: Any = None
    version: str | float | None = VERSION
    query_num: int = 96
    image_token_id: int = 128002
    drop_vision_last_layer: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the vision tower's configuration; its published `model_type` is that of all of Idefics2."""
        if not isinstance(self.vision_config, Idefics2VisionConfig):
            sizes = {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 980,
                "patch_size": 14,
            }
            given = {key: value for key, value in (self.vision_config or {}).items() if key != "model_type"}
            self.vision_config = Idefics2VisionConfig(**(sizes | given))
        super().__post_init__(**kwargs)
        if reason := refusal(self.to_dict()):
            raise ValueError(reason)
