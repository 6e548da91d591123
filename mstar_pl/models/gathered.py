"""Weights that are spread over processes (FSDP2), put together one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.distributed.tensor import DTensor


def whole(value: Tensor) -> Tensor:
    """Return a tensor that may be spread over processes; all of them must call it together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


class Gathered(Mapping[str, Tensor]):
    """Weights that are put together when they are read, one at a time unless the reader keeps them.

    Args:
        weights: The weights of this process.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights

    def __getitem__(self, name: str) -> Tensor:
        """Return a whole weight."""
        return whole(self._weights[name])

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self._weights)
