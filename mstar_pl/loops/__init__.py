"""The loop that alternates generation and training."""

from mstar_pl.loops._lightning import FSDP2Strategy
from mstar_pl.loops.evolution import Evolution, Validation
from mstar_pl.loops.self_evolving import SelfEvolvingLoop, SelfEvolvingTrainer

__all__ = ["Evolution", "FSDP2Strategy", "SelfEvolvingLoop", "SelfEvolvingTrainer", "Validation"]
