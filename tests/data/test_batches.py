"""The plan of an epoch, and the loader that resumes in it."""

import random

import pytest
import torch

from mstar_pl.data.batches import BatchPlan, ResumableLoader, plan_epoch
from mstar_pl.types import InputError

RNG = random.Random(0)
LENGTHS = [RNG.randint(10, 500) for _ in range(203)]
RESPONSES = [length // 3 for length in LENGTHS]


@pytest.mark.parametrize("num_processes", [1, 2, 4])
@pytest.mark.parametrize("micro", [1, 2, 4])
@pytest.mark.parametrize("bucket_steps", [1, 4])
def test_every_example_once_over_all_processes(num_processes, micro, bucket_steps):
    plan = BatchPlan(
        batch_size=16, micro_batch_size=micro, num_processes=num_processes, bucket_steps=bucket_steps
    )
    ranks = [plan_epoch(plan, LENGTHS, RESPONSES, 0, 0, rank) for rank in range(num_processes)]
    assert len({len(batches) for batches in ranks}) == 1, "all processes take the same number of steps"
    taken = [index for batches in ranks for batch in batches for index in batch.indices]
    assert set(taken) == set(range(203))
    assert len(taken) - 203 < num_processes, "repeats only so that each process has a last micro-batch"
    assert all(0 < len(batch.indices) <= micro for batches in ranks for batch in batches)
    size = plan.accumulation
    for start in range(0, len(ranks[0]), size):
        step = [batch for batches in ranks for batch in batches[start : start + size]]
        tokens = sum(RESPONSES[index] for batch in step for index in batch.indices)
        assert {batch.num_step_losses for batch in step} == {tokens}


def test_fewer_examples_than_processes_at_the_end_repeat():
    plan = BatchPlan(batch_size=4, micro_batch_size=1, num_processes=4)
    ranks = [plan_epoch(plan, [5] * 5, [1] * 5, 0, 0, rank) for rank in range(4)]
    assert [len(batches) for batches in ranks] == [2, 2, 2, 2]
    assert {batches[1].indices for batches in ranks} == {ranks[0][1].indices}
    assert ranks[0][1].num_step_losses == 4


def test_order_is_a_function_of_seed_and_epoch():
    plan = BatchPlan(batch_size=16, micro_batch_size=4)
    assert plan_epoch(plan, LENGTHS, RESPONSES, 0, 0) == plan_epoch(plan, LENGTHS, RESPONSES, 0, 0)
    assert plan_epoch(plan, LENGTHS, RESPONSES, 0, 0) != plan_epoch(plan, LENGTHS, RESPONSES, 0, 1)
    assert plan_epoch(plan, LENGTHS, RESPONSES, 0, 0) != plan_epoch(plan, LENGTHS, RESPONSES, 1, 0)


def test_bucketing_pads_less():
    def padded(bucket_steps):
        plan = BatchPlan(batch_size=16, micro_batch_size=16, bucket_steps=bucket_steps)
        batches = plan_epoch(plan, LENGTHS, RESPONSES, 0, 0)
        return sum(max(LENGTHS[i] for i in b.indices) * len(b.indices) for b in batches)

    assert padded(8) < 0.75 * padded(1)


@pytest.mark.parametrize("sizes", [(10, 4, 1), (16, 16, 2), (0, 1, 1), (4, 0, 1)])
def test_sizes_that_do_not_divide_are_refused(sizes):
    with pytest.raises(ValueError, match="batch_size"):
        BatchPlan(batch_size=sizes[0], micro_batch_size=sizes[1], num_processes=sizes[2])


class Numbers:
    def __len__(self):
        return len(LENGTHS)

    def __getitems__(self, batch):
        return batch


def loader(epoch=lambda: 0, workers=0):
    plan = BatchPlan(batch_size=16, micro_batch_size=4)
    return ResumableLoader(
        Numbers(),
        lambda number: plan_epoch(plan, LENGTHS, RESPONSES, 0, number),
        lambda batch: {"indices": torch.tensor(batch.indices)},
        epoch=epoch,
        num_workers=workers,
    )


def rows(iterable):
    return [batch["indices"].tolist() for batch in iterable]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_continues_inside_an_epoch_and_then_goes_on_as_usual(workers):
    epoch = [0]
    whole = loader(lambda: epoch[0])
    first = rows(whole)
    epoch[0] = 1
    second = rows(whole)
    assert first != second
    iterator = iter(stopped := loader(lambda: 0, workers))
    taken = rows([next(iterator) for _ in range(8)])
    assert stopped.state_dict() == {"steps": 2, "examples": 203}
    epoch[0] = 0
    resumed = loader(lambda: epoch[0], workers)
    resumed.load_state_dict({"steps": 2})
    assert len(resumed) == len(first), "Lightning counts the whole epoch"
    assert taken + rows(resumed) == first
    epoch[0] = 1
    assert rows(resumed) == second


def test_an_epoch_is_not_continued_with_other_examples():
    with pytest.raises(InputError, match="inside an epoch of 204 examples, now there are 203; restore"):
        loader().load_state_dict({"steps": 2, "examples": 204})
    loader().load_state_dict({"steps": 0, "examples": 204})


def test_state_of_a_finished_epoch_skips_nothing():
    finished = loader()
    rows(finished)
    again = loader()
    again.load_state_dict(finished.state_dict())
    assert rows(again) == rows(loader())


def test_a_loader_draws_nothing_from_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rows(loader())
    assert torch.equal(torch.get_rng_state(), before)
