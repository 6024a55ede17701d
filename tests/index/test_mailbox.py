"""The mailbox: what a turn gets, in which order, and that there are never two turns at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from vecd.errors import VecError
from vecd.index.mailbox import Mailbox
from vecd.index.requests import Search, SearchOptions, Write


class Scheduled(Executor):
    """A pool that runs nothing: the tests see what was submitted."""

    def __init__(self) -> None:
        self.submitted: deque[Callable[..., Any]] = deque()
        self.is_shut_down = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.is_shut_down:
            raise RuntimeError("shut down")
        self.submitted.append(fn)
        return Future()


class Box:
    """A mailbox over such a pool."""

    def __init__(self) -> None:
        self.pool = Scheduled()
        self.ready = True
        self.shut = 0
        self.box = Mailbox(self.pool, lambda: None, lambda: self.ready, self.count_shut)

    def count_shut(self) -> None:
        self.shut += 1


def search() -> Search:
    return Search(np.zeros(2, np.float32), None, None, SearchOptions(1))


def write(seq: int) -> Write:
    return Write(seq, np.array([seq]), np.zeros((1, 2), np.float32), [])


def test_a_turn_gets_all_writes_and_calls_in_order_and_a_bounded_number_of_searches() -> None:
    made = Box()
    searches = [search() for _ in range(3)]
    made.box.post_search(searches[0])
    made.box.post_write(write(1))
    called = made.box.call(lambda: 5)
    made.box.post_write(write(2))
    for each in searches[1:]:
        made.box.post_search(each)
    assert len(made.pool.submitted) == 1
    turn = made.box.take(2)
    assert turn is not None
    assert [each.seq for each in turn.writes] == [1, 2]
    assert turn.searches == searches[:2]
    turn.calls[0].run()
    assert called.result(0) == 5
    made.box.release(again=False)
    assert len(made.pool.submitted) == 2  # a search is left
    turn = made.box.take(2)
    assert turn is not None
    assert turn.searches == searches[2:]
    made.box.release(again=False)
    assert len(made.pool.submitted) == 2


def test_nothing_is_taken_before_it_is_ready_and_nothing_is_lost() -> None:
    made = Box()
    made.ready = False
    made.box.post_write(write(1))
    assert made.box.take(8) is None
    made.ready = True
    made.box.wake()
    assert len(made.pool.submitted) == 2
    turn = made.box.take(8)
    assert turn is not None
    assert len(turn.writes) == 1


def test_only_one_thread_has_the_turn() -> None:
    made = Box()
    made.box.post_search(search(), wake=False)
    assert made.pool.submitted == deque()
    assert made.box.claim()
    assert not made.box.claim()
    made.box.post_write(write(1))
    assert made.pool.submitted == deque()
    assert made.box.take(8) is not None
    made.box.release(again=True)
    assert len(made.pool.submitted) == 1
    assert not made.box.claim()


def test_after_a_failure_all_that_wait_are_returned_and_all_later_posts_fail() -> None:
    made = Box()
    waiting, called = search(), made.box.call(lambda: None)
    made.box.post_search(waiting)
    failure = VecError("index_failed", "gone")
    assert made.box.fail(failure) == [called, waiting.future]
    late = search()
    made.box.post_search(late)
    assert late.future.exception(0) is failure
    assert made.box.call(lambda: None).exception(0) is failure
    assert not made.box.claim()


def test_a_call_that_raises_fails_its_own_future_only() -> None:
    made = Box()
    first, second = made.box.call(lambda: 1 // 0), made.box.call(lambda: 2)
    turn = made.box.take(8)
    assert turn is not None
    for each in turn.calls:
        each.run()
    with pytest.raises(ZeroDivisionError):
        first.result(0)
    assert second.result(0) == 2


def test_a_pool_that_is_shut_down_is_reported_and_raises_nothing() -> None:
    made = Box()
    made.pool.is_shut_down = True
    made.box.post_write(write(1))
    assert made.shut == 1
