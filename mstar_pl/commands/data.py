"""`mstar-pl data`."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.data.labelled import hide_answers
from mstar_pl.data.sources import mathv360k, mstar, published  # noqa: F401 - known by their short names
from mstar_pl.data.sources.given import Given, load_prompts, load_steps, name_of
from mstar_pl.data.step_formats import StepFormat, WrittenFormat, write_steps
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


def hide(source: Given, out: Path, percent: float = 50.0, seed: int = 0) -> None:
    """Hide the answers of a random share of prompts, for training with unlabelled prompts.

    The answers move to metadata.hidden_answer, where only comparisons look.

    Args:
        source: Prompt JSONL file with answers, another table, or a source by its class.
        out: Prompt JSONL file to write; responses are left out.
        percent: Share of the prompts.
        seed: Seed of the choice.
    """
    prompts = hide_answers(load_prompts(source), percent, seed)
    write_jsonl(out, (prompt.to_json() for prompt in prompts))
    hidden = sum(prompt.answer is None for prompt in prompts)
    print(f"wrote {out} ({len(prompts)} prompts, the answers of {hidden} hidden)")


def split(
    source: Given,
    out: Path,
    test: int = 750,
    val: int = 250,
    percent: float = 50.0,
    seed: int = 0,
) -> None:
    """Split labelled prompts as the paper splits MathV360K: labelled, unlabelled and held-out prompts.

    Writes train.jsonl (labelled), half.jsonl (the same, and the other half with its answers moved to
    metadata.hidden_answer), test.jsonl, val.jsonl, and split.json, which says what was done. Prompts of the
    same image stay together. Images are not copied.

    Args:
        source: File of labelled prompts, or a source by its class, e.g. MathV360K with --source.path FILE
            --source.images data_images.zip.
        out: New folder to write.
        test: Held-out prompts of the in-domain test.
        val: Held-out prompts for validation.
        percent: Share of the rest that keeps its answers.
        seed: Seed of the choice.
    """
    from mstar_pl.data.sources.splits import write_split

    numbers = write_split(source, out, test, val, percent, seed)["num_prompts"]
    print(f"wrote {out}: {', '.join(f'{name} {number}' for name, number in numbers.items())}")


def steps(
    source: Given,
    out: Path,
    to: WrittenFormat = "mstar",
    source_format: StepFormat | None = None,
    image_root: Path | None = None,
) -> None:
    """Convert labelled responses from one format of process supervision to another.

    Args:
        source: JSONL file or table in our own format, the stepwise one, Math-Shepherd's or VisualPRM400K's;
            or a source by its class, e.g. Prm800k with --source.path FILE.
        out: JSONL file to write.
        to: Its format.
        source_format: Format of the source; default is what its first line looks like.
        image_root: Folder to which the source's image paths are relative; default is that of the source.
    """
    records = load_steps(source, source_format, image_root)
    print(f"wrote {write_steps(out, records, to)} from {len(records)} responses")


def check(
    source: Given,
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
        source: JSONL file of prompts, with or without responses, or of labelled steps in any known format;
            another table; or a source by its class, whose options are --source.NAME.
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
        raise InputError(f"{name_of(source)}: {count['faulty']} of {count.total()} rows are faulty")
    print(f"{name_of(source)}: {count.total()} rows, no fault")
