"""How MiniCPM-Llama3-V-2.5 cuts an image into slices, and what stands for them in the text.

The rules are those of the published `modeling_minicpmv.py` of openbmb/MiniCPM-Llama3-V-2_5, bit for bit. The
file needs nothing but Transformers: it is copied into exports, where vLLM looks for it.
"""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ImagesKwargs

Size = tuple[int, int]
"""Width and height in pixels."""


def choose_grid(size: Size, max_slices: int, resolution: int) -> tuple[int, int] | None:
    """Return into how many columns and rows an image is cut; None leaves it whole.

    As many slices as the image has areas of `resolution` squared, one more or one less, whichever can be laid
    out in the shape that is closest to the image's; of equally close grids the first counts.

    Args:
        size: Width and height of the image.
        max_slices: Most slices.
        resolution: Side of the square whose area a slice has.

    >>> choose_grid((448, 448), 9, 448), choose_grid((1344, 448), 9, 448), choose_grid((800, 1200), 9, 448)
    (None, (3, 1), (2, 3))
    """
    width, height = size
    wished = min(math.ceil(width * height / resolution**2), max_slices)
    if wished <= 1:
        return None
    grids = [
        (columns, count // columns)
        for count in (wished - 1, wished, wished + 1)
        if 1 < count <= max_slices
        for columns in range(1, count + 1)
        if count % columns == 0
    ]
    shape = math.log(width / height)
    return min(grids, key=lambda grid: abs(shape - math.log(grid[0] / grid[1])))


def fit(width: int, height: int, resolution: int, patch_size: int, enlarge: bool) -> Size:
    """Return the size closest to an area of `resolution` squared whose sides are whole patches.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        resolution: Side of the square with the wanted area.
        patch_size: Side of a patch.
        enlarge: Whether a smaller image is brought to that area, too.

    >>> fit(640, 480, 448, 14, True), fit(100, 90, 448, 14, False)
    ((518, 392), (98, 84))
    """
    if enlarge or width * height > resolution**2:
        shape = width / height
        height = int(resolution / math.sqrt(shape))
        width = int(height * shape)
    columns, rows = (max(round(length / patch_size), 1) for length in (width, height))
    return columns * patch_size, rows * patch_size


def cut(image: Image.Image, max_slices: int, resolution: int, patch_size: int) -> list[Image.Image]:
    """Return the slices of an image: all of it, made smaller, then the cells of its grid row by row."""
    grid = choose_grid(image.size, max_slices, resolution)
    overview = fit(*image.size, resolution, patch_size, enlarge=grid is None)
    slices = [image.resize(overview, Image.Resampling.BICUBIC)]
    if grid is None:
        return slices
    columns, rows = grid
    cell = max(round(image.width / columns), 1), max(round(image.height / rows), 1)
    width, height = fit(*cell, resolution, patch_size, enlarge=True)
    whole = image.resize((width * columns, height * rows), Image.Resampling.BICUBIC)
    return slices + [
        whole.crop((width * column, height * row, width * (column + 1), height * (row + 1)))
        for row in range(rows)
        for column in range(columns)
    ]


def strip(image: Image.Image, patch_size: int) -> Tensor:
    """Return the pixels of a slice between -1 and 1, its patches side by side in one row.

    Returns:
        Shape (3, patch_size, patches * patch_size), the patches row by row.
    """
    pixels_HWC = torch.from_numpy(np.array(image, dtype=np.float32)) / 255
    pixels_CHW = ((pixels_HWC - 0.5) / 0.5).permute(2, 0, 1)
    cells = pixels_CHW.unflatten(2, (-1, patch_size)).unflatten(1, (-1, patch_size))
    return cells.transpose(1, 2).flatten(2)


class MiniCPMVImagesKwargs(ImagesKwargs, total=False):
    """Options of the image processor's call."""

    max_slice_nums: int


class MiniCPMVImageProcessor(BaseImageProcessor):
    """Cut images into slices.

    Args:
        max_slice_nums: Most cells of an image's grid.
        scale_resolution: Side of the square whose area a slice has, in pixels.
        patch_size: Side of a patch of the vision tower, in pixels.
        image_feature_size: Tokens of a slice, `query_num` of the model.
        **kwargs: What else a `preprocessor_config.json` holds.
    """

    model_input_names = ["pixel_values", "tgt_sizes"]  # noqa: RUF012 # as Transformers declares it
    valid_kwargs = MiniCPMVImagesKwargs
    # Names by which vLLM asks.
    im_start_token, im_end_token = "<image>", "</image>"
    slice_start_token, slice_end_token = "<slice>", "</slice>"
    unk_token = "<unk>"

    def __init__(
        self,
        max_slice_nums: int = 9,
        scale_resolution: int = 448,
        patch_size: int = 14,
        image_feature_size: int = 96,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_slice_nums = max_slice_nums
        self.scale_resolution = scale_resolution
        self.patch_size = patch_size
        self.image_feature_size = image_feature_size

    def get_sliced_grid(self, image_size: Size, max_slice_nums: int | None = None) -> tuple[int, int] | None:
        """Return columns and rows of an image's grid; None if it is left whole."""
        return choose_grid(image_size, max_slice_nums or self.max_slice_nums, self.scale_resolution)

    def get_slice_image_placeholder(self, image_size: Size, max_slice_nums: int | None = None) -> str:
        """Return the text that stands for an image: as many `<unk>` as it has features, in their grid."""
        one = self.im_start_token + self.unk_token * self.image_feature_size + self.im_end_token
        grid = self.get_sliced_grid(image_size, max_slice_nums)
        if grid is None:
            return one
        columns, rows = grid
        return one + self.slice_start_token + "\n".join([one * columns] * rows) + self.slice_end_token

    def preprocess(self, images: Any, max_slice_nums: int | None = None, **kwargs: Any) -> BatchFeature:
        """Return the slices of each prompt's images.

        Args:
            images: A Pillow image, the images of a prompt, or those of several prompts.
            max_slice_nums: Most cells of an image's grid, if not the processor's own.
            **kwargs: Nothing that matters here; vLLM passes padding and tensor type.

        Returns:
            In the layout that vLLM's processor reads, for each prompt: `pixel_values`, the strips of all
            slices; `tgt_sizes` of shape (slices, 2), their patches in height and width; `image_sizes`, width
            and height of the images.
        """
        images = [images] if isinstance(images, Image.Image) else images
        rows = [images] if images and isinstance(images[0], Image.Image) else images
        most = max_slice_nums or self.max_slice_nums
        data: dict[str, list[Any]] = {"pixel_values": [], "image_sizes": [], "tgt_sizes": []}
        for row in rows:
            slices = [
                one
                for image in row
                for one in cut(image.convert("RGB"), most, self.scale_resolution, self.patch_size)
            ]
            sizes = [(one.height // self.patch_size, one.width // self.patch_size) for one in slices]
            data["pixel_values"].append([strip(one, self.patch_size) for one in slices])
            data["image_sizes"].append([image.size for image in row])
            data["tgt_sizes"].append(torch.tensor(sizes, dtype=torch.long).reshape(-1, 2))
        return BatchFeature(data)
