"""What the checks look at: a module after a training step, and questions about drawn pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Trainer
from PIL import Image, ImageDraw
from torch import Tensor

from mstar_pl.data.collate import collate_prompts
from mstar_pl.data.datamodule import PolicyDataModule
from mstar_pl.data.jsonl import write_jsonl
from mstar_pl.models import LMM
from mstar_pl.models.lora import TrainedModel
from mstar_pl.modules import PolicyModule
from mstar_pl.rollouts.parity import response_logits, shortfalls
from mstar_pl.types import Example, Prompt

if TYPE_CHECKING:
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

SIZES = ((96, 96), (131, 77), (60, 200), (250, 90), (97, 96), (180, 60))
"""Width and height of the drawn pictures: squares, wide and tall ones, multiples of no patch."""

RESPONSES = ("4", "The answer is 4.\n\n# Answer\n\n4", "Red 2, blue 2.\n\nAdd: 2 + 2 = 4.\n\n# Answer\n\n4")


class Subject:
    """A module whose adapter is checked. Checks train it for a step first, and change its weights last.

    Args:
        module: The module, not configured yet.
        folder: Where pictures and exports are written.
        start_engine: Starts the engine for the adapter; None leaves out the checks that need one.
        max_tokens: Most tokens of a sampled response.
    """

    def __init__(
        self,
        module: PolicyModule,
        folder: Path,
        start_engine: Callable[[LMM], VLLMEngine] | None,
        max_tokens: int = 16,
    ) -> None:
        self.module = module
        self.lmm = module.lmm
        self.folder = folder
        self.start_engine = start_engine
        self.max_tokens = max_tokens
        self.examples = draw_examples(folder, self.lmm.max_images)
        self.prompts = [example.prompt for example in self.examples]

    @property
    def model(self) -> TrainedModel:
        """The training model."""
        return self.module.model

    @cached_property
    def engine(self) -> VLLMEngine:
        """The engine; it has the training model's weights after `sync`."""
        assert self.start_engine is not None
        return self.start_engine(self.lmm)

    def train(self) -> None:
        """Take an optimizer step through the Trainer, as `fit` does."""
        rows = write_jsonl(self.folder / "train.jsonl", (example.to_json() for example in self.examples))
        trainer = Trainer(
            default_root_dir=self.folder,
            devices=1,
            precision="32-true",
            max_epochs=1,
            accumulate_grad_batches=len(self.examples),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(
            self.module, PolicyDataModule(str(rows), batch_size=len(self.examples), micro_batch_size=1)
        )
        self.module.eval()
        # The Trainer gives it back to the CPU.
        self.module.to("cuda" if torch.cuda.is_available() else "cpu")

    def close(self) -> None:
        """Shut the engine down, if one was started."""
        if "engine" in vars(self):
            self.engine.close()

    def sync(self) -> None:
        """Give the engine the training model's weights, or, if it takes these, low-rank updates alone."""
        with self.module.policy_weights(self.engine.takes_updates) as weights:
            self.engine.load_policy(weights.items(), version=1)

    def compare(self) -> tuple[float, float]:
        """Let the engine answer all prompts greedily, and compare with the training model.

        Returns:
            The largest difference in the log-probability of a token, and the largest shortfall of a token
            behind the one that the training model prefers, both in nats.
        """
        differences, gaps = [], []
        for group, engine_R in self.engine.log_probabilities(self.prompts, self.max_tokens):
            inputs = collate_prompts(self.lmm, [group.prompt])
            response_R, logits_RV = response_logits(self.lmm, self.model, group, inputs)
            model_R = logits_RV.log_softmax(-1).gather(-1, response_R[:, None])[:, 0]
            differences.append(float((model_R - engine_R).abs().max()))
            gaps.append(float(shortfalls(self.lmm, response_R, logits_RV).max()))
        return largest(differences), largest(gaps)

    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a batch where the model is."""
        return {key: value.to(self.model.device) for key, value in batch.items()}


def largest(sizes: Sequence[float]) -> float:
    """Return the largest of sizes that are not negative; nan if one is.

    >>> largest([1.0, float("nan"), 2.0]), largest([])
    (nan, 0.0)
    """
    return float(torch.tensor([0.0, *sizes]).max())


def draw_examples(folder: Path, max_images: int | None) -> list[Example]:
    """Return questions with answers: about a picture of each size, about none, and about two where that goes.

    Args:
        folder: Where the pictures are written.
        max_images: Most images of a prompt that the family takes; None for any number.
    """
    pictures = []
    for number, size in enumerate(SIZES):
        picture = Image.new("RGB", size, (20 * number, 255 - 30 * number, 90))
        ImageDraw.Draw(picture).ellipse((5, 5, 15 + 4 * number, 30), fill=(255, 40 * number, 0))
        pictures.append(str(folder / f"{number}.png"))
        picture.save(pictures[-1])
    words = ["What", "is", "the", "sum", "of", "the", "bars", "and", "the", "area"]
    images = [*[(picture,) for picture in pictures], ()]
    if max_images is None or max_images > 1:
        images.append((pictures[1], pictures[0]))
    return [
        Example(
            prompt=Prompt(id=f"p{number}", question=" ".join(words[: number + 2]), images=one, answer="4"),
            response=RESPONSES[number % len(RESPONSES)],
        )
        for number, one in enumerate(images)
    ]
