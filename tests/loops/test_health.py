"""The check of a GPU's memory before the first response is sampled."""

import pytest
import torch
from torch import nn

from mstar_pl.loops.health import check_memory
from mstar_pl.types import InputError

NET = nn.Linear(256, 1024, bias=False)
NET_BYTES = 2**20


@pytest.mark.parametrize(
    ("kind", "options", "copies"),
    [
        (torch.optim.SGD, {"lr": 0.1}, 1),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 2),
        (torch.optim.AdamW, {"lr": 0.1}, 3),
        (torch.optim.Adafactor, {"lr": 0.1}, 1),
    ],
)
def test_the_sure_parts_are_weights_and_the_optimizers_state(kind, options, copies, caplog):
    optimizer = kind(NET.parameters(), **options)
    torch.optim.lr_scheduler.LinearLR(optimizer)
    before = [parameter.clone() for parameter in NET.parameters()]
    held = copies * NET_BYTES
    check_memory(NET, [optimizer], 0.5, 4 * held, buckets=False)
    assert not caplog.text
    check_memory(NET, [optimizer], 0.5, int(2.05 * held), buckets=False)
    assert "training holds 0.0 GiB" in caplog.text
    with pytest.raises(InputError, match="lower the engine's gpu_memory_utilization"):
        check_memory(NET, [optimizer], 0.5, int(1.95 * held), buckets=False)
    with pytest.raises(InputError):
        check_memory(NET, [optimizer], 0.5, int(2.05 * held), buckets=True)
    assert not optimizer.state
    assert all(torch.equal(old, new) for old, new in zip(before, NET.parameters(), strict=True))
