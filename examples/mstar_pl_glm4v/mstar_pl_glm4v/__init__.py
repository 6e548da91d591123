"""GLM-4.1V for mstar_pl, and a policy module with a loss term of its own."""

from mstar_pl_glm4v.adapter import GLM4V
from mstar_pl_glm4v.reference import ReferencePolicyModule

__all__ = ["GLM4V", "ReferencePolicyModule"]
