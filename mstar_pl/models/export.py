"""Write a trained model as a Hugging Face folder that needs nothing of this package."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import ModelCardData
from safetensors.torch import save_file

from mstar_pl.data.cards import card
from mstar_pl.data.durable import put_back, written_whole
from mstar_pl.data.format import STEP_SEPARATOR
from mstar_pl.models.families import ADAPTER_FILE
from mstar_pl.models.gathered import Gathered
from mstar_pl.models.lmm import LMM
from mstar_pl.models.lora import TrainedModel, merged_weights, plain_model
from mstar_pl.models.process_reward import HEAD_FILE, StepReadOut

_HEADER = """# {title}

A large multimodal model in the Hugging Face layout; `AutoModelForImageTextToText.from_pretrained` and vLLM
load it {where}. `{adapter}` says which adapter and prompt format it was trained with.

{notes}
"""

_USE = """## How to use it

    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained("FOLDER")
    model = AutoModelForImageTextToText.from_pretrained("FOLDER", dtype="auto")
    picture = {"type": "image", "image": Image.open("picture.png")}
    content = [picture, {"type": "text", "text": "How many trees?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )
    print(processor.decode(model.generate(**inputs, max_new_tokens=512)[0], skip_special_tokens=True))

`vllm serve FOLDER` answers the same messages. A response is a chain of thought, its steps separated by a
blank line, ended by `# Answer` and the answer. `mstar-pl evaluate --policy FOLDER` asks as in training.
"""

_SCORING = """## How to score with it

It judges each step of a response to a question about images. Write the prompt in the chat template, then the
steps, each followed by {separator!r}, the last one by the token that ends the turn, each tokenised apart.
At the last token of each of these parts read {read_out}.
That is the probability that the right answer can still be reached.

The score of a response is the least over its steps (arXiv 2412.17451). Of responses whose answer was checked,
prefer those with high scores; as the only judge of an answer it is weak.

    from mstar_pl.models.process_reward import ProcessRewardModel

    ProcessRewardModel.load("FOLDER").score(prompt, [["step one.", "step two.", "# Answer\\n\\n6"]])
"""


def export_policy(
    lmm: LMM, model: TrainedModel, folder: str | Path, notes: str = "", *, writes: bool = True
) -> Path:
    """Write a policy: weights (low-rank updates merged), configuration, processor, adapter file and card.

    Args:
        lmm: Adapter of the model.
        model: The model, with or without low-rank updates.
        folder: Where it goes; an existing folder is replaced when the new one is whole.
        notes: Markdown for the model card: base, data, recipe.
        writes: False in processes that only help to put weights together which are spread over them.

    Returns:
        The folder.
    """
    text = _card(lmm, "Policy trained with mstar_pl", notes, _USE, "self-evolving-training")
    return _export(lmm, model, Path(folder), text, writes)


def export_process_reward(
    lmm: LMM,
    model: TrainedModel,
    read_out: StepReadOut,
    folder: str | Path,
    notes: str = "",
    *,
    writes: bool = True,
) -> Path:
    """Write a process reward model like a policy, with its read-out and a card on how to score with it.

    Args:
        lmm: Adapter of the model.
        model: The model, with or without low-rank updates.
        read_out: Its read-out; a scalar head goes into a file of its own.
        folder: Where it goes; an existing folder is replaced when the new one is whole.
        notes: Markdown for the model card.
        writes: See `export_policy`.

    Returns:
        The folder.
    """
    options = read_out.options
    reading = (
        f"`sigmoid(head(h))` of the last hidden state h, with the linear head in `{HEAD_FILE}`"
        if read_out.head is not None
        else "the next-token logits: `sigmoid(logit({positive!r}) - logit({negative!r}))`".format(**options)
    )
    scoring = _SCORING.format(separator=STEP_SEPARATOR, read_out=reading)
    text = _card(lmm, "Process reward model trained with mstar_pl", notes, scoring, "process-reward-model")
    return _export(lmm, model, Path(folder), text, writes, read_out)


def _card(lmm: LMM, title: str, notes: str, use: str, tag: str) -> str:
    front_matter = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["mstar", tag, "multimodal", "arxiv:2412.17451"],
    )
    where = (
        "where `mstar_pl` is installed, Transformers after `import mstar_pl.models`"
        if lmm.ported
        else "without further code"
    )
    header = _HEADER.format(title=title, where=where, adapter=ADAPTER_FILE, notes=notes)
    return card(front_matter, f"{header}\n{use}")


def _export(
    lmm: LMM,
    model: TrainedModel,
    folder: Path,
    text: str,
    writes: bool,
    read_out: StepReadOut | None = None,
) -> Path:
    """Write all of a model; a half-written export is never taken for a whole one."""
    plain = plain_model(model)
    with merged_weights(model) as weights:
        state = {name: weight.cpu() for name, weight in Gathered(weights).items() if writes}
        own = read_out.head.state_dict() if read_out is not None and read_out.head is not None else {}
        head = {name: weight.cpu() for name, weight in Gathered(own).items()}
        if not writes:
            return folder
        for name, other in plain.all_tied_weights_keys.items():
            state[name] = state[other]  # spread over processes, they are put together one by one
        put_back(folder)
        with written_whole(folder) as temporary:
            plain.save_pretrained(temporary, state_dict=state)
            if head:
                save_file(head, temporary / HEAD_FILE)
            lmm.save_processor(temporary)
            adapter = {
                "class_path": f"{type(lmm).__module__}.{type(lmm).__qualname__}",
                "init_args": lmm.options,
            }
            if read_out is not None:
                adapter["process_reward"] = read_out.options
            (temporary / ADAPTER_FILE).write_text(json.dumps(adapter, indent=2) + "\n")
            (temporary / "README.md").write_text(text, encoding="utf-8")
    return folder
