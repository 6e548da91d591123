"""The LMM families that differ from the generic adapter, and the choice of an adapter for a model folder."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor

from mstar_pl.models.checkpoint_files import read_settings
from mstar_pl.models.families_tried import CAUSAL_ON_CPU, model_type_of
from mstar_pl.models.lmm import EMBEDDED, EMBEDDED_PATH, LMM
from mstar_pl.models.minicpmv.adapter import MiniCPMV
from mstar_pl.models.phi3_v.adapter import Phi3V
from mstar_pl.types import InputError, Prompt

# The processor of SmolVLM passes its options of videos to the chat template itself, at each prompt.
logging.getLogger("transformers.processing_utils").addFilter(
    lambda record: "have to be in `processor_kwargs` dict" not in record.getMessage()
)

ADAPTER_FILE = "mstar_pl.json"
"""File of an exported policy that names its adapter; `transformers` and `vllm` do not need it."""


class InternVL(LMM):
    """InternVL in the native Transformers architecture (`*-hf` folders; also the embedded LMM).

    Images are tiled with Pillow, in training and in the engine: bit-exact with the published rule, from which
    the torchvision processor, the default of both, is a grey level off.
    """

    model_types = ("internvl",)
    engine_args = MappingProxyType({"mm_processor_kwargs": {"use_fast": False}})

    @cached_property
    def processor(self) -> Any:
        """Processor with the Pillow image backend."""
        processor = super().processor
        processor.image_processor = AutoImageProcessor.from_pretrained(
            self.path, backend="pil", local_files_only=True
        )
        return processor


class Qwen2_5_VL(LMM):
    """Qwen2.5-VL, and Qwen2-VL.

    The merger, its projector, sits inside the vision tower.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl", "qwen2_vl")

    def is_projector(self, name: str) -> bool:
        """Tell whether a parameter of the vision tower belongs to the merger."""
        return ".merger." in name

    def forget_positions(self, body: nn.Module) -> None:
        """Drop the offset of the last prompt's images, which would shift a prompt without images."""
        cast(Any, body).rope_deltas = None


class Qwen3_VL(Qwen2_5_VL):
    """Qwen3-VL.

    Besides the merger, those whose features are added to the first layers of the language model (DeepStack,
    arXiv 2406.04334) belong to the projector.
    """

    model_types = ("qwen3_vl",)

    def is_projector(self, name: str) -> bool:
        """Tell whether a parameter of the vision tower belongs to a merger."""
        return ".merger." in name or ".deepstack_merger_list." in name


class Idefics3(LMM):
    """Idefics3; images are cut into tiles of `max_image_size`, and each is also seen whole."""

    model_types = ("idefics3",)

    def num_image_tokens(self, sizes: list[tuple[int, int]]) -> Sequence[int]:
        """Count the tokens of the tiles, one before and one for the place of each, and line ends."""
        images, tile = self.processor.image_processor, self.processor.image_seq_len + 2
        end = len(self.prompt_tokens("\n\n"))
        counts = []
        for height, width in sizes:
            _, rows, columns = images.get_number_of_image_patches(height, width, self.processor_options)
            # The end of the last row and the empty line before the whole image are read together.
            lines = rows - 1 + end if rows else 0
            counts.append(rows * columns * tile + lines + tile + 1)
        return counts


class SmolVLM(Idefics3):
    """SmolVLM2; tiles as Idefics3 has them."""

    model_types = ("smolvlm",)


