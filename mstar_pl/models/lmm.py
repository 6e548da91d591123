"""The LMM adapter: all that differs between families of large multimodal models, in one class."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from PIL.Image import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from mstar_pl.data.format import QuestionStyle, render_question
from mstar_pl.data.images import image_size
from mstar_pl.models import checkpoint_files as files
from mstar_pl.models.families_tried import check_choice
from mstar_pl.models.parts import ModelParts
from mstar_pl.models.processor_options import check_options, image_options
from mstar_pl.types import InputError, Prompt

EMBEDDED = "embedded"
EMBEDDED_PATH = Path(__file__).parent / "embedded"


class LMM(ModelParts):
    """Adapter of any model that `AutoModelForImageTextToText` loads and that has a chat template.

    A family overrides the few lines in which it differs; `InternVL` and `Qwen2_5_VL` show how. The adapter
    holds no weights: `load_model` returns them.

    Args:
        path: Local folder in the Hugging Face layout, or `embedded` for the small LMM that ships with the
            package.
        dtype: Type of the loaded weights, `float32` or `bfloat16`. Weights must be *loaded* in their type:
            casting a loaded model also casts its rotary frequencies, which shifts log-probabilities.
        attention: Attention implementation of Transformers: `sdpa`, `eager` or `flash_attention_2`.
        question_style: How questions are written: `mathvista` with a hint on the answer's form, or `plain`.
        system_prompt: Text of a system turn, or None for the template's own.
        instruction: Text on a line of its own after the question, e.g. what a process reward model is asked.
        processor_options: Options of the processor's call, e.g. `max_patches` or `max_pixels`; training and
            engine get the same.

    Raises:
        InputError: The folder is not a model folder, or its model is known not to work with the adapter.
    """

    model_types: ClassVar[tuple[str, ...]] = ()
    """Values of `model_type` in a `config.json` for which this adapter is chosen."""

    adds_first_token: ClassVar[bool] = False
    """Whether the tokenizer puts a first token before a prompt, since the chat template does not."""

    engine_args: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Further arguments of the vLLM engine that the family needs."""

    known_gaps: ClassVar[Mapping[str, tuple[float, str]]] = MappingProxyType({})
    """Checks of `mstar-pl check-lmm` that the family cannot pass: the largest size, and why."""

    known_options: ClassVar[tuple[str, ...] | None] = None
    """The `processor_options` that training and engine heed alike; None for all of the image processor."""

    max_images: ClassVar[int | None] = None
    """Most images of a prompt; None for any number."""

    ported: ClassVar[bool] = False
    """Whether the architecture is one of this package's ports, which those who load an export need, too."""

    weightless = False
    """Whether `load_model` reads no weights: a plan of memory asks only for their shapes."""

    def __init__(
        self,
        path: str = EMBEDDED,
        dtype: Literal["float32", "bfloat16"] = "float32",
        attention: str = "sdpa",
        question_style: QuestionStyle = "mathvista",
        system_prompt: str | None = None,
        instruction: str | None = None,
        processor_options: dict[str, Any] | None = None,
    ) -> None:
        self.path = str(EMBEDDED_PATH if path == EMBEDDED else path)
        self.dtype = dtype
        self.attention = attention
        self.question_style: QuestionStyle = question_style
        self.system_prompt = system_prompt
        self.instruction = instruction
        self.processor_options = dict(processor_options or {})
        if self.known_options is not None:
            check_options(self.processor_options, self.known_options, type(self).__name__)
        check_choice(self)

    @property
    def options(self) -> dict[str, Any]:
        """Constructor arguments that an export records, so that prompts stay the same."""
        return {
            "question_style": self.question_style,
            "system_prompt": self.system_prompt,
            "instruction": self.instruction,
            "processor_options": self.processor_options,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What outputs depend on beside the weights: the options, and the type and attention computed in."""
        return {"dtype": self.dtype, "attention": self.attention} | self.options

    # Loading

    @cached_property
    def processor(self) -> Any:
        """Processor of the family, from the model folder.

        Raises:
            InputError: The folder has no whole processor, or the processor no such option.
        """
        files.check_processor_files(Path(self.path))
        processor = AutoProcessor.from_pretrained(self.path, local_files_only=True)
        if self.known_options is None and self.processor_options:
            check_options(self.processor_options, image_options(processor), type(self).__name__)
        return processor

    def save_processor(self, folder: str | Path) -> None:
        """Save the processor as the model folder has it: a tokenizer in use also keeps its last padding."""
        AutoProcessor.from_pretrained(self.path, local_files_only=True).save_pretrained(folder)

    @property
    def tokenizer(self) -> Any:
        """Tokenizer of the processor."""
        return self.processor.tokenizer

    def load_model(self, device: str | torch.device = "cpu") -> PreTrainedModel:
        """Return the model with its weights, or without contents where `weightless` says so.

        Raises:
            InputError: The folder does not have all weights.
        """
        if self.weightless:
            return self.empty_model()
        files.check_weight_files(Path(self.path))
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            self.path,
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.attention,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
        model, info = loaded
        lost = {name for name in info["missing_keys"] if self.is_used(name)}
        files.check_loaded(self.path, lost | {name for name, *_ in info["mismatched_keys"]})
        return model.to(torch.device(device))

    def empty_model(self) -> PreTrainedModel:
        """Return the model as its `config.json` describes it, with initial weights."""
        return AutoModelForImageTextToText.from_config(
            AutoConfig.from_pretrained(self.path, local_files_only=True),
            dtype=getattr(torch, self.dtype),
            attn_implementation=self.attention,
        )

    @cached_property
    def num_positions(self) -> int | None:
        """Most tokens that the language model has positions for; None if its configuration does not say."""
        config = AutoConfig.from_pretrained(self.path, local_files_only=True)
        return getattr(config.get_text_config(), "max_position_embeddings", None)

    def check_context(self, num_tokens: int, option: str) -> None:
        """Refuse sequences of a length that the family cannot train or sample; by default none.

        Args:
            num_tokens: Most tokens of prompt and response together.
            option: Name of the option that says so, for the message.

        Raises:
            InputError: The family cannot; says why.
        """

    # Prompts and responses

    def render(self, prompt: Prompt) -> str:
        """Return the prompt in the chat template, one unexpanded placeholder an image.

        Raises:
            InputError: Its text spells a special token, which would become an image or end the turn.
        """
        text = "\n".join([render_question(prompt, self.question_style), *filter(None, [self.instruction])])
        if found := self._special_text.search(text):
            raise InputError(
                f"prompt {prompt.id!r} spells the special token {found[0]!r}; change its text, or remove it"
            )
        return self.chat(text, len(prompt.images))

    def chat(self, text: str, num_images: int) -> str:
        """Return one user turn in the family's chat template, images before the text.

        Placeholders stay unexpanded: the processor, or the engine, replaces each by as many tokens as its
        image has.

        Raises:
            InputError: The model folder has no template.
        """
        content = [*[{"type": "image"}] * num_images, {"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        if self.system_prompt:
            system = [{"type": "text", "text": self.system_prompt}]
            messages.insert(0, {"role": "system", "content": system})
        files.check_template(self.path, self.processor)
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode(self, texts: Sequence[str], images: Sequence[Sequence[Image]]) -> dict[str, Tensor]:
        """Return model inputs of prompts, padded on the right.

        Args:
            texts: B prompts as `render` gives them.
            images: The images of each prompt.

        Returns:
            `input_ids` and `attention_mask` of shape (B, P) and the tensors of the images.
        """
        nested = [list(row) for row in images] if any(images) else None
        encoded = self.processor(
            text=list(texts),
            images=nested,
            padding=True,
            padding_side="right",
            add_special_tokens=self.adds_first_token,
            return_tensors="pt",
            **self.processor_options,
        )
        return dict(encoded)

    def encode_response(self, response: str) -> list[int]:
        """Return the tokens of a response and the token that ends the turn.

        Llama's tokenizer puts a space before each text; the engine's text of a response has it.
        """
        text = response.removeprefix(" ") if self._puts_space else response
        return [*self.tokenizer.encode(text, add_special_tokens=False), self.end_token_id]

    def begun(self, prompt: Prompt, prefix: str) -> str:
        """Return a prompt as `render` gives it with the beginning of its response, which may be empty."""
        return self.render(prompt) + (" " if prefix and self._puts_space else "") + prefix

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of response tokens, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def prompt_tokens(self, text: str) -> list[int]:
        """Return the tokens of a prompt as `render` gives it, placeholders unexpanded."""
        return self.tokenizer.encode(text, add_special_tokens=self.adds_first_token)

    def engine_prompt(self, text: str) -> dict[str, Any]:
        """Return a prompt for vLLM: its tokens; before a text vLLM would put a first token of its own."""
        return {"prompt_token_ids": self.prompt_tokens(text)}

    def num_prompt_tokens(self, prompt: Prompt) -> int:
        """Return the tokens of a prompt, its image tokens included, from the images' headers alone.

        Raises:
            InputError: The processor takes no image of this shape, or the text spells a special token.
        """
        num_text = len(self.prompt_tokens(self.render(prompt)))
        if not prompt.images:
            return num_text
        sizes = [image_size(image) for image in prompt.images]
        try:
            return num_text - len(sizes) + sum(self.num_image_tokens(sizes))
        except ValueError as error:
            raise InputError(f"prompt {prompt.id!r}: {', '.join(prompt.images)}: {error}") from None

    def num_image_tokens(self, sizes: list[tuple[int, int]]) -> Sequence[int]:
        """Return how many tokens stand for each image of a prompt, given their (height, width) in pixels."""
        shared = self.processor.valid_processor_kwargs
        defaults = deepcopy(shared._defaults)
        try:
            counts = self.processor._get_num_multimodal_tokens(image_sizes=sizes, **self.processor_options)
        finally:
            shared._defaults = defaults  # Transformers writes our options into those of all processors
        return counts["num_image_tokens"]

    # Tokens

    @property
    def pad_token_id(self) -> int:
        """Token that fills rows; masked everywhere."""
        return self.tokenizer.pad_token_id

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens at which generation stops: the end of the turn and what the tokenizer calls the end."""
        return tuple(dict.fromkeys((self.end_token_id, self.tokenizer.eos_token_id)))

    @cached_property
    def end_token_id(self) -> int:
        """Token that the chat template puts behind an assistant's turn; responses end with it.

        Raises:
            InputError: What stands there is text, which a response may contain.
        """
        marker = "MARKER"
        messages = [
            {"role": "user", "content": [{"type": "text", "text": "-"}]},
            {"role": "assistant", "content": [{"type": "text", "text": marker}]},
        ]
        text = self.processor.apply_chat_template(messages, tokenize=False)
        tail = self.tokenizer.encode(text.rpartition(marker)[2].strip(), add_special_tokens=False)
        if not tail:
            return self.tokenizer.eos_token_id
        if tail[0] not in self.tokenizer.added_tokens_decoder:
            raise InputError(
                f"{self.path}: the chat template ends a turn with the text {self.tokenizer.decode(tail)!r}; "
                "give the token in an adapter of your own (LMM.end_token_id, docs/new_lmm.md)"
            )
        return tail[0]

    @cached_property
    def banned_token_ids(self) -> tuple[int, ...]:
        """Special tokens that no response may contain, image placeholders above all."""
        special = {token for token, added in self.tokenizer.added_tokens_decoder.items() if added.special}
        special |= set(getattr(self.processor, "image_token_ids", None) or ())
        return tuple(sorted(special - set(self.stop_token_ids)))

    @cached_property
    def _puts_space(self) -> bool:
        """Whether the tokenizer puts a space before each text."""
        return self.tokenizer.tokenize("a")[0].startswith(("▁", "Ġ"))

    @cached_property
    def _special_text(self) -> re.Pattern[str]:
        """All spellings of special tokens, the longest first."""
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        tokens |= {getattr(self.processor, name, None) or "" for name in ("image_token", "video_token")}
        return re.compile("|".join(map(re.escape, sorted(tokens - {""}, key=len, reverse=True))) or "(?!)")

    def forget_positions(self, body: nn.Module) -> None:
        """Forget what the model keeps of the positions of its last prompt; by default it keeps nothing.

        Args:
            body: The model without its language-model head.
        """

    def engine_weights(self, named: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield weights under the names that the engine knows; the same names by default."""
        yield from named
