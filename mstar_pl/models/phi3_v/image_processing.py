"""The HD transform of Phi-3.5-vision (published `processing_phi3_v.py`; after arXiv 2404.06512).

An image is resized and padded to a grid of squares of 336 pixels, and seen once more as one such square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.processing_utils import ImagesKwargs

SIDE = 336
"""Side of a square, in pixels."""

TOKENS_A_SIDE = 12
"""Tokens along the side of a square: 24 patches of CLIP, merged two by two."""


def num_columns(ratio: float, num_crops: int) -> int:
    """Return the squares along the longer side of an image: as many as a grid of `num_crops` has room for.

    >>> num_columns(ratio=1.5, num_crops=4), num_columns(ratio=1.5, num_crops=16)
    (2, 4)

    Args:
        ratio: Longer side divided by the shorter one.
        num_crops: Most squares of the grid.
    """
    columns = 1
    while (columns + 1) * math.ceil((columns + 1) / ratio) <= num_crops:
        columns += 1
    return columns


def resized_size(longer: int, shorter: int, num_crops: int) -> tuple[int, int]:
    """Return both sides of an image before it is padded.

    >>> resized_size(1500, 1000, num_crops=4)
    (672, 448)

    Raises:
        ValueError: The image is so narrow that nothing of it would be left, or there are no crops.
    """
    if num_crops < 1:
        raise ValueError(f"num_crops {num_crops}: an image has at least one crop")
    ratio = longer / shorter
    width = num_columns(ratio, num_crops) * SIDE
    height = int(width / ratio)
    if height == 0:
        raise ValueError(f"an image of {longer} to {shorter} pixels is too narrow; crop it")
    return width, height


def padded_size(width: int, height: int, num_crops: int) -> tuple[int, int]:
    """Return the width and height of the grid of an image, in pixels.

    >>> padded_size(1500, 1000, num_crops=4), padded_size(300, 900, num_crops=16)
    ((672, 672), (672, 2016))
    """
    longer, shorter = resized_size(max(width, height), min(width, height), num_crops)
    shorter = math.ceil(shorter / SIDE) * SIDE
    return (shorter, longer) if width < height else (longer, shorter)


def num_image_tokens(width: int, height: int) -> int:
    """Return the tokens of an image whose grid has this size: grid, separator and the whole in one square.

    Each row of tokens is closed by a separator of its own.

    >>> num_image_tokens(672, 336)
    457
    """
    columns, rows = width // SIDE * TOKENS_A_SIDE, height // SIDE * TOKENS_A_SIDE
    return rows * (columns + 1) + 1 + TOKENS_A_SIDE * (TOKENS_A_SIDE + 1)


def hd_transform(image: Image.Image, num_crops: int) -> Image.Image:
    """Resize an RGB image and pad it with white, above and below where it is wide, else left and right."""
    tall = image.width < image.height
    if tall:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    width, height = resized_size(image.width, image.height, num_crops)
    grid = Image.new("RGB", (width, math.ceil(height / SIDE) * SIDE), "white")
    grid.paste(image.resize((width, height), Image.Resampling.BILINEAR), (0, (grid.height - height) // 2))
    return grid.transpose(Image.Transpose.TRANSPOSE) if tall else grid


class _Options(ImagesKwargs, total=False):
    num_crops: int


class Phi3VImageProcessor(BaseImageProcessor):
    """Image processor of Phi-3.5-vision, bit-exact with the published one.

    Args:
        num_crops: Most squares of an image's grid. The model card advises 16 for one image and 4 for several.
        image_mean: Mean of red, green and blue.
        image_std: Their standard deviation.
        kwargs: What else the published `preprocessor_config.json` says.
    """

    model_input_names = ["pixel_values", "image_sizes"]  # noqa: RUF012 # as the base class has it
    valid_kwargs = _Options

    def __init__(
        self,
        num_crops: int = 1,
        image_mean: Sequence[float] = OPENAI_CLIP_MEAN,
        image_std: Sequence[float] = OPENAI_CLIP_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_crops = num_crops
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def preprocess(
        self, images: Sequence[Image.Image], num_crops: int | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Return the squares of images.

        Args:
            images: N images.
            num_crops: Most squares of a grid; default is the processor's own.
            kwargs: Options of other image processors; they have no effect.

        Returns:
            `pixel_values` of shape (N, `num_crops` + 1, 3, 336, 336), the whole image first, unused squares
            zero, and `image_sizes` of shape (N, 2), height and width of each grid in pixels.
        """
        most = self.num_crops if num_crops is None else num_crops
        grids = [hd_transform(image.convert("RGB"), most) for image in images]
        squares = [self._squares(grid) for grid in grids]
        pixels = torch.stack([pad(one, [0] * 7 + [most + 1 - len(one)]) for one in squares])
        sizes = torch.tensor([(grid.height, grid.width) for grid in grids])
        return BatchFeature({"pixel_values": pixels, "image_sizes": sizes})

    def _squares(self, grid: Image.Image) -> Tensor:
        """Return the whole image and the squares of its grid, row by row."""
        # Contiguous before it is interpolated: the kernel for another order of the channels rounds otherwise.
        values = torch.from_numpy(np.array(grid)).permute(2, 0, 1).contiguous().float() / 255
        mean, std = (torch.tensor(one)[:, None, None] for one in (self.image_mean, self.image_std))
        values = (values - mean) / std
        whole = interpolate(values[None], size=(SIDE, SIDE), mode="bicubic")
        rows, columns = grid.height // SIDE, grid.width // SIDE
        parts = values.reshape(3, rows, SIDE, columns, SIDE).permute(1, 3, 0, 2, 4)
        return torch.cat([whole, parts.reshape(-1, 3, SIDE, SIDE)])
