"""The engine's half of a weight sync; vLLM's workers import it, in whichever process they run."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import select
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from threading import Thread
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from vllm.config import set_current_vllm_config
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.meta import get_numel_loaded, to_meta_tensor
from vllm.model_executor.model_loader.weight_utils import default_weight_loader

from mstar_pl.rollouts.placement import TRAINER

# The CPU worker binds threads once, then warns of every later attempt to set their number, its own included.
logging.getLogger("vllm.v1.worker.cpu_worker").addFilter(
    lambda record: "set_num_threads" not in record.getMessage()
)
# Reloading warns of layers that have no weights at all; a `Receipt` checks each parameter.
logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").addFilter(
    lambda record: "Failed to load weights" not in record.getMessage()
)


class WeightReceiver:
    """Extend vLLM's worker by taking over weights in parts, and telling what did not arrive.

    One `begin_weights`, any number of `take_weights` or `take_weights_from`, one `finish_weights`. Layers are
    filled as vLLM's own weight transfer fills them: each when its last weight has come.
    """

    get_model: Callable[[], nn.Module]
    vllm_config: Any
    model_config: Any
    model_runner: Any
    receipt: Receipt | None = None

    def begin_weights(self) -> None:
        """Expect new weights."""
        model = self.get_model()
        if self.receipt is not None:  # a sync that broke off has left layers half filled
            self._end_reload()
        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(model)
        self.receipt = Receipt(model)

    def take_weights(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Load weights under the names of a checkpoint."""
        assert self.receipt is not None, "begin_weights comes first"
        with set_current_vllm_config(self.vllm_config), self.receipt.watching():
            self.get_model().load_weights(named)  # type: ignore[operator]

    def take_weights_from(self, path: str) -> None:
        """Load the weights of a safetensors file."""
        self.take_weights(load_file(path).items())

    def finish_weights(self) -> list[str]:
        """Put the last layers in place and return what is wrong."""
        assert self.receipt is not None, "begin_weights comes first"
        problems = self.receipt.problems()
        self._end_reload()
        self.model_runner.reset_encoder_cache()
        self.model_runner.reset_mm_cache()
        return problems

    def idle_updates(self) -> list[str]:
        """Return what is wrong with the last low-rank updates: vLLM passes over those of unknown layers."""
        manager = self.model_runner.lora_manager._adapter_manager
        _, newest = max(manager.list_adapters().items())
        return [f"{name} has an update but is no layer" for name in {*newest.loras} - {*manager.modules}]

    def _end_reload(self) -> None:
        with set_current_vllm_config(self.vllm_config):
            finalize_layerwise_reload(self.get_model(), self.model_config)
        self.receipt = None


class Receipt:
    """What a weight sync writes into each parameter of this worker.

    Args:
        model: The engine's model, its parameters in the shapes of a checkpoint (this worker's part of them).
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.sizes = {name: _loadable(model, name) for name, _ in model.named_parameters()}
        self.written: Counter[str] = Counter()
        self.parts: Counter[tuple[Any, ...]] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what is written inside the block."""
        parameters: list[tuple[str, Any]] = list(self.model.named_parameters())
        former = [(one, getattr(one, "weight_loader", default_weight_loader)) for _, one in parameters]
        for (name, parameter), (_, loader) in zip(parameters, former, strict=True):
            parameter.weight_loader = self._noting(name, loader)
        try:
            yield
        finally:
            for parameter, loader in former:
                parameter.weight_loader = loader

    def problems(self) -> list[str]:
        """Return which parameters were not written exactly once."""
        twice = sorted({part[0] for part, times in self.parts.items() if times > 1})
        return [f"{name} was written twice" for name in twice] + [
            f"{name} got {self.written[name]} of {size} values"
            for name, size in self.sizes.items()
            if self.written[name] != size
        ]

    def _noting(self, name: str, loader: Callable[..., Any]) -> Callable[..., Any]:
        # `wraps` keeps the chain of `__wrapped__` by which vLLM finds the loaders below its own.
        @wraps(loader)
        def noting(parameter: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
            part = (name, *args, *kwargs.values())
            self.parts[part] += 1
            if self.parts[part] > 1:  # its layer may be complete, and repacked for the kernels
                return None
            self.written[name] += _count(loader, parameter, weight, *args, **kwargs)
            return loader(parameter, weight, *args, **kwargs)

        return noting


def _count(loader: Callable[..., Any], parameter: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> int:
    """Return how many values a loader writes, by loading into a tensor without storage."""
    while loader.__name__ == "online_process_loader":  # vLLM's, which puts layers together
        loader = loader.__wrapped__  # type: ignore[attr-defined]
    bound = inspect.signature(loader).bind(to_meta_tensor(parameter), weight, *args, **kwargs)
    return get_numel_loaded(loader, bound)[0]


def _loadable(model: nn.Module, name: str) -> int:
    """Return how many values of a parameter a checkpoint fills: all but the padding of the vocabulary."""
    module: Any = model.get_submodule(name.rpartition(".")[0])
    size = model.get_parameter(name).numel()
    rows = getattr(module, "shard_indices", None)
    return size if rows is None else size // module.num_embeddings_per_partition * rows.num_org_elements


def _end_with(trainer: int) -> None:
    """End this process and the engine's core when the trainer is gone."""
    with suppress(ProcessLookupError):
        select.select([os.pidfd_open(trainer)], [], [])
    core = multiprocessing.parent_process()
    if core is not None and core.pid == os.getppid() != trainer:
        os.kill(os.getppid(), signal.SIGKILL)
    os._exit(os.EX_TEMPFAIL)


if trainer := os.environ.get(TRAINER):
    # vLLM's core does not notice that the trainer was killed, and would keep its memory for ever.
    Thread(target=_end_with, args=[int(trainer)], daemon=True, name="end-with-trainer").start()
