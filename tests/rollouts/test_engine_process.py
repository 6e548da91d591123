"""An engine in a process of its own: the same answers, its death, and the trainer's."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
from functools import partial
from itertools import islice

import psutil
import pytest
import torch
from safetensors.torch import load_file

from mstar_pl.data.store import RolloutStore
from mstar_pl.distributed import Processes
from mstar_pl.models import adapter_for
from mstar_pl.rollouts import placement
from mstar_pl.rollouts.engine import EngineError
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.types import InputError, SamplingConfig
from tests.engines import assert_faults_are_found, fill, running
from tests.loops.evolving import evolve, write_files
from tests.processes import ended, start

GREEDY = SamplingConfig(max_tokens=12)
DRAWN = SamplingConfig(num_samples=4, temperature=1.0, max_tokens=12, seed=3)
OPTIONS = {"max_model_len": 256, "max_num_seqs": 64}


def core():
    """The process of the engine that runs."""
    [process] = [one for one in multiprocessing.active_children() if "EngineCore" in one.name]
    return process


@pytest.fixture(scope="module")
def trainer():
    """A process that an engine takes for its trainer; it can be killed."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def runs(tmp_path_factory, trainer):
    """Two runs, with the engine in this process, and in one that is killed; and the engines of the second.

    The engine that takes the place of the killed one has two workers.
    """
    from mstar_pl.rollouts.vllm_engine import VLLMEngine

    root = tmp_path_factory.mktemp("runs")
    files = write_files(root, 48, 8)
    started, submissions = [], []

    class Killed(VLLMEngine):
        def submit(self, requests, progress=""):
            submissions.append(self)
            if len(submissions) == 4:  # the second shard of the iteration
                os.kill(core().pid, signal.SIGKILL)
            return super().submit(requests, progress)

    def here(lmm):
        started.append(VLLMEngine(lmm, **OPTIONS))
        return started[-1]

    def apart(lmm):
        started.append(Killed(lmm, **OPTIONS, own_process=True, tensor_parallel_size=2 if started else 1))
        return started[-1]

    def surroundings(own_process, processes):
        return placement_of(own_process, processes) | {placement.TRAINER: str(trainer.pid)}

    evolve(root / "here", files, here, trainer={"max_epochs": 1})
    started.pop().close()
    placement_of = placement.surroundings
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "surroundings", surroundings)
        patch.setattr(placement, "files", partial(placement.files, size=100_000))
        patch.setitem(os.environ, "RANK", "7")
        evolve(root / "apart", files, apart, trainer={"max_epochs": 1})
    yield root, started
    started[-1].close()


@pytest.mark.engine
@pytest.mark.processes
def test_a_run_does_not_change_with_the_process_of_the_engine_nor_with_its_death(runs):
    root, started = runs
    assert len(started) == 2, "one restart"
    for name, iteration, number in (("rollouts", 0, 48), ("validation", 0, 8), ("validation", 1, 8)):
        here, apart = (list(RolloutStore(root / run / name).groups(iteration)) for run in ("here", "apart"))
        assert here == apart
        assert sum(len(one.group.rollouts) for one in here) == number


@pytest.mark.engine
@pytest.mark.processes
def test_weights_that_do_not_arrive_whole_are_found_and_the_next_ones_arrive(runs, prompts, monkeypatch):
    engine = runs[1][-1]
    lmm, model = engine.lmm, engine.lmm.load_model()
    weights = model.state_dict()
    files = placement.files
    monkeypatch.setattr(placement, "files", partial(files, size=100_000))
    for part in (".q_proj.", "vis"):
        assert_faults_are_found(engine, weights, part, prompts)
    engine.load_policy(weights.items(), version=1)
    assert check_parity(engine, lmm, model, prompts) < 1e-3
    before = engine.generate(prompts, DRAWN)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    engine.load_policy(model.state_dict().items(), version=2)
    assert check_parity(engine, lmm, model, prompts) < 1e-3
    assert [one.rollouts for one in engine.generate(prompts, DRAWN)] != [one.rollouts for one in before]


