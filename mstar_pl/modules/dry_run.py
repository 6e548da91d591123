"""Training steps without weights and arithmetic: what they would hold in memory, tensor by tensor."""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mstar_pl.data.batches import Batch
from mstar_pl.modules.lmm_module import LMMModule

Kind = Literal["weights", "gradients", "optimizer", "stepping", "casts", "vocabulary", "activations"]
SHARDED: tuple[Kind, ...] = ("weights", "gradients", "optimizer", "stepping")
"""What FSDP2 spreads over the processes."""

aten = torch.ops.aten
_INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


@dataclass(frozen=True, slots=True)
class Footprint:
    """What two optimizer steps allocate and free, in their order.

    Attributes:
        events: Number of a tensor's memory and its bytes, negative where it is freed.
        kinds: What each holds: `weights`, their `gradients`, the state of the `optimizer`, what its step
            makes in passing (`stepping`), `casts` of weights by autocast, tensors as wide as the `vocabulary`
            (logits, copies and gradients of them), everything else (`activations`).
    """

    events: Sequence[tuple[int, int]]
    kinds: Mapping[int, Kind]

    def left(self) -> Counter[Kind]:
        """Return the bytes of each kind that stay when the steps are over, in one process."""
        held: Counter[Kind] = Counter()
        for number, size in self.events:
            held[self.kinds[number]] += size
        return held

    def peak(self, num_shards: int = 1) -> Counter[Kind]:
        """Return the bytes of each kind on one device at the moment at which it holds most.

        Args:
            num_shards: Processes over which weights, gradients and optimizer are spread.

        >>> found = Footprint([(0, 8), (1, 6), (1, -6), (2, 4)], {0: "weights", 1: "activations", 2: "casts"})
        >>> sorted(found.peak().items()), found.peak(num_shards=2).total()
        ([('activations', 6), ('weights', 8)], 10)
        """
        held: Counter[Kind] = Counter()
        total, most, found = 0, -1, Counter[Kind]()
        for number, size in self.events:
            kind = self.kinds[number]
            held[kind] += size
            total += size // num_shards if kind in SHARDED else size
            if total > most:
                most, found = total, +held
        return +Counter(
            {kind: size // num_shards if kind in SHARDED else size for kind, size in found.items()}
        )


def dry_run(
    module: LMMModule, batch: Batch, *, precision: Any, accumulates: bool = False, foreach: bool = False
) -> Footprint:
    """Run two optimizer steps of a module on a micro-batch, and note every tensor that comes and goes.

    The module's own `configure_model`, `configure_optimizers` and `training_step` run, in the order of
    Lightning's loop, on tensors that have a shape but no contents. So everything counts that autograd keeps,
    that a checkpointed block makes once more, that autocast caches, and the gradients of a step, which stay
    until the next backward pass. The second step has all of it.

    Operations and autocast are those of the CPU. On a GPU attention keeps the same tensors, but autocast
    computes layer norms in float32, of which a trained vision tower keeps more. Left out: what a kernel uses
    inside, fragmentation, and the rounding of an allocator.

    Args:
        module: The module, not configured yet. Afterwards its model has no contents.
        batch: A micro-batch as the data module collates it; masks, labels and integers keep their values.
        precision: Precision of the Trainer.
        accumulates: Whether an optimizer step has several micro-batches; all but the first find gradients.
        foreach: Whether the optimizer steps all weights together, as it does on a GPU by default.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    ledger = _Ledger()
    with warnings.catch_warnings(action="ignore"), fake:  # a barebones trainer warns that it logs nothing
        module.trainer = Trainer(accelerator="cpu", devices=1, precision=precision, barebones=True)
        module.lmm.weightless = True
        with torch.device("meta"):
            module.configure_model()
        _put_on_cpu(module)
        optimizer = _optimizer(module, foreach)
        ledger.num_words = int(module.model.get_output_embeddings().weight.shape[0])
        for tensor in batch.values():
            ledger.note(tensor, "activations")
        for tensor in (*module.parameters(), *module.buffers()):
            ledger.note(tensor, "weights")
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda one: ledger.mark(cast(Tensor, one.grad), "gradients")
                )
        with ledger:
            for _ in range(2):
                _step(module, optimizer, batch, 1 + accumulates, ledger)
    return Footprint(tuple(ledger.events), dict(ledger.kinds))


def _step(module: LMMModule, optimizer: Optimizer, batch: Batch, num_batches: int, ledger: _Ledger) -> None:
    """Run an optimizer step in the order of Lightning's loop."""
    for number in range(num_batches):
        with module.trainer.precision_plugin.forward_context():
            loss = cast(Tensor, module.training_step(batch, number))
        if number == 0:
            optimizer.zero_grad()
        loss.backward()
        del loss
    ledger.default = "stepping"
    optimizer.step()
    ledger.default = "activations"
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                ledger.mark(value, "optimizer")


def _optimizer(module: LMMModule, foreach: bool) -> Optimizer:
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    for group in optimizer.param_groups:
        if foreach and not group.get("fused") and group.get("foreach", False) is None:
            group["foreach"] = True
    return optimizer


def _put_on_cpu(module: nn.Module) -> None:
    """Replace meta tensors, which autocast does not know; tied ones stay tied."""
    found: dict[Tensor, Tensor] = {}
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, old in own.items():
                if old is None or old in found or old.device.type != "meta":
                    own[name] = old if old is None else found.get(old, old)  # type: ignore[assignment]
                    continue
                new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device="cpu")
                if isinstance(old, nn.Parameter):
                    new = nn.Parameter(new, requires_grad=old.requires_grad)
                own[name] = found[old] = new  # type: ignore[assignment]


