"""The LightningModules: what is trained, on which loss."""

from mstar_pl.modules.policy import PolicyModule

__all__ = ["PolicyModule"]
