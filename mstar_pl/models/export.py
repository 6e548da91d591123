"""Write a trained policy as a Hugging Face folder that needs nothing of this package."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import cast

from peft import PeftModel
from transformers import PreTrainedModel

from mstar_pl.models.families import ADAPTER_FILE
from mstar_pl.models.lmm import LMM
from mstar_pl.models.lora import merged_weights

CARD = """---
library_name: transformers
pipeline_tag: image-text-to-text
---
# Policy trained with mstar_pl

A large multimodal model in the Hugging Face layout; `AutoModelForImageTextToText.from_pretrained` and vLLM
load it without further code. `{adapter}` says which adapter and prompt format it was trained with.

{notes}
"""


def export_policy(lmm: LMM, model: PreTrainedModel | PeftModel, folder: str | Path, notes: str = "") -> Path:
    """Write weights (low-rank updates merged), configuration, processor, adapter file and card.

    The folder is written under a temporary name and renamed, so that a half-written export is never taken for
    a whole one; an existing folder is replaced only then.

    Args:
        lmm: Adapter of the model.
        model: The model, with or without low-rank updates.
        folder: Where the policy goes.
        notes: Markdown for the model card: base, data, recipe.

    Returns:
        The folder.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    plain = cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model
    with merged_weights(model) as state:
        plain.save_pretrained(temporary, state_dict=state)
    lmm.processor.save_pretrained(temporary)
    adapter = {"class_path": f"{type(lmm).__module__}.{type(lmm).__qualname__}", "init_args": lmm.options}
    (temporary / ADAPTER_FILE).write_text(json.dumps(adapter, indent=2) + "\n")
    (temporary / "README.md").write_text(CARD.format(adapter=ADAPTER_FILE, notes=notes))
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder
