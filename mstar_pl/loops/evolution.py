"""What an iteration of self-evolving training is made of: the choices in which the paper's methods differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from mstar_pl.models import LMM
from mstar_pl.models.lora import TrainedModel
from mstar_pl.rewards.reward import AnswerReward, Reward, StepReward
from mstar_pl.rewards.selection import AllCorrect, Selection
from mstar_pl.rollouts.engine import RolloutEngine
from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.types import InputError, SamplingConfig


@runtime_checkable
class Policy(Protocol):
    """What the loop needs of the LightningModule that it evolves; `mstar_pl.modules.PolicyModule` has it."""

    lmm: LMM
    model: TrainedModel

    def policy_weights(self, updates: bool = False) -> AbstractContextManager[Mapping[str, Tensor]]:
        """Give the weights as a checkpoint of the model folder has them, or low-rank updates alone."""

    def restart_policy(self) -> None:
        """Put the initial weights back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How the dynamics are measured on the validation prompts after each iteration.

    Attributes:
        num_samples: Responses of a prompt (K), at the temperature of the iteration; 0 measures only greedy
            accuracy.
        num_prompts: Use only the first so many validation prompts for it; None uses all. Greedy accuracy
            always uses all.
        k: How many of the responses that the process reward ranks best count in Reward-Pass@k.
    """

    num_samples: int = 16
    num_prompts: int | None = None
    k: int = 2

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.num_samples and not 1 <= self.k <= self.num_samples:
            raise InputError(f"validation.k {self.k} must be from 1 to num_samples ({self.num_samples})")
        if self.num_prompts is not None and self.num_prompts < 1:
            raise InputError("validation.num_prompts must be at least 1, or null for all")


class Evolution:
    """Settings of self-evolving training (arXiv 2412.17451, section 3).

    | method                 | restart_policy | restart_optimizer | data.interval |
    |------------------------|----------------|-------------------|---------------|
    | ReST^EM                | true           | true              | 100           |
    | iterative RFT          | false          | true              | 100           |
    | continuous (the paper) | false          | false             | 100 to 6.25   |

    Args:
        engine: Where responses are sampled: a class of `mstar_pl.rollouts` that takes the LMM adapter.
        sampling: How they are sampled; the paper draws 16 responses a prompt at temperature 1.
        reward: What a response is worth.
        selection: Which responses of a prompt are trained on.
        second_chance: More samples for prompts of which nothing was selected.
        validation: How the dynamics are measured after each iteration.
        restart_policy: Train each iteration from the initial weights; samples come from the last policy.
        restart_optimizer: Start optimizer and learning-rate schedule anew in each iteration.
        shard_prompts: Prompts sampled between two writes to the rollout store.
        max_degenerate: Largest share of responses that are empty, cut off or end in a loop; above it the run
            stops before it trains. None trains on whatever was selected.
        engine_timeout: Minutes after which an engine that still works on a shard is taken to hang, and the
            process leaves with exit code 75; None waits.
        parity_tolerance: Largest difference in nats between engine and training model in the probe after the
            first weight sync; None takes 0.02 in float32 and 0.5 in bfloat16.

    Raises:
        InputError: A restart of the second chance needs step scores that the reward does not have, or a
            number is out of its range.
    """

    def __init__(
        self,
        engine: Callable[[LMM], RolloutEngine],
        sampling: SamplingConfig | None = None,
        reward: Reward | None = None,
        selection: Selection | None = None,
        second_chance: SecondChance | None = None,
        validation: Validation | None = None,
        restart_policy: bool = False,
        restart_optimizer: bool = False,
        shard_prompts: int = 256,
        max_degenerate: float | None = 0.8,
        engine_timeout: float | None = 120.0,
        parity_tolerance: float | None = None,
    ) -> None:
        self.engine = engine
        self.sampling = sampling or SamplingConfig(num_samples=16, temperature=1.0)
        self.reward: Reward = reward or AnswerReward()
        self.selection: Selection = selection or AllCorrect()
        self.second_chance = second_chance or SecondChance()
        self.validation = validation or Validation()
        self.restart_policy = restart_policy
        self.restart_optimizer = restart_optimizer
        self.shard_prompts = shard_prompts
        self.max_degenerate = max_degenerate
        self.engine_timeout = engine_timeout
        self.parity_tolerance = parity_tolerance
        if shard_prompts < 1 or (engine_timeout is not None and engine_timeout <= 0):
            raise InputError(
                "trainer.evolution: shard_prompts must be at least 1, engine_timeout above 0 or null"
            )
        if self.second_chance.restart and not isinstance(self.reward, StepReward):
            raise InputError(
                "second_chance.restart continues steps that a process reward model likes; set the reward to "
                f"mstar_pl.rewards.process.ProcessReward, not {type(self.reward).__name__}"
            )
