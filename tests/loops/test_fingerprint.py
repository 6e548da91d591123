"""What the fingerprint of rollouts takes of rewards, selections and the like."""

from dataclasses import dataclass

import pytest

from mstar_pl.loops.fingerprint import fingerprint
from mstar_pl.models import InternVL
from mstar_pl.rollouts.second_chance import SecondChance


class Plain:
    def __init__(self, option):
        self.option = option
        self._cache = object()


@dataclass
class Digested:
    path: str

    def __post_init__(self):
        self.weights = f"digest of {self.path}"


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
    ],
)
def test_every_public_option_counts_and_nothing_else(one, same, other):
    found = [fingerprint(InternVL(), {}, 0, [], [], part=part) for part in (one, same, other)]
    assert found[0] == found[1] != found[2]


def test_what_a_dataclass_works_out_counts():
    changed = Digested("a")
    changed.weights = "digest of another judge in the same folder"
    assert fingerprint(InternVL(), {}, 0, [], [], part=changed) != fingerprint(
        InternVL(), {}, 0, [], [], part=Digested("a")
    )
