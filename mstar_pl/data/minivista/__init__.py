"""MiniVista: endless small pictures with questions in the five tasks of MathVista and checkable solutions."""

from mstar_pl.data.minivista.generator import SPLITS, TASKS, MiniVista
from mstar_pl.data.minivista.record import Facts, Item
from mstar_pl.data.minivista.steps import check_steps
from mstar_pl.data.minivista.write import write_split

__all__ = ["SPLITS", "TASKS", "Facts", "Item", "MiniVista", "check_steps", "write_split"]
