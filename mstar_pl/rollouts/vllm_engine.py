"""The vLLM rollout engine; only this file and `weight_receiver`, its half in the workers, import vLLM."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import torch
from PIL.Image import Image
from torch import Tensor
from tqdm import tqdm
from transformers import AutoConfig

# In this process, unless an engine is given one of its own.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")

from vllm import LLM, CompletionOutput, ModelRegistry, RequestOutput, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.model_executor.models.interfaces import supports_lora

from mstar_pl.data.images import load_image
from mstar_pl.models import LMM
from mstar_pl.rollouts import placement
from mstar_pl.rollouts.engine import (
    EngineError,
    Request,
    RolloutEngine,
    check_context,
    context_of,
    count_tokens,
)
from mstar_pl.rollouts.updates import write_updates
from mstar_pl.types import InputError, Prompt, Rollout, RolloutGroup, SamplingConfig


class VLLMEngine(RolloutEngine):
    """Generate with vLLM, in this process or one of its own, on one device or several.

    By default the engine lives in the training process, where weights are handed over in memory. With
    `own_process` its crash leaves the trainer alive and is an `EngineError`; weights pass through shared
    memory, a bucket at a time. With `tensor_parallel_size` k, each k consecutive training processes hold one
    engine together; a single training process needs `own_process` for that, and vLLM starts k workers.

    It refuses to generate until `load_policy` gave it weights, and yet starts from those in the adapter's
    folder: dummy ones would also fill buffers that the engine derives from the configuration, such as
    Qwen2.5-VL's pixel normalisation, which no later sync restores.

    Args:
        lmm: Adapter of the policy; its folder gives configuration and processor.
        max_model_len: Most tokens of prompt and response together; default is as many as the model has
            positions for, up to 4,096.
        max_num_seqs: Most responses in flight.
        max_num_batched_tokens: Most tokens of one engine step.
        gpu_memory_utilization: Share of the GPU's memory for weights and KV cache.
        cpu_kv_cache_gib: KV cache on a machine without a GPU, in GiB.
        max_images: Most images of a prompt.
        image_cache_gib: Host memory for preprocessed images, in GiB (vLLM's own default is 4).
        own_process: Run the engine in a process of its own.
        tensor_parallel_size: Devices that share each weight of the engine.
        lora_rank: Take low-rank updates of the language model alone, up to this rank (8, 16, 32, 64, 128,
            256, 320 or 512); asleep, the engine keeps the weights below, those of the folder, in host memory.
            None takes all weights each time, updates merged in, which works for every model.
        dtype: Type of the engine's weights and KV cache; None takes that of the training weights.

    Raises:
        InputError: The training processes cannot form groups of `tensor_parallel_size`, the model has
            fewer positions than `max_model_len`, or vLLM has no low-rank updates for it.
    """

    def __init__(
        self,
        lmm: LMM,
        max_model_len: int | None = None,
        max_num_seqs: int = 256,
        max_num_batched_tokens: int = 16384,
        gpu_memory_utilization: float = 0.5,
        cpu_kv_cache_gib: int = 1,
        max_images: int = 1,
        image_cache_gib: float = 0.5,
        own_process: bool = False,
        tensor_parallel_size: int = 1,
        lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] | None = None,
        dtype: Literal["float32", "bfloat16"] | None = None,
    ) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(cpu_kv_cache_gib))
        processes = placement.training_processes()
        placement.check_groups(tensor_parallel_size, own_process, processes)
        self.lmm, self.dtype = lmm, dtype
        self.gpu_share = gpu_memory_utilization
        self.own_process = own_process
        self.num_processes = 1 if own_process else tensor_parallel_size
        self.max_model_len = context_of(lmm, max_model_len)
        self.max_images = max_images
        self._version: int | None = None
        self.lora_rank = lora_rank
        self.takes_updates = lora_rank is not None
        self._updates: LoRARequest | None = None
        options: dict[str, Any] = dict(lmm.engine_args)
        if lora_rank is not None:
            _check_lora(lmm)
            self._updates_folder = TemporaryDirectory(prefix="updates-")
            options |= {"enable_lora": True, "max_lora_rank": lora_rank}
        launched = processes.num > 1 and not own_process
        # A former engine shuts down when it is collected, and would take the groups of this one with it. vLLM
        # has kept it from the collector (`gc.freeze`).
        gc.unfreeze()
        gc.collect()
        processor_options = {**options.pop("mm_processor_kwargs", {}), **lmm.processor_options}
        with placement.starting(own_process, processes):
            self._llm = LLM(
                lmm.path,
                dtype=dtype or lmm.dtype,
                enforce_eager=not torch.cuda.is_available(),
                max_model_len=self.max_model_len,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max(max_num_batched_tokens, self.max_model_len),
                # A prompt that is split over two steps cannot be drawn from with a seed on the CPU.
                enable_chunked_prefill=torch.cuda.is_available(),
                gpu_memory_utilization=gpu_memory_utilization,
                enable_sleep_mode=torch.cuda.is_available(),
                limit_mm_per_prompt={"image": max_images, "video": 0},
                mm_processor_kwargs=processor_options or None,
                mm_processor_cache_gb=image_cache_gib,
                disable_log_stats=True,
                # Prefixes are reused in whole blocks; the CPU's default of 128 tokens exceeds short prompts.
                block_size=None if torch.cuda.is_available() else 32,
                worker_extension_cls="mstar_pl.rollouts.weight_receiver.WeightReceiver",
                tensor_parallel_size=tensor_parallel_size,
                # Ranks and devices as the training processes have them.
                distributed_executor_backend="external_launcher" if launched else None,
                **options,
            )
        if own_process:
            placement.fail_when_dead(self._llm.llm_engine.engine_core)

    def load_policy(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over weights and drop every cache that was computed with the old ones; see `RolloutEngine`.

        Raises:
            RuntimeError: A parameter of the engine was not written exactly once, or an update not used.
            EngineError: The engine's process died.
        """
        self._version = None
        if self.takes_updates:
            self._load_updates(dict(weights))
        else:
            self._load_weights(weights)
        with self._failures():
            if self._sleeps:
                self._llm.wake_up(tags=["kv_cache"])
            self._llm.reset_prefix_cache()
            self._llm.llm_engine.reset_mm_cache()
            self._llm.llm_engine.reset_encoder_cache()
        self._version = version

    def _load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        named = _once(self.lmm.engine_weights(weights))
        self._call("begin_weights")
        if self.own_process:
            for file in placement.files(named):
                self._call("take_weights_from", file)
        else:
            self._call("take_weights", named)
        self._finish("finish_weights")

    def _finish(self, method: str) -> None:
        """Call a method that tells what is wrong with a sync, and raise if there is something."""
        if problems := sorted({one for worker in self._call(method) for one in worker}):
            raise RuntimeError(
                "the weights did not reach the engine whole: "
                + "; ".join(problems[:4])
                + f" ({len(problems)} problems); see LMM.engine_weights of the adapter"
            )

    def _load_updates(self, updates: Mapping[str, Tensor]) -> None:
        """Replace the low-rank updates by others; before the first ones come the weights below."""
        folder = write_updates(updates, Path(self._updates_folder.name), cast(int, self.lora_rank))
        if self._updates is None:  # as the adapter reads them: vLLM cannot read every family's folder
            self._load_weights(self.lmm.load_model().state_dict().items())
        # A number that was there before would be taken for the same updates.
        number = self._updates.lora_int_id + 1 if self._updates else 1
        self._updates = LoRARequest("updates", number, str(folder))
        with self._failures():
            self._llm.llm_engine.add_lora(self._updates)
        self._finish("idle_updates")

    def submit(self, requests: Sequence[Request], progress: str = "") -> list[RolloutGroup]:
        """Answer requests, the K samples of one together, so that an image is encoded once."""
        if self._version is None:
            raise RuntimeError("no weights: call load_policy before generate")
        # Several requests may share a prompt; the longest is checked, and its image decoded once.
        longest: dict[str, tuple[int, Prompt]] = {}
        tokens = [count_tokens(self.lmm, one) for one in requests]
        for one, (prefix, left) in zip(requests, tokens, strict=True):
            if prefix + left > longest.get(one.prompt.id, (0, one.prompt))[0]:
                longest[one.prompt.id] = (prefix + left, one.prompt)
        for length, prompt in longest.values():
            self.check([prompt], length)
        params = [self._params(request, left) for request, (_, left) in zip(requests, tokens, strict=True)]
        answered = zip(requests, self._generate(requests, params, progress), strict=True)
        return [_group(request, output, self._version) for request, output in answered]

    def log_probabilities(
        self, prompts: Sequence[Prompt], max_tokens: int
    ) -> list[tuple[RolloutGroup, Tensor]]:
        """Answer prompts greedily, and tell how likely each token was, for a comparison with training.

        Args:
            prompts: The prompts.
            max_tokens: Most tokens of each response.

        Returns:
            For each prompt its group, and the log-probabilities in nats of the R tokens of its response; the
            normalisation includes tokens that are never sampled.
        """
        if self._version is None:
            raise RuntimeError("no weights: call load_policy before log_probabilities")
        self.check(prompts, max_tokens)
        requests = [Request(prompt=one, sampling=SamplingConfig(max_tokens=max_tokens)) for one in prompts]
        outputs = self._generate(requests, [self._params(one, max_tokens, logprobs=0) for one in requests])
        return [
            (_group(request, output, self._version), _chosen(output.outputs[0]))
            for request, output in zip(requests, outputs, strict=True)
        ]

    def check(self, prompts: Iterable[Prompt], max_tokens: int) -> None:
        """Refuse prompts with too many images or tokens; see `RolloutEngine`."""
        for prompt in prompts:
            if len(prompt.images) > self.max_images:
                raise InputError(
                    f"prompt {prompt.id!r} has {len(prompt.images)} images; raise the engine's max_images"
                )
            check_context(self.lmm, prompt, max_tokens, self.max_model_len)

    def sleep(self) -> None:
        """Free the GPU's memory, weights and KV cache; without effect where vLLM has no sleep mode."""
        self._version = None
        if self._sleeps:
            with self._failures():
                self._llm.sleep(level=1 if self.takes_updates else 2)

    def wake(self) -> None:
        """Take the memory of the weights back; `load_policy` must follow, and takes that of the KV cache."""
        if self._sleeps:
            with self._failures():
                self._llm.wake_up(tags=["weights"])

    def close(self) -> None:
        """Shut the engine down; another one may then start in this process."""
        self._version = None
        if "_llm" in vars(self):
            self._llm.llm_engine.engine_core.shutdown()
            del self._llm

    def _generate(
        self, requests: Sequence[Request], params: Sequence[SamplingParams], progress: str = ""
    ) -> list[RequestOutput]:
        load = lru_cache(maxsize=64)(load_image)
        inputs: list[Any] = [self._input(request, load) for request in requests]
        bar = partial(tqdm, delay=2) if progress else False
        with self._failures():
            return self._llm.generate(inputs, params, use_tqdm=bar, lora_request=self._updates)

    @property
    def _sleeps(self) -> bool:
        return self._llm.llm_engine.vllm_config.model_config.enable_sleep_mode

    def _call(self, method: str, *args: Any) -> list[Any]:
        """Call a method of `mstar_pl.rollouts.weight_receiver.WeightReceiver` in each worker."""
        with self._failures():
            return self._llm.collective_rpc(method, args=args)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Say of a process of its own that fails that another one may do."""
        try:
            yield
        except Exception as error:
            if not self.own_process:
                raise
            raise EngineError(f"the engine's process failed: {error}") from error

    def _input(self, request: Request, load: Callable[[str], Image]) -> dict[str, Any]:
        # Unexpanded: the engine expands each placeholder itself, a second expansion would go unnoticed.
        given = self.lmm.engine_prompt(self.lmm.begun(request.prompt, request.prefix))
        if request.prompt.images:
            given["multi_modal_data"] = {"image": [load(image) for image in request.prompt.images]}
        return given

    def _params(self, request: Request, max_tokens: int, logprobs: int | None = None) -> SamplingParams:
        sampling = request.sampling
        return SamplingParams(
            n=sampling.num_samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=max_tokens,
            logprobs=logprobs,
            seed=request.seed,  # of the first sample; the engine adds one for each further one
            stop_token_ids=list(self.lmm.stop_token_ids),
            logit_bias=dict.fromkeys(self.lmm.banned_token_ids, -100.0),
        )


def _check_lora(lmm: LMM) -> None:
    """Refuse a model for which vLLM has no low-rank updates.

    Raises:
        InputError: It is one.
    """
    config = AutoConfig.from_pretrained(lmm.path, local_files_only=True)
    for name in config.architectures or ():
        if name in ModelRegistry.models and not supports_lora(ModelRegistry.models[name].load_model_cls()):
            raise InputError(f"vLLM has no low-rank updates for {name}; leave the engine's lora_rank out")


def _once(named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    seen: set[str] = set()
    for name, tensor in named:
        if name in seen:
            raise RuntimeError(f"weight {name} was given to the engine twice; see LMM.engine_weights")
        seen.add(name)
        yield name, tensor


def _chosen(output: CompletionOutput) -> Tensor:
    """Return the log-probabilities of the tokens that were drawn."""
    places: Any = output.logprobs
    return torch.tensor([place[token].logprob for token, place in zip(output.token_ids, places, strict=True)])


def _group(request: Request, output: RequestOutput, version: int) -> RolloutGroup:
    reasons: dict[str | None, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}
    return RolloutGroup(
        prompt=request.prompt,
        prompt_token_ids=tuple(output.prompt_token_ids or ()),
        rollouts=tuple(
            Rollout(text=one.text, token_ids=tuple(one.token_ids), finish_reason=reasons[one.finish_reason])
            for one in output.outputs
        ),
        weight_version=version,
        temperature=request.sampling.temperature,
    )
