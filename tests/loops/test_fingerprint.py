"""What the fingerprint of rollouts takes of rewards, selections and the like."""

from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path

import pytest

from mstar_pl.loops.fingerprint import fingerprint
from mstar_pl.models import InternVL
from mstar_pl.rollouts.second_chance import SecondChance
from mstar_pl.types import InputError


class Plain:
    def __init__(self, option):
        self.option = option
        self._cache = object()


@dataclass
class Digested:
    path: str

    def __post_init__(self):
        self.weights = f"digest of {self.path}"


class Side(Enum):
    LEFT = 1
    RIGHT = 2


def len_of(group, scores):
    return ()


def other_function():
    """Stands for another function."""


class Nested(Digested):
    def __init__(self, option):
        super().__init__("same")
        self.inner = Plain(option)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (Plain(1), Plain(1), Plain(2)),
        (SecondChance(rounds=1), SecondChance(rounds=1), SecondChance(rounds=2)),
        (Digested("a"), Digested("a"), Digested("b")),
        (Nested(1), Nested(1), Nested(2)),
        (Plain(Path("a")), Plain(Path("a")), Plain(Path("b"))),
        (Plain(Side.LEFT), Plain(Side.LEFT), Plain(Side.RIGHT)),
        (Plain(len_of), Plain(len_of), Plain(other_function)),
        (len_of, len_of, other_function),
    ],
)
def test_every_public_option_counts_and_nothing_else(one, same, other):
    found = [fingerprint(InternVL(), {}, 0, [], [], part=part) for part in (one, same, other)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("option", [{1, 2}, partial(len_of, 1)])
def test_an_option_that_cannot_be_told_from_another_is_refused(option):
    with pytest.raises(InputError, match=f"an option that is a {type(option).__name__} .* cannot be told"):
        fingerprint(InternVL(), {}, 0, [], [], part=Plain(option))


def test_what_a_dataclass_works_out_counts():
    changed = Digested("a")
    changed.weights = "digest of another judge in the same folder"
    assert fingerprint(InternVL(), {}, 0, [], [], part=changed) != fingerprint(
        InternVL(), {}, 0, [], [], part=Digested("a")
    )
