"""Where an engine runs among the training processes, and how one in a process of its own is reached."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save
from torch import Tensor

from mstar_pl.distributed import Processes
from mstar_pl.rollouts.engine import EngineError
from mstar_pl.types import InputError

TRAINER = "MSTAR_PL_TRAINER"
"""Environment variable with the trainer's process id, set while an engine in a process of its own starts."""

BUCKET = 2**28
"""Bytes of weights that pass to another process at a time, or one weight where it is larger."""


def training_processes() -> Processes:
    """Return the processes of the training, as this one sees them."""
    if not dist.is_initialized():
        return Processes()
    return Processes(dist.get_rank(), dist.get_world_size())


def check_groups(tensor_parallel_size: int, own_process: bool, processes: Processes) -> None:
    """Refuse training processes that cannot hold engines of this size; all of them must call it together.

    Raises:
        InputError: They cannot; says what to change.
    """
    size, num = tensor_parallel_size, processes.num
    if size == 1 or (own_process and num == 1):
        return
    if own_process:
        raise InputError(
            f"tensor_parallel_size {size} with own_process needs a single training process, not {num}; "
            "leave own_process out: the training processes then hold the engines in groups"
        )
    if num == 1:
        raise InputError(
            f"tensor_parallel_size {size} needs several training processes (trainer.devices), or "
            "own_process: true, which lets vLLM start its workers"
        )
    if num % size:
        raise InputError(f"{num} training processes do not divide into groups of tensor_parallel_size {size}")
    hosts = processes.gather(socket.gethostname())
    if any(len({*hosts[first : first + size]}) > 1 for first in range(0, num, size)):
        raise InputError(
            f"tensor_parallel_size {size}: groups of {size} processes would span machines; take a divisor of "
            "the processes of one machine"
        )


def surroundings(own_process: bool, processes: Processes) -> dict[str, str | None]:
    """Return the environment variables with which an engine starts; None is one that must not be there."""
    if not own_process:
        found: dict[str, str | None] = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        if processes.num > 1:
            device = torch.cuda.current_device() if torch.cuda.is_available() else processes.rank
            found |= {"RANK": str(processes.rank), "LOCAL_RANK": str(device)}
        return found
    # What names a place among the training processes; the engine is none of them.
    place = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    found = {name: None for name in os.environ if name.endswith(place) or name.startswith("TORCHELASTIC_")}
    found |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "1", TRAINER: str(os.getpid())}
    # By default vLLM would bind the engine of each training process to the same cores.
    found["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if processes.num > 1 and torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(one) for one in range(torch.cuda.device_count())]
        found["CUDA_VISIBLE_DEVICES"] = names[torch.cuda.current_device()]
    return found


@contextmanager
def starting(own_process: bool, processes: Processes) -> Iterator[None]:
    """Have the surroundings of an engine that starts inside the block.

    Raises:
        InputError: The shared memory that a tensor-parallel engine needs on a CPU is taken.
    """
    try:
        with environment(surroundings(own_process, processes)):
            yield
    except RuntimeError as error:
        if "SHMManager" not in str(error):
            raise
        # vLLM gives it the same name in all runs, and leaves it behind when it is killed.
        raise InputError(
            "the shared memory of vLLM's tensor parallelism on a CPU is taken (/dev/shm/-tp*-cpushm_*): wait "
            "for the other run on this machine, or remove the files if a killed one left them"
        ) from error


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables inside the block; None removes one."""
    former = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(former)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def files(named: Iterable[tuple[str, Tensor]], size: int = BUCKET) -> Iterator[str]:
    """Yield weights as safetensors files, a bucket at a time; each is gone when the next one is asked for.

    They lie in anonymous memory, which the system takes back however this process ends.

    Args:
        named: The weights.
        size: Bytes of a bucket; a larger weight is one of its own.
    """
    bucket: dict[str, Tensor] = {}
    held = 0
    for name, tensor in named:
        if bucket and held + tensor.nbytes > size:
            yield from _file(bucket)
            bucket, held = {}, 0
        # A copy: tied weights share storage, which the format refuses.
        bucket[name] = tensor.detach().to("cpu", copy=True).contiguous()
        held += tensor.nbytes
    if bucket:
        yield from _file(bucket)


def _file(bucket: dict[str, Tensor]) -> Iterator[str]:
    with open(os.memfd_create("weights"), "wb") as file:
        file.write(save(bucket))
        file.flush()
        yield f"/proc/{os.getpid()}/fd/{file.fileno()}"


def fail_when_dead(client: Any) -> None:
    """Let calls fail that wait for an engine process which died; vLLM notices, but not for their sake.

    Args:
        client: vLLM's client of the process.
    """
    # Not the client itself: it shuts the process down when nobody holds it any more.
    parts = client.resources, client.outputs_queue, client.utility_results
    Thread(target=_wait_for_death, args=parts, daemon=True, name="engine-death").start()


def _wait_for_death(resources: Any, outputs: Any, calls: dict[int, Any]) -> None:
    wait(resources.engine_manager.sentinels())
    while not resources.engine_dead:  # from then on vLLM refuses new calls
        time.sleep(0.05)
    error = EngineError("the engine's process died")
    outputs.put(error)
    for call in list(calls.values()):
        with suppress(Exception):  # answered in the meantime
            call.set_exception(error)
