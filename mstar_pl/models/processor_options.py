"""Options of a processor's call: those that nothing would heed are refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mstar_pl.types import InputError

COUNTS = ("max_patches", "max_pixels", "max_slice_nums", "min_patches", "min_pixels", "num_crops")
"""Options that are numbers of something."""

FORM_OF_TENSORS = ("data_format", "device", "disable_grouping", "input_data_format", "return_tensors")
"""Options of image processors that belong to the caller."""


def check_options(options: Mapping[str, Any], known: Collection[str], owner: str) -> None:
    """Refuse options that would be ignored, and numbers of nothing.

    Args:
        options: The options of each image.
        known: Names of those that there are.
        owner: Who has them.

    Raises:
        InputError: There is one.

    >>> check_options({"max_patches": 2}, ("max_patches",), "InternVL")
    """
    for option, value in options.items():
        if option not in known:
            raise InputError(f"unknown processor option {option!r}; {owner} has {', '.join(sorted(known))}")
        if option in COUNTS and (type(value) is not int or value < 1):
            raise InputError(f"processor option {option} is {value!r}; give a whole number from 1 on")


def image_options(processor: Any) -> set[str]:
    """Return the names of the options of a processor's images."""
    return set(processor.image_processor.valid_kwargs.__annotations__).difference(FORM_OF_TENSORS)