class Llava(LMM):
    """LLaVA 1.5, with a CLIP or a SigLIP tower.

    In these towers Transformers 5 has no level `vision_model`, vLLM 0.32 has it, and so has a published
    folder. An export has the names of the folder that was loaded: of a published one plain vLLM loads it. A
    folder saved by a model that was made from scratch has the short names, and plain vLLM refuses it and its
    exports (`no module or parameter named 'vision_tower.embeddings'`). The engine here takes either: it never
    reads weights from the folder, and has no persistent buffer that dummy ones would spoil.
    """

    model_types = ("llava",)
    adds_first_token = True
    engine_args = MappingProxyType({"load_format": "dummy"})

    def num_image_tokens(self, sizes: list[tuple[int, int]]) -> Sequence[int]:
        """Return the tokens of an image, which all have; a SigLIP processor resizes and crops nothing."""
        images = self.processor.image_processor
        options = {"crop_size": images.crop_size or images.size} | self.processor_options
        return self.processor._get_num_multimodal_tokens(image_sizes=sizes, **options)["num_image_tokens"]

    @cached_property
    def never_used(self) -> str:
        """Pattern of the tower's layers behind the last that is read, of its norm and its head."""
        config = AutoConfig.from_pretrained(self.path, local_files_only=True)
        chosen, num_layers = config.vision_feature_layer, config.vision_config.num_hidden_layers
        # Features are numbered from the embeddings, which are number 0.
        last = max(one % (num_layers + 1) for one in ([chosen] if isinstance(chosen, int) else chosen))
        unused = [rf"encoder\.layers\.{layer}" for layer in range(last, num_layers)]
        return rf"vision_tower\.({'|'.join(['post_layernorm', 'head', *unused])})\."

    def engine_weights(self, named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Insert the level `vision_model` into the names of the tower."""
        for name, weight in named:
            yield re.sub(r"^(model\.vision_tower)\.", r"\1.vision_model.", name), weight


class LlavaOnevision(Llava):
    """LLaVA-OneVision, with one image a prompt.

    Of several images the published rule, and Transformers, sees each whole only; vLLM 0.32 tiles them all.
    """

    model_types = ("llava_onevision",)
    max_images = 1

    def chat(self, text: str, num_images: int) -> str:
        """Refuse several images.

        Raises:
            InputError: There are several.
        """
        if num_images > 1:
            raise InputError(
                f"LLaVA-OneVision takes one image a prompt here, not {num_images}: vLLM tiles each of them, "
                "training sees them whole; drop these prompts, or take another family"
            )
        return super().chat(text, num_images)


class Gemma3(LMM):
    """Gemma3 with its SigLIP tower, whose names in the engine, and in exports, are as in `Llava`."""

    model_types = ("gemma3",)
    engine_args = Llava.engine_args
    engine_weights = Llava.engine_weights

    known_gaps = MappingProxyType(
        {
            "log-probabilities": (0.15, CAUSAL_ON_CPU),
            "greedy": (0.05, CAUSAL_ON_CPU),
            "after a sync": (0.15, CAUSAL_ON_CPU),
            "low-rank updates": (0.3, CAUSAL_ON_CPU),
        }
    )

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of the expanded text: empty lines around an image join those beside them.

        Raises:
            InputError: Crops of images are asked for, or the text spells a special token.
        """
        if self.processor_options.get("do_pan_and_scan", self.processor.image_processor.do_pan_and_scan):
            raise InputError("do_pan_and_scan of Gemma3 is not supported; remove it from processor_options")
        text = self.render(prompt).replace(self.processor.boi_token, self.processor.full_image_sequence)
        return len(self.prompt_tokens(text))


class MiniCPMV4_6(LMM):
    """MiniCPM-V 4.6, whose language model mixes linear and full attention.

    vLLM heeds no processor option but `max_slice_nums`. The engine keeps no prefixes: to keep those of linear
    attention it would have to split prompts.
    """

    model_types = ("minicpmv4_6",)
    known_options = ("max_slice_nums",)
    engine_args = MappingProxyType({"enable_prefix_caching": False})

    def num_image_tokens(self, sizes: list[tuple[int, int]]) -> Sequence[int]:
        """Count the tokens of the whole image and of its slices, with those around and between them."""
        return [self._num_tokens(index, size) for index, size in enumerate(sizes)]

    def _num_tokens(self, index: int, size: tuple[int, int]) -> int:
        images = self.processor.image_processor
        resolution, patch = images.scale_resolution, images.patch_size
        area = patch**2 * (4 if images.downsample_mode == "4x" else 16)
        most = self.processor_options.get("max_slice_nums", images.max_slice_nums)
        grid = images.get_sliced_grid(size, most, resolution) if images.slice_mode else None
        height, width = images.find_best_resize(size, resolution, patch, allow_upscale=grid is None)
        total = height * width // area + 2
        if images.use_image_id:
            total += len(self.prompt_tokens(str(index))) + 2
        if grid is not None:
            rows, columns = grid
            height, width = images.get_refine_size(size, grid, resolution, patch, allow_upscale=True)
            total += rows * columns * ((height // rows) * (width // columns) // area + 2) + rows - 1
        return total


FAMILIES: tuple[type[LMM], ...] = (
    InternVL,
    Qwen2_5_VL,
    Qwen3_VL,
    Idefics3,
    SmolVLM,
    Llava,
    LlavaOnevision,
    Gemma3,
    MiniCPMV4_6,
    MiniCPMV,
    Phi3V,
)


def adapter_for(path: str, **options: Any) -> LMM:
    """Return the adapter of a model folder: the one its export names, else the family of its `model_type`.

    Raises:
        InputError: The folder is not a model folder, its export names an adapter that cannot be imported, or
            the adapter has no such option.
    """
    folder = EMBEDDED_PATH if path == EMBEDDED else Path(path)
    if (folder / ADAPTER_FILE).is_file():
        saved = read_settings(folder / ADAPTER_FILE)
        if not (isinstance(saved.get("class_path"), str) and isinstance(saved.get("init_args"), dict)):
            raise InputError(f"{folder / ADAPTER_FILE}: no class_path with init_args; export the model again")
        family, options = _import(saved["class_path"], folder), saved["init_args"] | options
    else:
        model_type = model_type_of(folder)
        family = next((family for family in FAMILIES if model_type in family.model_types), LMM)
    try:
        return family(path, **options)
    except TypeError as error:
        raise InputError(f"{path}: {family.__name__} does not take these options ({error})") from error


def _import(class_path: str, folder: Path) -> type[LMM]:
    module, _, name = class_path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{folder / ADAPTER_FILE}: cannot import {class_path} ({error}); install its package"
        ) from None
    if not (isinstance(found, type) and issubclass(found, LMM)):
        raise InputError(f"{folder / ADAPTER_FILE}: {class_path} is no adapter; export the model again")
    return found
