"""What is done aside while an index answers disturbs no search and loses no write, also if it fails or is given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.index_source import KINDS, WAIT_S, Driven, Gate, MemorySource, NeverCeasing, check, spec
from vecd.errors import VecError
from vecd.index import builder
from vecd.index.local.flat import Flat
from vecd.index.policy import Tuning
from vecd.index.pools import Pools, make_pools
from vecd.index.requests import Replaced, SearchOptions
from vecd.index.rows import Floats
from vecd.index.source import Rebuilt

_METRIC, _DIMENSION = "cosine", 4
_TUNING = Tuning(rows_min=64, slice_s=0.001, quiet_slice_s=0.001, quiet_s=0)
_RANDOM = np.random.default_rng(11)
_BEGINNING = _RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def always_the_same_vectors() -> None:
    _RANDOM.bit_generator.state = _BEGINNING


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = make_pools()
    yield made
    made.close()


def driven_by(pools: Pools, name: str = "hnsw float32", tuning: Tuning = _TUNING, path: Path | None = None) -> Driven:
    return Driven(MemorySource(spec(name, _METRIC, _DIMENSION), path, page_rows=50), tuning, pools)


def some(count: int) -> Floats:
    return _RANDOM.standard_normal((count, _DIMENSION), np.float32)


def check_all(driven: Driven) -> None:
    """A search for everything, one for the nearest, and an exact one."""
    for k, exact in ((10_000, False), (5, False), (5, True)):
        query = some(1)[0]
        answer = driven.search(query, k, ef=500, exact=exact)
        half = driven.live.spec.parameters.get("vectors") == "float16"
        check(answer, query, k, driven.source.vectors, _METRIC, exact=exact or k == 10_000, half=half)


# --- while it is going on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_comes_and_goes_during_a_build_is_right_during_it_and_after_it(pools: Pools, name: str) -> None:
    driven = driven_by(pools, "flat")
    first = driven.write(some(200))
    driven.settle()
    driven.source.before_page = gate = Gate()
    rebuilt = driven.live.rebuild(spec(name, _METRIC, _DIMENSION))
    gate.wait()  # the build has its picture of the store
    assert driven.live.describe()["maintenance"] == "building: requested, 0%"
    later = driven.write(some(30), first[:20])
    check_all(driven)
    driven.write(removed=[*first[150:180], *later[:10]])
    check_all(driven)
    assert not rebuilt.done()
    gate.open.set()
    report = rebuilt.result(WAIT_S)
    assert (report.spec, report.reason) == (spec(name, _METRIC, _DIMENSION), "requested")
    assert driven.source.reports[0] == report
    check_all(driven)
    described = driven.settle()
    check_all(driven)
    assert described["vectors"] == len(driven.source.vectors) == 200 + 30 - 20 - 40
    assert driven.live.spec == report.spec


def test_a_build_may_see_more_of_the_store_than_the_index_was_told_of(pools: Pools) -> None:
    driven = driven_by(pools)
    labels = driven.write(some(100))
    driven.settle()
    early = [
        driven.source.commit(some(20), labels[:10]),
        driven.source.commit(some(20), [labels[-1] + 1, labels[50]]),
        driven.source.commit(removed=[labels[60], labels[-1] + 40]),
    ]
    driven.live.rebuild().result(WAIT_S)
    for write in early:
        driven.live.write(write)
    driven.write(some(3), [labels[70]])
    check_all(driven)
    assert driven.settle()["vectors"] == len(driven.source.vectors)
    check_all(driven)


def test_rebuilds_that_are_asked_for_during_another_are_done_one_after_the_other(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(some(100))
    driven.settle()
    driven.source.reports.clear()
    driven.source.before_page = gate = Gate()
    wanted = [spec(name, _METRIC, _DIMENSION) for name in ("kdtree", "lsh", "hnsw float16")]
    futures = [driven.live.rebuild(each) for each in wanted]
    gate.wait()
    driven.write(some(10))
    assert not any(future.done() for future in futures)
    gate.open.set()
    assert [future.result(WAIT_S).spec for future in futures] == wanted
    assert [report.spec for report in driven.source.reports] == wanted
    assert driven.live.spec == wanted[-1]
    assert driven.labels() == set(driven.source.vectors)


def test_a_rebuild_begins_also_while_searches_never_cease(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(some(100))
    driven.settle()
    with NeverCeasing(driven):
        assert driven.live.rebuild().result(WAIT_S).vectors == 100


def test_a_tail_that_presses_is_drained_also_while_searches_never_cease(pools: Pools) -> None:
    driven = driven_by(pools, tuning=Tuning(rows_min=64, tail_pressing=0, slice_s=0.001))
    driven.write(some(100))
    driven.settle()
    with NeverCeasing(driven) as asked:
        driven.write(some(50))
        until(lambda: driven.live.describe()["tail"] == 0, asked)


def test_a_short_tail_waits_while_searches_come_and_is_drained_when_they_cease(pools: Pools) -> None:
    driven = driven_by(pools, tuning=Tuning(rows_min=64, tail_pressing=1_000_000))
    driven.write(some(100))
    driven.settle()
    with NeverCeasing(driven):
        driven.labels()
        driven.write(some(50))
        assert driven.labels() == set(driven.source.vectors)
        assert driven.live.describe()["tail"] == 50
    deadline = time.monotonic() + WAIT_S
    while driven.live.describe()["tail"]:
        assert time.monotonic() < deadline, "nobody has woken the strand"
    check_all(driven)


def test_who_waits_for_maintenance_does_not_wait_for_the_searches_to_cease(pools: Pools) -> None:
    driven = driven_by(pools, tuning=Tuning(rows_min=64, tail_pressing=1_000_000, pause_s=WAIT_S))
    driven.write(some(100))
    driven.settle()
    driven.labels()
    driven.write(some(50))
    driven.labels()
    assert driven.settle()["tail"] == 0


def until(met: Callable[[], bool], searches: NeverCeasing) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline, f"not after {searches.asked} searches"


# --- why and what for -----------------------------------------------------------------------------------------------


def reasons(driven: Driven) -> list[str]:
    driven.settle()
    return [report.reason for report in driven.source.reports]


@pytest.mark.parametrize("name", ["hnsw float32", "hnsw float16", "lsh", "kdtree"])
def test_a_structure_is_built_when_there_is_enough_for_one(pools: Pools, name: str) -> None:
    driven = driven_by(pools, name)
    driven.write(some(63))
    assert reasons(driven) == []
    assert driven.live.describe()["structure"] == 0
    driven.write(some(1))
    assert reasons(driven) == ["growth"]
    assert driven.live.describe()["structure"] == 64
    assert driven.source.reports[0].vectors == 64
    assert driven.source.reports[0].seconds > 0


def test_a_structure_that_grows_takes_what_comes_and_is_built_anew_when_more_comes_than_it_has(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(some(100))
    driven.settle()
    driven.write(some(99))
    assert reasons(driven) == ["growth"]
    assert driven.live.describe()["structure"] == 199
    driven.write(some(199))
    assert reasons(driven) == ["growth", "growth"]
    assert driven.live.describe()["structure"] == 398


def test_a_tree_is_built_anew_when_a_tenth_has_come(pools: Pools) -> None:
    driven = driven_by(pools, "kdtree")
    driven.write(some(1_000))
    driven.settle()
    driven.write(some(99))
    assert reasons(driven) == ["growth"]
    assert driven.live.describe()["tail"] == 99
    driven.write(some(1))
    assert reasons(driven) == ["growth", "growth"]
    assert driven.live.describe()["tail"] == 0


@pytest.mark.parametrize("name", ["hnsw float32", "hnsw float16", "lsh", "kdtree"])
def test_the_memory_of_the_dead_is_given_back_when_a_fifth_is_dead(pools: Pools, name: str) -> None:
    driven = driven_by(pools, name)
    labels = driven.write(some(1_000))
    full = driven.settle()
    driven.write(removed=labels[:200])
    described = driven.settle()
    assert reasons(driven) == ["growth"], "a fifth is not more than a fifth"
    assert (described["dead"], described["structure"]) == (200, 800)
    driven.write(removed=labels[200:500])
    described = driven.settle()
    assert reasons(driven) == ["growth", "compaction"]
    assert (described["dead"], described["structure"]) == (0, 500)
    assert described["memory_bytes"] < 0.6 * full["memory_bytes"]
    check_all(driven)


def test_next_to_nothing_that_is_left_is_no_structure_any_more(pools: Pools) -> None:
    driven = driven_by(pools)
    labels = driven.write(some(1_000))
    driven.settle()
    driven.write(removed=labels[10:])
    described = driven.settle()
    assert (described["dead"], described["structure"], described["tail"]) == (0, 0, 10)
    assert described["memory_bytes"] == 10 * (4 * _DIMENSION + 9)
    check_all(driven)


# --- what fails -----------------------------------------------------------------------------------------------------


def test_a_build_that_fails_leaves_the_old_structure_answering(pools: Pools) -> None:
    driven = driven_by(pools)
    labels = driven.write(some(100))
    driven.settle()

    def fail() -> None:
        raise VecError("storage_failed", "the disk is gone")

    driven.source.before_page = fail
    with pytest.raises(VecError, match="disk is gone"):
        driven.live.rebuild(spec("kdtree", _METRIC, _DIMENSION)).result(WAIT_S)
    driven.write(some(10), labels[:10])
    described = driven.settle()
    assert (described["state"], described["structure"]) == ("ready", 100)
    assert driven.live.spec == driven.source.spec == spec("hnsw float32", _METRIC, _DIMENSION)
    assert not driven.failed
    check_all(driven)
    driven.source.before_page = lambda: None
    driven.live.rebuild(spec("kdtree", _METRIC, _DIMENSION)).result(WAIT_S)
    check_all(driven)


def test_a_build_that_failed_is_tried_again_after_a_while_also_if_there_are_only_searches(pools: Pools) -> None:
    driven = driven_by(pools, tuning=Tuning(rows_min=64, retry_s=0.05))
    failed = threading.Event()

    def fail() -> None:
        if driven.live.describe()["maintenance"] is not None and not failed.is_set():
            failed.set()
            raise OSError("for once")

    driven.labels()  # it is loaded, with nothing
    driven.source.before_page = fail
    driven.write(some(100))
    assert failed.wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while not driven.source.reports:
        assert driven.labels() == set(driven.source.vectors)
        assert time.monotonic() < deadline, "it is not tried again"
    assert reasons(driven) == ["growth"]


def test_a_build_that_cannot_be_logged_is_told_to_who_asked_for_it(
    pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = driven_by(pools)
    driven.write(some(100))
    driven.settle()

    def refuse(_: Rebuilt) -> None:
        raise VecError("storage_failed", "it cannot be logged")

    monkeypatch.setattr(driven.source, "rebuilt", refuse)
    with pytest.raises(VecError, match="cannot be logged"):
        driven.live.rebuild().result(WAIT_S)
    assert driven.settle()["maintenance"] is None
    check_all(driven)


# --- what is given up -----------------------------------------------------------------------------------------------


def test_a_load_is_given_up_at_the_next_page_when_the_index_is_closed(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.source.commit(some(1_000))
    driven.source.before_page = gate = Gate()
    waiting: list[Future[Any]] = [driven.live.search(np.zeros(_DIMENSION), SearchOptions(1)), driven.live.settle()]
    gate.wait()
    driven.live.close(VecError("not_found", "the library is gone"))
    gate.open.set()
    for future in waiting:
        with pytest.raises(VecError, match="the library is gone"):
            future.result(WAIT_S)
    assert driven.source.pages_read == 1


def test_an_index_that_nobody_asked_for_is_closed_without_a_load() -> None:
    pools = make_pools()
    driven = driven_by(pools)
    driven.source.commit(some(100))
    driven.live.close()
    pools.strands.shutdown()
    pools.close()
    assert driven.source.reads == 0
    assert not driven.failed


def test_a_build_is_given_up_at_the_next_page_when_the_index_is_closed(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(some(1_000))
    driven.settle()
    before = driven.source.pages_read
    driven.source.before_page = gate = Gate()
    asked = driven.live.rebuild()
    gate.wait()
    driven.live.close()
    gate.open.set()
    with pytest.raises(VecError) as told:
        asked.result(WAIT_S)
    assert told.value.code == "shutting_down"
    assert driven.source.pages_read == before + 1
    check_all(driven)  # what is on its way is answered yet


def test_who_stops_building_stops_neither_searches_nor_writes(pools: Pools, tmp_path: Path) -> None:
    driven = driven_by(pools, path=tmp_path / "snapshot", tuning=Tuning(rows_min=64, save_rows_at_stop=1, quiet_s=0))
    driven.write(some(100))
    driven.settle()
    driven.source.before_page = gate = Gate()
    begun, queued = driven.live.rebuild(), driven.live.rebuild()
    gate.wait()
    driven.live.stop_building()
    gate.open.set()
    for future in (begun, queued, driven.live.rebuild()):
        with pytest.raises(VecError) as told:
            future.result(WAIT_S)
        assert told.value.code == "shutting_down"
    driven.write(some(200), list(driven.source.vectors)[:50])
    check_all(driven)
    assert driven.settle()["maintenance"] is None
    assert reasons(driven) == ["growth"], "the first"
    assert not driven.failed
    driven.live.close()
    pools.close()
    driven.live.save()
    assert (tmp_path / "snapshot").exists()


def test_a_rebuild_that_waits_for_another_is_told_when_the_index_is_closed(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(some(100))
    driven.settle()
    driven.source.before_page = gate = Gate()
    first, second = driven.live.rebuild(), driven.live.rebuild()
    gate.wait()
    driven.live.close(VecError("not_found", "the library is gone"))
    gate.open.set()
    for future in (first, second, driven.live.rebuild()):
        with pytest.raises(VecError, match="the library is gone"):
            future.result(WAIT_S)


def test_who_waits_for_maintenance_is_told_when_the_index_is_closed(pools: Pools) -> None:
    driven = driven_by(pools)
    driven.write(some(100))
    driven.settle()
    driven.source.before_page = gate = Gate()
    driven.live.rebuild()
    gate.wait()
    early = driven.live.settle()
    assert driven.labels() == set(driven.source.vectors), "it is asked for"
    driven.live.close(VecError("not_found", "the library is gone"))
    gate.open.set()
    for future in (early, driven.live.settle()):
        with pytest.raises(VecError, match="the library is gone"):
            future.result(WAIT_S)


# --- other vectors for the same labels ------------------------------------------------------------------------------


def replace(driven: Driven) -> None:
    """Other vectors for all labels, with the next write."""
    source = driven.source
    write = source.commit(some(1))
    source.generation += 1
    labels = np.array(sorted(source.vectors)[:-1], np.int64)
    vectors = some(len(labels))
    source.vectors.update(zip(labels.tolist(), vectors, strict=True))
    taken = Flat(driven.live.spec.dimension, driven.live.spec.space)
    taken.add(labels, builder.prepared(driven.live.spec, vectors))
    write.replaced = Replaced(lambda: taken, source.generation)
    driven.live.write(write)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_vectors_that_are_replaced_are_searched_from_that_write_on(pools: Pools, name: str) -> None:
    driven = driven_by(pools, name)
    labels = driven.write(some(200))
    driven.settle()
    driven.write(removed=labels[:20])
    replace(driven)
    check_all(driven)
    driven.write(some(5), labels[50:60])
    assert driven.settle()["vectors"] == len(driven.source.vectors) == 200 + 1 + 5 - 30
    check_all(driven)


def test_a_build_of_vectors_that_are_replaced_meanwhile_starts_again(pools: Pools) -> None:
    driven = driven_by(pools)
    labels = driven.write(some(200))
    driven.settle()
    driven.source.before_page = gate = Gate()
    rebuilt = driven.live.rebuild()
    gate.wait()  # the build has its picture of the store
    driven.source.before_page = lambda: None
    replace(driven)
    driven.write(some(5), labels[50:60])
    check_all(driven)
    gate.open.set()
    assert rebuilt.result(WAIT_S).vectors == len(driven.source.vectors)
    check_all(driven)


def test_a_snapshot_of_vectors_that_were_replaced_since_is_not_used(pools: Pools, tmp_path: Path) -> None:
    driven = driven_by(pools, path=tmp_path / "snapshot")
    driven.write(some(200))
    driven.settle()
    driven.live.snapshot().result(WAIT_S)
    assert (tmp_path / "snapshot").exists()
    replace(driven)
    driven.stop()
    after = Driven(driven.source, _TUNING, pools)
    check_all(after)
    assert "damage" not in after.live.describe()
    after.settle()
    after.live.snapshot().result(WAIT_S)
    after.stop()
    reads = driven.source.pages_read
    last = Driven(driven.source, _TUNING, pools)
    check_all(last)
    assert driven.source.pages_read - reads <= 1, "only the spot check"
