"""Step labels: a response cut into steps, with what Monte Carlo continuations or a person said of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mstar_pl.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLabels:
    """A response in steps with a label each: the training data of a process reward model.

    Attributes:
        prompt: The prompt that the response answers.
        steps: The steps of the response, without the blank lines between them.
        labels: One a step, in [0, 1]: whether the right answer was reached from the prefix that it ends
            (hard: 1 or 0), or the share of continuations that reached it (soft). None means not known;
            such a step carries no loss.
    """

    prompt: Prompt
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if not self.steps or len(self.steps) != len(self.labels):
            raise ValueError(f"{len(self.steps)} steps and {len(self.labels)} labels; give each step one")
        if empty := next((number for number, step in enumerate(self.steps, 1) if not step.strip()), None):
            raise ValueError(f"step {empty} is empty; remove it with its label")
        if wrong := next((one for one in self.labels if one is not None and not 0 <= one <= 1), None):
            raise ValueError(f"label {wrong} is not in [0, 1]; null means not known")

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> StepLabels:
        r"""Read one JSON object: a prompt with the further fields `steps` and `labels`.

        Raises:
            ValueError: A field is missing or malformed; says which.

        >>> row = {"id": "1", "images": [], "question": "1+1?", "answer": "2"}
        >>> StepLabels.from_json(row | {"steps": ["1+1=2.", "# Answer\n\n2"], "labels": [1, None]}).labels
        (1.0, None)
        """
        fields = dict(row)
        steps, labels = fields.pop("steps", None), fields.pop("labels", None)
        if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
            raise ValueError("field 'steps' must be a list of strings, the steps of one response")
        number = (int, float, type(None))  # a bool is an int
        if not isinstance(labels, list) or not all(isinstance(label, number) for label in labels):
            raise ValueError("field 'labels' must be a list of numbers in [0, 1] or null, one a step")
        values = tuple(None if label is None else float(label) for label in labels)
        return cls(prompt=Prompt.from_json(fields), steps=tuple(steps), labels=values)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of this record."""
        return self.prompt.to_json() | {"steps": list(self.steps), "labels": list(self.labels)}
