"""The loop that alternates generation and training."""

from mstar_pl.loops.evolution import Evolution
from mstar_pl.loops.self_evolving import SelfEvolvingLoop, SelfEvolvingTrainer

__all__ = ["Evolution", "SelfEvolvingLoop", "SelfEvolvingTrainer"]
