"""Step labels in the field's process-supervision formats, one JSON object a line.

- `mstar`: our own (`StepLabels`); the only one with choices, and with steps whose label is not known.
- `stepwise`: TRL's stepwise supervision (`trl-lib/prm800k`); labels are bools or floats.
- `math_shepherd`: `peiyi9979/Math-Shepherd` (arXiv 2312.08935); `label` is `input` with + or - for each tag.
- `visualprm`: `OpenGVLab/VisualPRM400K` (arXiv 2503.10291); a turn a step, answered by + or -.

Two more are read, but not written:

- `visualprm_raw`: `OpenGVLab/VisualPRM400K-v1.1-Raw`; `steps_with_score` with the shares of continuations.
- `math_shepherd_value`: `zhuzilin/Math-Shepherd`; `value` is the list of the marks of `math_shepherd`.

Those without images in their published form have the key `images`, a list of paths, where we add some.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mstar_pl.data.format import render_question
from mstar_pl.data.jsonl import anchor, read_records, write_jsonl
from mstar_pl.data.step_labels import StepLabels
from mstar_pl.types import InputError

log = logging.getLogger(__name__)
WrittenFormat = Literal["mstar", "stepwise", "math_shepherd", "visualprm"]
StepFormat = Literal[WrittenFormat, "visualprm_raw", "math_shepherd_value"]
Row = dict[str, Any]
_TAG = "ки"
_NUMBERING = re.compile(r"^\s*(Step \d+:\s*)+")  # published rows double it: "Step 1: Step 1: …"
_QUESTION, _SOLUTION = "### Question:\n", "\n\n### Solution Process:\n"
_IMAGE = re.compile(r"\A(\s*<image>)+\s*")
_SYSTEM = "You check a solution step by step. Answer + if a step is right and leads to the answer, else -."


def read_steps(
    path: str | Path, format: StepFormat | None = None, root: str | Path | None = None
) -> Sequence[StepLabels]:
    """Read step labels in any of the formats; by default the keys of the first row tell which.

    A prompt has the `id` and `answer` of its row; an id that is missing or -1, as in VisualPRM400K, becomes
    `<file stem>-<line number>`. Image paths, relative to `root` (default: the file's folder), come back
    absolute. Math-Shepherd's numbering is no part of its steps; a last step without a tag has the label None.

    Raises:
        InputError: The file, its format, a line or an image cannot be read; names file, line and reason.
    """
    path = Path(path)
    return read_records(path, step_decoder(path, format, root))


def step_decoder(
    path: Path, format: StepFormat | None = None, root: str | Path | None = None
) -> Callable[[int, Row], StepLabels]:
    """Return the function by which `read_steps` reads a line: from its number and object to a record."""
    return _Decoder(path.stem, format, Path(root or path.parent))


@dataclass
class _Decoder:
    """Unlike a closure it can be pickled."""

    stem: str
    format: StepFormat | None
    root: Path

    def __call__(self, number: int, row: Row) -> StepLabels:
        self.format = self.format or _detect(row)
        record = _decode(row, self.format, f"{self.stem}-{number}")
        return replace(record, prompt=anchor(record.prompt, self.root))


def format_of(row: Row) -> StepFormat | None:
    """Return the format of a row by its keys; None if it is in none."""
    return next((name for name, (keys, _) in _READERS.items() if row.keys() >= set(keys)), None)


def write_steps(path: str | Path, records: Iterable[StepLabels], format: WrittenFormat) -> Path:
    """Write step labels such that `read_steps` gives the same steps and labels.

    All formats but `mstar` have the question as one text, choices included, and no label for "not known":
    a response is cut before its first such step, and skipped if nothing is left; the log says how many were.
    In `math_shepherd` and `visualprm` a label above 0 is +, as in VisualPRM400K, others are -.
    Those of `stepwise` are bools if all of the file are 0 or 1, else floats. Image paths stay as they are.

    Raises:
        InputError: Nothing is left, or a text holds marks of the format and would be read back differently.
    """
    rows, records = [], list(records)
    for number, record in enumerate(records, start=1):
        try:
            rows += _encode(record, format)
        except ValueError as error:
            raise InputError(f"{path}: record {number}, prompt {record.prompt.id!r}: {error}") from None
    if not rows:
        raise InputError(f"{path}: nothing to write; give records whose first step has a label")
    if format != "mstar" and (num_cut := sum(None in record.labels for record in records)):
        message = "%s: cut %d responses before a step without a label; skipped %d of them that begin with it"
        log.warning(message, path, num_cut, len(records) - len(rows))
    # One type for the whole file: Arrow, which TRL reads data with, refuses a column of two.
    if format == "stepwise" and all(label in (0, 1) for row in rows for label in row["labels"]):
        rows = [row | {"labels": [bool(label) for label in row["labels"]]} for row in rows]
    return write_jsonl(path, rows)


def _detect(row: Row) -> StepFormat:
    if (found := format_of(row)) is not None:
        return found
    known = "; ".join(f"{name} ({', '.join(keys)})" for name, (keys, _) in _READERS.items())
    raise ValueError(f"keys {', '.join(row) or 'none'} are of no known format; known are {known}")


def _decode(row: Row, format: StepFormat, default_id: str) -> StepLabels:
    keys, read = _READERS[format]
    if missing := next((key for key in keys if key not in row), None):
        raise ValueError(f"field {missing!r} is missing; rows of {format} have {', '.join(keys)}")
    identity = default_id if row.get("id") in (None, "", -1) else str(row["id"])
    common = {"id": identity, "images": images_of(row), "answer": row.get("answer")}
    # A table has every column in every row: what a row does not have to have may be null.
    given = {key: cell for key, cell in row.items() if cell is not None or key in keys}
    return StepLabels.from_json(common | read(given))  # its checks serve all formats


def images_of(row: Row) -> Any:
    """Return the images of a row of any format, under `images` or `image`: a list, if it is well formed.

    >>> images_of({"image": "a.png"}), images_of({"images": ["a.png"], "image": None}), images_of({})
    (['a.png'], ['a.png'], [])
    """
    found = row.get("images") or row.get("image") or []
    return [found] if isinstance(found, str) else found


def _encode(record: StepLabels, format: WrittenFormat) -> list[Row]:
    """Return the row of as much of a record as the format can tell, nothing if that is nothing."""
    steps, labels = record.steps, record.labels
    if format != "mstar" and None in labels:
        labels = labels[: labels.index(None)]
    if format in ("math_shepherd", "visualprm"):
        labels = tuple(float(label is not None and label > 0) for label in labels)
    if format == "math_shepherd":
        steps = tuple(_NUMBERING.sub("", step).strip() for step in steps)
    if not labels:
        return []
    told = replace(record, steps=steps[: len(labels)], labels=labels)
    row = _WRITERS[format](told)
    if record.prompt.images and format != "visualprm":
        row["images"] = list(record.prompt.images)
    back = _decode(row, format, record.prompt.id)
    questions = {render_question(one.prompt, "plain").strip() for one in (told, back)}
    if (back.steps, back.labels) != (told.steps, told.labels) or len(questions) > 1:
        raise ValueError(f"its text holds marks of {format}; remove them, or write another format")
    return [row]


def _text(row: Row, key: str) -> str:
    if isinstance(value := row.get(key), str):
        return value
    raise ValueError(f"field {key!r} must be a string, got {type(value).__name__}")


def _from_stepwise(row: Row) -> Row:
    return {"question": _text(row, "prompt"), "steps": row["completions"], "labels": row["labels"]}


def _to_stepwise(record: StepLabels) -> Row:
    question = render_question(record.prompt, "plain")
    return {"prompt": question, "completions": list(record.steps), "labels": list(record.labels)}


def _from_math_shepherd(row: Row) -> Row:
    text, label = _text(row, "input"), _text(row, "label")
    question, begin, _ = text.partition(" Step 1:")
    if not begin or _TAG in question:
        fault = f"{_TAG!r} in the question" if begin else "no ' Step 1:' after the question"
        raise ValueError(f"'input' has {fault}; mend it and 'label', or remove the row")
    aligned = text.replace(_TAG, "\0")  # one character, as in the label
    marks = [label[tag.start() : tag.end()] for tag in re.finditer("\0", aligned)]
    if re.sub("\0", lambda tag: label[tag.start() : tag.end()], aligned) != label or {*marks} - {"+", "-"}:
        raise ValueError(f"'label' is not 'input' with + or - for each {_TAG!r}; mend it, or remove the row")
    steps = [_NUMBERING.sub("", step).strip() for step in text[len(question) :].split(_TAG)]
    labels = [float(mark == "+") for mark in marks]
    end = len(steps) if steps[-1] else -1
    fields = {"question": question.strip(), "metadata": {"task": _text(row, "task")}}
    return fields | {"steps": steps[:end], "labels": [*labels, None][:end]}


def _to_math_shepherd(record: StepLabels) -> Row:
    steps = (f"Step {number}: {step} {_TAG}" for number, step in enumerate(record.steps, start=1))
    text = f"{render_question(record.prompt, 'plain')} " + "\n".join(steps)
    marks = iter(["+" if label else "-" for label in record.labels])
    label = re.sub(_TAG, lambda _: next(marks, "-"), text)
    return {"input": text, "label": label, "task": record.prompt.task}


def _from_visualprm(row: Row) -> Row:
    turns = row["conversations"]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("field 'conversations' must be a list of turns")
    turns = [turn for turn in turns if turn.get("from") != "system"]
    steps, marks = ([_text(turn, "value") for turn in turns[start::2]] for start in (0, 1))
    speakers = [turn.get("from") for turn in turns]
    if not marks or speakers != ["human", "gpt"] * len(marks) or not set(marks) <= {"+", "-"}:
        raise ValueError("human turns with a step and gpt turns, + or -, must alternate after the system's")
    question, found, steps[0] = _IMAGE.sub("", steps[0]).removeprefix(_QUESTION).partition(_SOLUTION)
    if not found:
        raise ValueError(f"the first human turn has no {_SOLUTION.strip()!r} between question and step")
    return {"question": question, "steps": steps, "labels": [float(mark == "+") for mark in marks]}


def _to_visualprm(record: StepLabels) -> Row:
    images, turns = list(record.prompt.images), [("system", _SYSTEM)]
    opening = f"{_QUESTION}{render_question(record.prompt, 'plain')}{_SOLUTION}"
    for step, label in zip((opening + record.steps[0], *record.steps[1:]), record.labels, strict=True):
        turns += [("human", step), ("gpt", "+" if label else "-")]
    said = [{"from": speaker, "value": value} for speaker, value in turns]
    return {"id": record.prompt.id, "image": images[0] if len(images) == 1 else images, "conversations": said}


def _from_visualprm_raw(row: Row) -> Row:
    steps = row["steps_with_score"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ValueError("field 'steps_with_score' must be a list of objects with step and score")
    return {
        "question": _text(row, "question_orig" if row.get("question_orig") else "question"),
        "steps": [_text(step, "step") for step in steps],
        "labels": [step.get("score") for step in steps],
    }


def _from_math_shepherd_value(row: Row) -> Row:
    text, marks = _text(row, "input"), row["value"]
    if not isinstance(marks, list) or text.count(_TAG) != len(marks):
        raise ValueError(f"field 'value' must be a list of + and -, one for each {_TAG!r} in 'input'")
    rest = iter(marks)
    label = re.sub(_TAG, lambda _: str(next(rest)), text)
    return _from_math_shepherd({"input": text, "label": label, "task": row.get("task") or "all"})


# Keys of a row, its way to a row of our own.
_READERS: dict[StepFormat, tuple[tuple[str, ...], Callable[[Row], Row]]] = {
    "mstar": (("id", "images", "question", "answer", "steps", "labels"), dict),
    "stepwise": (("prompt", "completions", "labels"), _from_stepwise),
    "math_shepherd": (("input", "label", "task"), _from_math_shepherd),
    "visualprm": (("image", "conversations"), _from_visualprm),
    "visualprm_raw": (("question", "steps_with_score"), _from_visualprm_raw),
    "math_shepherd_value": (("input", "value"), _from_math_shepherd_value),
}
_WRITERS: dict[WrittenFormat, Callable[[StepLabels], Row]] = {
    "mstar": StepLabels.to_json,
    "stepwise": _to_stepwise,
    "math_shepherd": _to_math_shepherd,
    "visualprm": _to_visualprm,
}
