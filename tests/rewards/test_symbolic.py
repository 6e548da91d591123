import multiprocessing
import threading
import time

import pytest

from mstar_pl.rewards import symbolic
from mstar_pl.rewards.answer import grade
from mstar_pl.rewards.symbolic import SymbolicChecker
from mstar_pl.types import Prompt

HANGING = r"$9^{9^{9^{9}}} + \sqrt{2}$"


@pytest.fixture
def checker():
    checker = SymbolicChecker(time_limit_s=2.0)
    yield checker
    checker.close()


@pytest.mark.timeout(120)
def test_a_hanging_comparison_returns_in_time_and_the_next_one_works(checker):
    assert checker.compare(r"\sqrt{4}", "2").equal is True  # pays for the start
    start = time.monotonic()
    assert checker.compare(r"\sqrt{2}", HANGING) is None
    assert time.monotonic() - start < 2.0 + 3.0
    assert checker.compare(r"\frac{1}{2}", "0.5").equal is True


@pytest.mark.timeout(120)
def test_a_killed_child_is_replaced(checker):
    assert checker.compare("2", "3").equal is False
    checker._process.kill()
    checker._process.wait()
    assert checker.compare("2", "2").equal is True


@pytest.mark.timeout(120)
def test_threads_share_the_checker(checker):
    results = {}

    def compare(index):
        results[index] = checker.compare(
            rf"\sqrt{{{index * index}}}", str(index if index % 2 else index + 1)
        ).equal

    threads = [threading.Thread(target=compare, args=(index,)) for index in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {index: bool(index % 2) for index in range(2, 8)}


def _compare_in_child(queue):
    queue.put(symbolic.CHECKER.compare(r"\sqrt{9}", "3").equal)


@pytest.mark.timeout(120)
def test_a_forked_process_starts_its_own_child_and_leaves_the_parents_alone():
    assert symbolic.CHECKER.compare("1", "1").equal is True
    process_id = symbolic.CHECKER._process.pid
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    forked = context.Process(target=_compare_in_child, args=(queue,))
    forked.start()
    assert queue.get(timeout=60) is True
    forked.join()
    assert symbolic.CHECKER.compare("1", "2").equal is False
    assert symbolic.CHECKER._process.pid == process_id


@pytest.mark.timeout(120)
def test_a_comparison_out_of_time_is_undecided(monkeypatch):
    monkeypatch.setattr(symbolic.CHECKER, "time_limit_s", 1.0)
    graded = grade(f"# Answer\n\n{HANGING}", Prompt(id="1", question="?", answer=r"\sqrt{2}"))
    assert (graded.outcome, graded.rule) == ("undecided", "symbolic")


def test_a_child_that_cannot_start_is_an_error_and_not_a_grade(checker, monkeypatch):
    monkeypatch.setattr(symbolic.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="math-verify installed"):
        checker.compare("1", "1")
