"""From responses in steps to tokens with the places where each step ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mstar_pl.data.collate import Encoder, check_plain, collate_prompts, join_responses
from mstar_pl.data.format import STEP_SEPARATOR
from mstar_pl.data.step_labels import StepLabels


def encode_steps(encoder: Encoder, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the tokens of a response in steps, and the place of the last token of each step.

    A step ends with its separator, the last one with the token that ends the turn: there a reader knows that
    it is over. Steps are tokenised apart, so that the tokens of one do not depend on what follows.

    Args:
        encoder: LMM adapter.
        steps: S steps.

    Returns:
        R tokens and S places in them, counted from 0.
    """
    ids: list[int] = []
    ends = []
    for number, step in enumerate(steps, start=1):
        separator = STEP_SEPARATOR if number < len(steps) else ""
        tokens = encoder.encode_response(step + separator)
        ids += tokens[:-1] if separator else tokens
        ends.append(len(ids) - 1)
    return ids, ends


def collate_steps(encoder: Encoder, records: Sequence[StepLabels]) -> dict[str, Tensor]:
    """Encode labelled responses: each row is the prompt's tokens, then those of the steps, then padding.

    Returns:
        Model inputs as `collate_examples` gives them, without its labels, and for the S steps of all rows
        together `step_rows_S`, `step_places_S` (the token at which a step ends) and `step_labels_S` (NaN
        where the label is not known).

    Raises:
        InputError: A step contains a special token.
    """
    prompts = collate_prompts(encoder, [record.prompt for record in records])
    encoded = [encode_steps(encoder, record.steps) for record in records]
    for record, (ids, _) in zip(records, encoded, strict=True):
        check_plain(encoder, record.prompt, ids)
    batch, starts = join_responses(encoder, prompts, [ids for ids, _ in encoded])
    rows = [row for row, (_, ends) in enumerate(encoded) for _ in ends]
    places = [start + end for start, (_, ends) in zip(starts, encoded, strict=True) for end in ends]
    labels = [float("nan") if one is None else one for record in records for one in record.labels]
    return batch | {
        "step_rows": torch.tensor(rows),
        "step_places": torch.tensor(places),
        "step_labels": torch.tensor(labels),
    }


def step_lengths(encoder: Encoder, record: StepLabels) -> dict[str, int]:
    """Return the tokens of a labelled response with its prompt (`total`) and its known labels (`losses`)."""
    total = encoder.num_prompt_tokens(record.prompt) + len(encode_steps(encoder, record.steps)[0])
    return {"total": total, "losses": sum(label is not None for label in record.labels)}
