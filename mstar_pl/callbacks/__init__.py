"""Callbacks: one decision in one hook each."""

from mstar_pl.callbacks.checkpoint import ResumeCheckpoint
from mstar_pl.callbacks.export import PolicyExport
from mstar_pl.callbacks.responses import ResponseWriter

__all__ = ["PolicyExport", "ResponseWriter", "ResumeCheckpoint"]
