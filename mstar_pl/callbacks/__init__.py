"""Callbacks: one decision in one hook each."""

from mstar_pl.callbacks.checkpoint import ResumeCheckpoint
from mstar_pl.callbacks.export import BestPolicyExport, PolicyExport, ProcessRewardExport
from mstar_pl.callbacks.responses import ResponseWriter
from mstar_pl.callbacks.temperature import AdaptiveTemperature

__all__ = [
    "AdaptiveTemperature",
    "BestPolicyExport",
    "PolicyExport",
    "ProcessRewardExport",
    "ResponseWriter",
    "ResumeCheckpoint",
]
