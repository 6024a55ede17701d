"""LiveIndex: a search sees every write left before it, whatever else is going on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
import pytest

from vecd.errors import VecError
from vecd.index.live import LiveIndex, Loaded, Write, make_pool


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    made = make_pool(2)
    yield made
    made.shutdown()


@contextlib.contextmanager
def nothing() -> Iterator[Loaded]:
    yield 0, iter(())


def vector(number: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array([number, 1.0], np.float32)


def write(seq: int, *numbers: int, removed: tuple[int, ...] = ()) -> Write:
    rows = np.array([vector(number) for number in numbers], np.float32).reshape(len(numbers), 2)
    return Write(seq, np.array(numbers, np.int64), rows, list(removed))


def labels(live: LiveIndex, k: int = 1_000) -> set[int]:
    return set(live.search(vector(0), k).result(30)[1].tolist())


def test_a_search_sees_every_write_that_was_left_before_it(pool: Executor) -> None:
    live = LiveIndex(2, "l2", pool, nothing, lambda _: None)
    for number in range(1, 300):
        removed = (number - 2,) if number > 2 else ()
        live.write(write(number, number, removed=removed))
        assert labels(live) == {number, number - 1} - {0}


def test_writes_that_the_load_saw_already_are_passed_over_and_later_ones_are_not(pool: Executor) -> None:
    loading, go_on = threading.Event(), threading.Event()

    @contextlib.contextmanager
    def slow() -> Iterator[Loaded]:
        loading.set()
        assert go_on.wait(30)
        yield 7, iter([(np.array([1, 2], np.int64), np.array([vector(1), vector(2)]).tobytes())])

    live = LiveIndex(2, "l2", pool, slow, lambda _: None)
    live.write(write(6, 2))  # in what is loaded
    live.write(write(7, removed=(9,)))  # the same
    found = live.search(vector(0), 10)
    assert loading.wait(30)
    assert live.describe()["state"] == "loading"
    live.write(write(8, 3, removed=(1,)))
    go_on.set()
    found.result(30)
    assert labels(live) == {2, 3}
    assert live.describe() == {"state": "ready", "vectors": 2, "dead": 1, "memory_bytes": 3 * (8 + 13)} or (
        live.describe()["dead"] == 0  # packed meanwhile
    )


def test_searches_from_many_threads_are_each_answered_with_their_own_k(pool: Executor) -> None:
    live = LiveIndex(2, "l2", pool, nothing, lambda _: None)
    live.write(write(1, *range(1, 101)))
    answers: dict[int, list[int]] = {}

    def ask(k: int) -> None:
        answers[k] = live.search(vector(50), k).result(30)[1].tolist()

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(1, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k, found in answers.items():
        assert len(found) == k
        assert found[0] == 50
        assert [abs(n - 50) for n in found] == sorted(abs(n - 50) for n in range(1, 101))[:k]


def test_a_load_that_fails_is_told_to_everybody_who_waits_and_discards_the_index(pool: Executor) -> None:
    @contextlib.contextmanager
    def broken() -> Iterator[Loaded]:
        raise ValueError("a page of vectors is too short")
        yield 0, iter(())

    discarded: list[LiveIndex] = []
    live = LiveIndex(2, "l2", pool, broken, discarded.append)
    with pytest.raises(VecError, match="too short") as failure:
        live.search(vector(0), 1).result(30)
    assert failure.value.code == "index_failed"
    assert discarded == [live]
    with pytest.raises(VecError, match="too short"):
        live.search(vector(0), 1).result(30)