@pytest.mark.engine
@pytest.mark.processes
def test_the_engine_ends_with_its_trainer_and_that_is_an_engine_error_in_each_verb(runs, prompts, trainer):
    engine = runs[1][-1]
    weights = engine.lmm.load_model().state_dict()
    workers = psutil.Process(core().pid).children()
    assert len(workers) >= 2

    def dying():
        yield from islice(weights.items(), 3)
        trainer.kill()
        core().join(20)
        yield from islice(weights.items(), 3, None)

    with pytest.raises(EngineError):
        engine.load_policy(dying(), version=1)
    assert not psutil.wait_procs(workers, 20)[1], "workers are left"
    with pytest.raises(EngineError):
        engine.load_policy(weights.items(), version=1)
    with pytest.raises(RuntimeError, match="load_policy before generate"):
        engine.generate(prompts, GREEDY)
    engine.close()


MEMBER = """
import json
import sys

import torch.distributed as dist

from mstar_pl.models import adapter_for
from mstar_pl.rollouts.parity import check_parity
from mstar_pl.rollouts.placement import training_processes
from mstar_pl.rollouts.vllm_engine import VLLMEngine
from mstar_pl.types import Prompt
from tests.engines import fill

folder, prompts, root = json.load(open(sys.argv[1]))
dist.init_process_group("gloo")
lmm = adapter_for(folder, question_style="plain")
engine = VLLMEngine(lmm, max_model_len=256, max_num_seqs=64, tensor_parallel_size=2)
model = lmm.load_model()
weights = model.state_dict()
for part in (".q_proj.", "embed_tokens"):
    name = next(name for name in weights if part in name)
    try:
        engine.load_policy([item for item in weights.items() if item[0] != name], version=1)
    except RuntimeError as error:
        assert "did not reach the engine whole" in str(error), error
    else:
        raise AssertionError(f"{name} is missing")
engine.load_policy(weights.items(), version=1)
prompts = [Prompt.from_json(row) for row in prompts]
assert check_parity(engine, lmm, model, prompts) < 1e-3
fill(root, engine, prompts, training_processes())
"""


@pytest.mark.engine
@pytest.mark.processes
def test_two_training_processes_hold_an_engine_together(internvl_folder, prompts, tmp_path):
    """They are given what one would be given, say the same of missing weights, and write once."""
    script, given, log = (tmp_path / name for name in ("member.py", "given.json", "log.txt"))
    script.write_text(MEMBER)
    given.write_text(json.dumps([internvl_folder, [one.to_json() for one in prompts], str(tmp_path / "two")]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    members = [start([str(script), str(given)], log, RANK=str(rank), **place) for rank in range(2)]
    assert [ended(member, log) for member in members] == [0, 0], log.read_text()[-3000:]
    with running(adapter_for(internvl_folder, question_style="plain")) as engine:
        expected = fill(tmp_path / "one", engine, prompts)
    store = RolloutStore(tmp_path / "two")
    assert list(store.groups(0)) == expected
    assert [path.name for path in sorted(store.folder(0).glob("*.parquet"))] == [
        "rank-0-00000.parquet",
        "rank-0-00001.parquet",
    ]


def test_weights_pass_in_files_that_leave_nothing_behind():
    weights = {f"w{number}": torch.full((10, 10), float(number)) for number in range(5)}
    weights["tied"] = weights["w0"]
    open_before = len(os.listdir("/proc/self/fd"))
    found, number = {}, 0
    for path in placement.files(weights.items(), size=1000):
        found |= load_file(path)
        number += 1
    assert number == 3, "two weights of 400 bytes each"
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    for _ in placement.files(weights.items()):
        break
    assert len(os.listdir("/proc/self/fd")) == open_before


class Gathered(Processes):
    """Processes on the given hosts."""

    def __init__(self, *hosts):
        super().__init__(0, len(hosts))
        self.hosts = hosts

    def gather(self, value):
        return list(self.hosts)


@pytest.mark.parametrize(
    ("size", "own_process", "hosts", "said"),
    [
        (2, False, "a", r"needs several training processes .* or own_process: true"),
        (2, False, "aab", "3 training processes do not divide into groups of tensor_parallel_size 2"),
        (4, False, "aabb", "groups of 4 processes would span machines"),
        (2, True, "aa", "needs a single training process, not 2; leave own_process out"),
    ],
)
def test_groups_that_cannot_be_are_refused(size, own_process, hosts, said):
    with pytest.raises(InputError, match=said):
        placement.check_groups(size, own_process, Gathered(*hosts))


@pytest.mark.parametrize(
    ("size", "own_process", "hosts"), [(2, False, "aabb"), (2, True, "a"), (1, True, "ab")]
)
def test_groups_that_can_be(size, own_process, hosts):
    placement.check_groups(size, own_process, Gathered(*hosts))
