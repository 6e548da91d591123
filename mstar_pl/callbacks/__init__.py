"""Callbacks: one decision in one hook each."""

from mstar_pl.callbacks.checkpoint import ResumeCheckpoint
from mstar_pl.callbacks.export import BestPolicyExport, PolicyExport
from mstar_pl.callbacks.responses import ResponseWriter

__all__ = ["BestPolicyExport", "PolicyExport", "ResponseWriter", "ResumeCheckpoint"]