class _Ledger(TorchDispatchMode):
    """Note the memory that operations allocate and free.

    Operations on integers, masks and the like, which have contents, are carried out: models count image
    tokens, and cut by lengths. An operation with a tensor without contents gives one without.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []
        self.kinds: dict[int, Kind] = {}
        self.default: Kind = "activations"
        self.num_words = 0
        self._alive: dict[int, int] = {}

    def note(self, tensor: Tensor, kind: Kind) -> None:
        """Note the memory of a tensor, unless it is known."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._alive:
            return
        number = len(self.kinds)
        self._alive[key], self.kinds[number] = number, kind
        self.events.append((number, size))
        weakref.finalize(storage, self._free, key, number, size)

    def mark(self, tensor: Tensor, kind: Kind) -> None:
        """Say what the memory of a tensor, noted or not, has turned out to hold."""
        self.note(tensor, kind)
        self.kinds[self._alive[id(tensor.untyped_storage())]] = kind

    def _free(self, key: int, number: int, size: int) -> None:
        del self._alive[key]
        self.events.append((number, -size))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Carry out an operation and note its results."""
        given: Callable[..., Any] = partial(func, **(kwargs or {}))
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return 1.0 if args[0].is_floating_point() else True  # a norm, or whether all is finite
        if any(isinstance(one, FakeTensor) for one in tree_leaves((args, kwargs))):
            result = given(*(_places(args) if func in _INDEXING else args))
        else:
            with unset_fake_temporarily():
                result = given(*args)
        kind = self.default
        if func is aten._to_copy.default and self._kind(args[0]) == "weights":
            kind = "casts"
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                wide = one.ndim > 0 and one.shape[-1] == self.num_words and kind == "activations"
                self.note(one, "vocabulary" if wide else kind)
        return result

    def _kind(self, tensor: Tensor) -> Kind | None:
        return self.kinds.get(self._alive.get(id(tensor.untyped_storage()), -1))


def _places(args: Sequence[Any]) -> list[Any]:
    """Return the arguments of an indexing operation with the masks among its indices as places."""
    tensor, indices, *rest = args
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor):
            with unset_fake_temporarily():
                found += index.nonzero().unbind(1)
        else:
            found.append(index)
    return [tensor, found, *rest]
