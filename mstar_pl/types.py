"""Frozen records that every part of the package exchanges, and their codec (standard library only).

The vocabulary follows the field: a *prompt* is a question about images with or without a known answer, a
*rollout* is one sampled response, a *rollout group* is all rollouts of one prompt. Field names and meanings
of a prompt follow MathVista (https://github.com/lupantech/MathVista, `data/testmini.json`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

QuestionType = Literal["free_form", "multi_choice"]
AnswerType = Literal["text", "integer", "float", "list"]
FinishReason = Literal["stop", "length"]
OutcomeName = Literal["correct", "wrong", "undecided"]

QUESTION_TYPES: tuple[QuestionType, ...] = ("free_form", "multi_choice")
ANSWER_TYPES: tuple[AnswerType, ...] = ("text", "integer", "float", "list")

MAX_TEXT = 100_000
"""Most characters of a question, an answer or a choice."""


class InputError(ValueError):
    """The user's input is at fault; the message names the place and the fix on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question about zero or more images.

    Attributes:
        id: Identity of the prompt, unique within a data set; seeds and resumption are keyed by it.
        question: The question as text, without choices, hints or image placeholders.
        images: Paths of the images, or references into archives and tables, in the order in which the
            question refers to them; may be empty.
        answer: The gold answer, or None for an unlabelled prompt. For multiple choice it is the text of a
            choice.
        choices: The texts of the options of a multiple-choice question, else None.
        question_type: `multi_choice` or `free_form`.
        answer_type: `text`, `integer`, `float` or `list`.
        unit: Unit in which the answer is expected, e.g. `years`, or None.
        precision: Number of decimal places of a float answer, or None.
        query: The whole text of the user turn where a benchmark prescribes it (as MathVista's released
            column of this name), or None.
        metadata: Whatever else belongs to the prompt, JSON values only; `task` groups result tables.
    """

    id: str
    question: str
    images: tuple[str, ...] = ()
    answer: str | None = None
    choices: tuple[str, ...] | None = None
    question_type: QuestionType = "free_form"
    answer_type: AnswerType = "text"
    unit: str | None = None
    precision: int | None = None
    query: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """Name of the task that groups this prompt in result tables (`metadata["task"]`, else `all`)."""
        return str(self.metadata.get("task", "all"))

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Prompt:
        """Read a prompt from one decoded JSON object and check it.

        Keys that are not fields of a prompt are refused, except `response`, which belongs to `Example`.

        Raises:
            ValueError: A field is missing, unknown, of the wrong type, or contradicts another; says which and
                how to mend it.

        >>> Prompt.from_json({"id": "1", "images": [], "question": "1+1?", "answer": "2"}).answer
        '2'
        >>> Prompt.from_json({"id": "1", "images": [], "question": "1+1?", "anser": "2"})
        Traceback (most recent call last):
            ...
        ValueError: unknown field 'anser'; put extra information into 'metadata'
        """
        known = set(cls.__dataclass_fields__) | {"response"}
        for key in row:
            if key not in known:
                raise ValueError(f"unknown field {key!r}; put extra information into 'metadata'")
        for key in ("id", "images", "question", "answer"):
            if key not in row:
                raise ValueError(
                    f"field {key!r} is missing" + (" (null means unlabelled)" if key == "answer" else "")
                )
        choices = _strings(row, "choices", optional=True)
        answer = _string(row, "answer", optional=True)
        question_type = row.get("question_type") or ("multi_choice" if choices else "free_form")
        answer_type = row.get("answer_type") or "text"
        prompt = cls(
            id=_string(row, "id") or "",
            question=_string(row, "question") or "",
            images=_strings(row, "images") or (),
            answer=answer,
            choices=choices,
            question_type=cast(QuestionType, question_type),  # checked below
            answer_type=cast(AnswerType, answer_type),
            unit=_string(row, "unit", optional=True),
            precision=_precision(row.get("precision")),
            query=_string(row, "query", optional=True),
            metadata=_mapping(row, "metadata"),
        )
        prompt.check()
        return prompt

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this prompt; optional fields that hold nothing are left out."""
        row: dict[str, Any] = {
            "id": self.id,
            "images": list(self.images),
            "question": self.question,
            "answer": self.answer,
            "question_type": self.question_type,
            "answer_type": self.answer_type,
        }
        if self.choices is not None:
            row["choices"] = list(self.choices)
        further = {key: getattr(self, key) for key in ("unit", "precision", "query")}
        row |= {key: value for key, value in further.items() if value is not None}
        if self.metadata:
            row["metadata"] = dict(self.metadata)
        return row

    def check(self) -> None:
        """Refuse fields that are empty, too long, or contradict each other, by a `ValueError`."""
        if not self.id:
            raise ValueError("field 'id' is empty")
        for text in (self.id, self.question, self.query or "", self.answer or "", *(self.choices or ())):
            if len(text) > MAX_TEXT:
                raise ValueError(f"{text[:20]!r}… has {len(text)} characters, over {MAX_TEXT}")
        if not self.question.strip():
            raise ValueError("field 'question' is empty")
        if self.question_type not in QUESTION_TYPES:
            raise ValueError(
                f"question_type {self.question_type!r} is not one of {', '.join(QUESTION_TYPES)}"
            )
        if self.answer_type not in ANSWER_TYPES:
            raise ValueError(f"answer_type {self.answer_type!r} is not one of {', '.join(ANSWER_TYPES)}")
        if self.question_type == "multi_choice":
            if not self.choices:
                raise ValueError("question_type is multi_choice but 'choices' is missing or empty")
            if self.answer is not None and self.answer not in self.choices:
                raise ValueError(
                    f"answer {self.answer!r} is not one of the choices; give the text of the right choice"
                )
        elif self.answer is not None:
            self._check_number(self.answer)

    def _check_number(self, answer: str) -> None:
        if self.answer_type in ("integer", "float"):
            try:
                number = float(answer)
            except ValueError:
                raise ValueError(
                    f"answer {answer!r} is not a number, but answer_type is {self.answer_type}"
                ) from None
            if not math.isfinite(number):
                raise ValueError(f"answer {answer!r} is not finite")
            if self.answer_type == "integer" and number != int(number):
                raise ValueError(f"answer {answer!r} is not whole, but answer_type is integer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example of supervised fine-tuning: a prompt and the response the policy should write."""

    prompt: Prompt
    response: str

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Example:
        """Read an example: the JSON object of a prompt with the additional field `response`.

        Raises:
            ValueError: The prompt is malformed, or `response` is missing or empty.
        """
        response = _string(row, "response") if "response" in row else None
        if not response or not response.strip():
            raise ValueError(
                "field 'response' is missing or empty; training needs a response for each prompt"
            )
        return cls(prompt=Prompt.from_json(row), response=response)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this example."""
        return self.prompt.to_json() | {"response": self.response}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How responses are sampled.

    Attributes:
        num_samples: Responses per prompt (K).
        temperature: Softmax temperature, at most 2; 0 means greedy decoding.
        top_p: Nucleus mass, in (0, 1].
        max_tokens: Upper bound on the tokens of a response.
        seed: Run seed; the draws follow from it, the iteration and the prompt's id.
    """

    num_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.num_samples < 1 or self.max_tokens < 1:
            raise InputError("num_samples and max_tokens must be at least 1")
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise InputError("temperature must be in [0, 2] and top_p in (0, 1]")
        if self.temperature == 0 and self.num_samples > 1:
            raise InputError("greedy decoding (temperature 0) gives one response; set num_samples: 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled response.

    Attributes:
        text: The response without special tokens.
        token_ids: Its tokens as the engine sampled them, the stop token included when there was one; where it
            continues a prefix, that one's tokens come before.
        finish_reason: `stop` at a stop token, `length` at the token limit.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """All rollouts of one prompt in one iteration.

    Attributes:
        prompt: The prompt.
        prompt_token_ids: The prompt as the engine tokenised it, image placeholders expanded.
        rollouts: K responses, more where the prompt was given a second chance.
        weight_version: Optimizer steps behind the policy weights that sampled them.
        temperature: Sampling temperature; 0 means greedy.
    """

    prompt: Prompt
    prompt_token_ids: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
    weight_version: int
    temperature: float = 1.0

    @property
    def finished(self) -> list[str]:
        """The distinct responses that ended by themselves and are not empty, in their order."""
        texts = (rollout.text.strip() for rollout in self.rollouts if rollout.finish_reason == "stop")
        return [text for text in dict.fromkeys(texts) if text]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What one rollout is worth, each source beside the total (arXiv 2412.17451, section 3.2).

    Attributes:
        outcome: What the answer check found.
        extraction: The answer that it found in the response, or None.
        process: Process reward, by default the least score of its steps, in [0, 1]; None without a process
            reward model.
    """

    outcome: OutcomeName
    extraction: str | None = None
    process: float | None = None

    @property
    def reward(self) -> float:
        """Outcome reward times process reward: 0 for a response that is not known to be correct."""
        if self.outcome != "correct":
            return 0.0
        return 1.0 if self.process is None else self.process


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A rollout group with what its rollouts are worth and which of them are trained on.

    Attributes:
        group: The rollouts.
        scores: One score a rollout.
        selected: Indices of the rollouts kept for training, in the order of the rollouts.
    """

    group: RolloutGroup
    scores: tuple[Score, ...]
    selected: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        assert len(self.scores) == len(self.group.rollouts)
        assert set(self.selected) <= set(range(len(self.scores)))


def _string(row: Mapping[str, Any], key: str, *, optional: bool = False) -> str | None:
    value = row.get(key)
    if isinstance(value, str) or (optional and value is None):
        return value
    hint = "; write numbers as strings" if isinstance(value, int | float) else ""
    raise ValueError(
        f"field {key!r} must be a string{' or null' if optional else ''}, got {type(value).__name__}{hint}"
    )


def _strings(row: Mapping[str, Any], key: str, *, optional: bool = False) -> tuple[str, ...] | None:
    value = row.get(key)
    if optional and value is None:
        return None
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError(f"field {key!r} must be a list of strings, got {value!r:.80}")


def _mapping(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = row.get(key)
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    raise ValueError(f"field {key!r} must be an object, got {type(value).__name__}")


def _precision(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value == int(value) and value >= 0:
        return int(value)
    raise ValueError(f"field 'precision' must be a whole number of decimal places, got {value!r:.80}")
