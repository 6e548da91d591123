"""The parity suite: whether an LMM adapter trains and samples one and the same policy."""

from mstar_pl.parity.subject import Subject
from mstar_pl.parity.suite import CHECKS, Check, Result, check_all, report

__all__ = ["CHECKS", "Check", "Result", "Subject", "check_all", "report"]
