"""The event `index.recall`: what a LiveIndex says of its promise is logged when the verdict changes, and only then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecd.engine.damage import Damage
from vecd.engine.indexes import _LibrarySource
from vecd.errors import VecError
from vecd.index.recall_monitor import RecallMonitor
from vecd.store import events, libraries
from vecd.store.catalogue import Library
from vecd.store.database import Database

PLAN = Library(0, "notes", 1, "cosine", "hnsw", "none", 1_000)


def unexpected(failure: VecError) -> None:
    raise AssertionError(failure)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Opens the store, again if it is open."""
    databases: list[Database] = []

    def open_again() -> Database:
        if databases:
            databases.pop().close()
        databases.append(Database(tmp_path / "vec.db", lambda _: None, unexpected))
        databases[0].open()
        return databases[0]

    yield open_again
    databases.pop().close()


def source(database: Database) -> _LibrarySource:
    return _LibrarySource(database, Damage(database), Path("unused"), database.catalogue.find("notes"))


def reported(recall: float, promise: float = 0.98) -> dict[str, Any]:
    """What a monitor reports after one query."""
    monitor = RecallMonitor(promise)
    monitor.note(np.zeros(1, np.float32), 10, "all", None)
    sampled = monitor.next()
    assert sampled is not None
    monitor.measured(sampled, {1.0: recall})
    flipped = monitor.flipped()
    assert flipped is not None
    return flipped


def told(database: Database) -> list[dict[str, Any]]:
    """The data of the events, when all that was submitted is in the log."""
    database.submit(lambda tx: None).result(30)
    with database.read_transaction() as db:
        expanded = [event for row in events.read(db, 0, 1_000) for event in events.expand(row, "notes")]
    return [event["data"] for event in expanded if event["type"] == "index.recall"]


def test_a_verdict_is_logged_when_it_changes_and_only_then_also_over_a_restart(
    opened: Callable[[], Database],
) -> None:
    database = opened()
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    source(database).recall_changed(reported(1.0))
    assert told(database) == [], "a promise that is met is no news"
    missed = {"promise": 0.98, "met": False, "queries": 1, "mean": 0.5, "p5": 0.5, "worst": 0.5, "effort": 2.0}
    for _ in range(2):
        source(database).recall_changed(reported(0.5))
        assert told(database) == [missed]
        assert database.catalogue.find("notes").recall_missed
        database = opened()
    source(database).recall_changed(reported(1.0))
    assert [each["met"] for each in told(database)] == [False, True]
    assert not database.catalogue.find("notes").recall_missed


def test_another_promise_is_logged_and_seen_at_once(opened: Callable[[], Database]) -> None:
    database = opened()
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    its_source = source(database)
    assert its_source.promise == 0.98
    library_id = database.catalogue.find("notes").library_id
    assert database.submit(lambda tx: libraries.promise(tx, library_id, 0.9)).result(30) == database.head
    assert its_source.promise == 0.9
    assert database.submit(lambda tx: libraries.promise(tx, library_id, 0.9)).result(30) is None
    assert told(database) == [{**dict.fromkeys(libraries.RECALL_FIELDS), "promise": 0.9}]
    assert opened().catalogue.find("notes").recall == 0.9


def test_a_library_that_is_gone_makes_no_event_and_no_noise(
    opened: Callable[[], Database], caplog: pytest.LogCaptureFixture
) -> None:
    database = opened()
    library, _ = database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    its_source = source(database)
    database.submit(lambda tx: libraries.delete(tx, "notes")).result(30)
    its_source.recall_changed(reported(0.5))
    assert told(database) == []
    assert not caplog.records
    refused = database.submit(lambda tx: libraries.promise(tx, library.library_id, 0.9)).exception(30)
    assert isinstance(refused, VecError)
    assert refused.code == "not_found"
