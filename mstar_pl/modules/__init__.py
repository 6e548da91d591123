"""The LightningModules."""

from mstar_pl.modules.lmm_module import LMMModule
from mstar_pl.modules.policy import PolicyModule
from mstar_pl.modules.process_reward import ProcessRewardModule

__all__ = ["LMMModule", "PolicyModule", "ProcessRewardModule"]
