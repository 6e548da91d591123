"""`mstar-pl data`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mstar_pl.data.jsonl import read_prompts, write_jsonl
from mstar_pl.data.labelled import hide_answers
from mstar_pl.data.step_formats import StepFormat, WrittenFormat, read_steps, write_steps
from mstar_pl.types import InputError


def minivista(
    out: Path,
    pretrain: int = 0,
    train: int = 4000,
    val: int = 500,
    test: int = 1000,
    seed: int = 0,
    solutions: bool = True,
) -> None:
    """Write MiniVista, generated visual questions in MathVista's five tasks, in the prompt JSONL format.

    Args:
        out: Folder; gets one JSONL file a split and the images.
        pretrain: Items of the split that the embedded LMM was made on.
        train: Training items.
        val: Validation items.
        test: Test items; no item of one split occurs in another.
        seed: Seed of the items.
        solutions: Whether items carry a worked solution as their response.
    """
    from mstar_pl.data.minivista.write import write_split

    for split, count in {"pretrain": pretrain, "train": train, "val": val, "test": test}.items():
        if count > 0:
            print(f"wrote {write_split(out, split, count, seed, solutions=solutions)} ({count} items)")


def hide(source: Path, out: Path, percent: float = 50.0, seed: int = 0) -> None:
    """Hide the answers of a random share of prompts, for training with unlabelled prompts.

    The answers move to metadata.hidden_answer, where only comparisons look.

    Args:
        source: Prompt JSONL file with answers.
        out: Prompt JSONL file to write; responses are left out.
        percent: Share of the prompts.
        seed: Seed of the choice.
    """
    prompts = hide_answers(read_prompts(source), percent, seed)
    write_jsonl(out, (prompt.to_json() for prompt in prompts))
    hidden = sum(prompt.answer is None for prompt in prompts)
    print(f"wrote {out} ({len(prompts)} prompts, the answers of {hidden} hidden)")


def steps(
    source: Path,
    out: Path,
    to: WrittenFormat = "mstar",
    source_format: StepFormat | None = None,
    image_root: Path | None = None,
) -> None:
    """Convert labelled responses from one format of process supervision to another.

    Args:
        source: JSONL file in our own format, the stepwise one, Math-Shepherd's or VisualPRM400K's.
        out: JSONL file to write.
        to: Its format.
        source_format: Format of the source; default is what its first line looks like.
        image_root: Folder to which the source's image paths are relative; default is that of the source.
    """
    records = read_steps(source, source_format, image_root)
    print(f"wrote {write_steps(out, records, to)} from {len(records)} responses")


def check(
    source: Path,
    policy: str | None = None,
    max_length: int = 4096,
    images_within: str | None = None,
    out: Path | None = None,
    lmm: dict[str, Any] | None = None,
) -> None:
    """List every faulty line of a file of prompts, examples or labelled steps, before the expensive part.

    Which of the three it is, the first row tells. Checked are encoding, fields, ids, and each image, by
    decoding it; with a policy also special tokens in the texts, and lengths. The exit code is 2 if there is
    a fault.

    Args:
        source: JSONL file of prompts, with or without responses, or of labelled steps in any known format.
        policy: Hugging Face folder of the model that will read it, or 'embedded'.
        max_length: Most tokens of prompt and response.
        images_within: Folder in which all images must lie; default allows any path.
        out: JSONL file to write the lines without fault to, with absolute image paths.
        lmm: Options of the LMM adapter as JSON; default is what the policy's export recorded.
    """
    from mstar_pl.data.check import check_file

    adapter = None
    if policy is not None:
        from mstar_pl.models import adapter_for

        adapter = adapter_for(policy, **(lmm or {}))
    count = Counter[str]()

    def good() -> Iterator[dict[str, Any]]:
        for _, record in check_file(source, adapter, max_length, images_within):
            if isinstance(record, InputError):
                count["faulty"] += 1
                print(record)
            else:
                count["good"] += 1
                yield record.to_json()

    if out is None:
        deque(good(), maxlen=0)
    else:
        write_jsonl(out, good())
        print(f"wrote {out} ({count['good']} rows)")
    if count["faulty"]:
        raise InputError(f"{source}: {count['faulty']} of {count.total()} rows are faulty")
    print(f"{source}: {count.total()} rows, no fault")
