"""The parity suite on a tiny random model of each family with the real engine; the paper's evolve, too."""

from contextlib import nullcontext

import pytest
import torch

from mstar_pl.data.store import RolloutStore
from mstar_pl.models import adapter_for
from mstar_pl.modules import PolicyModule
from mstar_pl.parity import CHECKS, Subject, check_all
from mstar_pl.types import Score
from tests.loops.evolving import evolve, write_files
from tests.tiny import BUILDERS, ENGINE_NEEDS

pytestmark = pytest.mark.engine

PAPER = ["internvl", "internvl2", "phi3_v", "minicpmv"]
"""The families of arXiv 2412.17451."""


def start(lmm):
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    return VLLMEngine(lmm, max_model_len=1024, max_num_seqs=64, max_images=2)


@pytest.fixture(scope="module", params=list(BUILDERS))
def subject(request, tmp_path_factory):
    torch.manual_seed(0)
    folder = BUILDERS[request.param](tmp_path_factory.mktemp(request.param))
    # In which alone vLLM's kernel of linear attention computes on a CPU.
    dtype = "bfloat16" if request.param == "minicpmv4_6" else "float32"
    lmm = adapter_for(str(folder), question_style="plain", dtype=dtype)
    made = Subject(PolicyModule(lmm), tmp_path_factory.mktemp("subject"), start)
    with ENGINE_NEEDS.get(request.param, nullcontext)(folder):
        yield made
        made.close()


class Vowels:
    """A reward that random models earn now and then."""

    def __call__(self, group):
        outcomes = ("correct" if "a" in one.text else "wrong" for one in group.rollouts)
        return [Score(outcome=outcome, extraction="") for outcome in outcomes]


def test_suite(subject):
    results = list(check_all(subject))
    assert {one.name: (one.size, one.remark) for one in results if one.outcome == "failed"} == {}
    assert [one.name for one in results] == [check.name for check in CHECKS]
    gaps = {one.name for one in results if one.outcome == "known gap"}
    assert gaps == set(subject.lmm.known_gaps), "a gap that is closed is no known one"


@pytest.mark.parametrize("subject", PAPER, indirect=True)
def test_a_family_of_the_paper_evolves(subject, tmp_path):
    files = write_files(tmp_path, 8, 4)
    policy, trainer = evolve(
        tmp_path / "run",
        files,
        lambda lmm: subject.engine,
        module={"lmm": subject.lmm},
        data={"max_length": 1024, "interval": 100},
        trainer={"max_epochs": 1},
        reward=Vowels(),
        max_degenerate=None,
    )
    store = RolloutStore(tmp_path / "run/rollouts")
    assert len(list(store.groups(0))) == 8
    assert trainer.global_step == -(-len(store.examples(0)) // 4) > 0
    before = subject.lmm.load_model().state_dict()
    assert any(not torch.equal(weight, before[name]) for name, weight in policy.model.state_dict().items())
