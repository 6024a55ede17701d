"""Tests of the checker: correct records pass, and each violation raises Broken with the name of its guarantee."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .checker import (
    Broken,
    Content,
    Event,
    Replay,
    State,
    Wanted,
    Write,
    check_consumer,
    check_copy,
    check_files,
    check_hits,
    check_jobs,
    check_jobs_table,
    check_log,
    check_steps,
    check_tables,
    content,
    cosines,
    written,
)
from .load import vector_of


def _document(document_id: str, text: str) -> dict[str, Any]:
    chunks = [{"chunk_id": f"{document_id}#0", "text": text}]
    return {"id": document_id, "title": None, "metadata": {}, "chunks": chunks}


def _events(*events: tuple[str, str | None, dict[str, Any]]) -> list[Event]:
    return [
        {"seq": seq, "time": f"00:{seq:02}", "type": kind, "library": library, "data": data}
        for seq, (kind, library, data) in enumerate(events, 1)
    ]


def _log() -> list[Event]:
    """A library, a document that comes, changes and goes, another one; job 1 fails once and completes, job 2 follows it
    and job 3 is cancelled."""
    first, second = _document("a", "one"), _document("a", "two")
    return _events(
        ("library.created", "notes", {}),
        ("document.added", "notes", {"id": "a", "document": first}),
        ("document.updated", "notes", {"id": "a", "document": second, "replaced": first}),
        ("document.deleted", "notes", {"id": "a", "replaced": second}),
        ("document.added", "notes", {"id": "1-1", "document": _document("1-1", "step")}),
        ("job.submitted", "notes", {"job_id": 1, "kind": "ledger"}),
        ("job.submitted", None, {"job_id": 2, "kind": "noop"}),
        ("job.submitted", None, {"job_id": 3, "kind": "noop"}),
        ("job.started", "notes", {"job_id": 1, "kind": "ledger", "attempt": 1}),
        ("job.failed", "notes", {"job_id": 1, "attempt": 1, "state": "pending", "error": {"code": "crashed"}}),
        ("job.started", "notes", {"job_id": 1, "kind": "ledger", "attempt": 2}),
        ("job.completed", "notes", {"job_id": 1, "attempt": 2, "state": "completed"}),
        ("job.started", None, {"job_id": 2, "kind": "noop", "attempt": 1}),
        ("job.completed", None, {"job_id": 2, "attempt": 1, "state": "completed"}),
        ("job.cancelled", None, {"job_id": 3, "attempt": 0, "state": "cancelled"}),
    )


def _replayed(log: list[Event]) -> Replay:
    replay = Replay()
    for event in log:
        replay.take(event)
    return replay


_WANTED = {
    1: Wanted("ledger", "notes", lock="one at a time", unique="only"),
    2: Wanted("noop", after=(1,), lock="one at a time"),
    3: Wanted("noop"),
}


def test_a_log_without_a_fault_gives_the_tables_and_passes() -> None:
    replay = _replayed(_log())
    state: State = {"notes": {"1-1": content(_document("1-1", "step"))}}
    check_tables(replay.state, state, "the table")
    check_jobs(replay, _WANTED)
    check_steps(replay, "notes", "1", ["1-1"], completed=True)


def _gap(log: list[Event]) -> None:
    del log[3]


def _back_in_time(log: list[Event]) -> None:
    log[3]["time"] = "00:00"


def _other_payload(log: list[Event]) -> None:
    log[2]["data"]["replaced"] = _document("a", "another")


def _added_twice(log: list[Event]) -> None:
    log[2]["type"] = "document.added"
    del log[2]["data"]["replaced"]


def _two_copies_run(log: list[Event]) -> None:
    log[9] = {**log[9], "type": "job.started", "data": {"job_id": 1, "attempt": 2}}


def _completed_twice(log: list[Event]) -> None:
    log[12] = {**log[12], "type": "job.completed", "data": {"job_id": 1, "attempt": 2, "state": "completed"}}


def _attempt_left_out(log: list[Event]) -> None:
    log[10]["data"]["attempt"] = 3


def _submitted_twice(log: list[Event]) -> None:
    log[6]["data"]["job_id"] = 1


@pytest.mark.parametrize(
    ("fault", "guarantee"),
    [
        (_gap, "log"),
        (_back_in_time, "log"),
        (_other_payload, "log"),
        (_added_twice, "log"),
        (_two_copies_run, "jobs"),
        (_completed_twice, "jobs"),
        (_attempt_left_out, "jobs"),
        (_submitted_twice, "jobs"),
    ],
)
def test_a_broken_log_is_refused(fault: Callable[[list[Event]], None], guarantee: str) -> None:
    log = copy.deepcopy(_log())
    fault(log)
    with pytest.raises(Broken) as broken:
        _replayed(log)
    assert broken.value.guarantee == guarantee


@pytest.mark.parametrize("tables", [{}, {"notes": {}}, {"notes": {"1-1": content(_document("1-1", "other"))}}])
def test_tables_that_the_log_does_not_give_are_refused(tables: State) -> None:
    with pytest.raises(Broken) as broken:
        check_tables(_replayed(_log()).state, tables, "the table")
    assert broken.value.guarantee == "tables"


# --- writes ---------------------------------------------------------------------------------------------------------


def _text(text: str) -> tuple[int, Content]:
    return len(text), Content(None, text, "{}")


_WRITES = [
    Write("notes", {"a": _text("1"), "b": _text("1")}),
    Write("notes", {"a": None, "c": _text("long")}),
    Write("notes", below=3),
    Write("notes", {"b": _text("4"), "c": _text("5")}),
]


def _after(count: int) -> dict[tuple[str, str], Content]:
    documents: dict[tuple[str, str], tuple[int, Content]] = {}
    for write in _WRITES[:count]:
        write.apply(documents)
    return {key: new for key, (_, new) in documents.items()}


@pytest.mark.parametrize("count", range(5))
def test_the_first_of_a_writers_requests_may_have_happened_if_the_acked_are_among_them(count: int) -> None:
    for acked in range(count + 1):
        assert written("w", {}, _WRITES, acked, _after(count)) == count


@pytest.mark.parametrize("count", range(4))
def test_an_acked_write_that_is_not_there_is_found(count: int) -> None:
    with pytest.raises(Broken) as broken:
        written("w", {}, _WRITES, count + 1, _after(count))
    assert broken.value.guarantee == "acked"


@pytest.mark.parametrize(
    "there",
    [
        {("notes", "a"): _text("1")[1]},  # half of the first
        {**_after(3), ("notes", "b"): _text("4")[1]},  # half of the last
        {**_after(3), ("notes", "d"): _text("9")[1]},  # what was never sent
    ],
)
def test_half_of_a_write_is_found(there: dict[tuple[str, str], Content]) -> None:
    with pytest.raises(Broken) as broken:
        written("w", {}, _WRITES, 0, there)
    assert broken.value.guarantee == "whole"


# --- jobs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "guarantee"),
    [
        ({9: Wanted("noop")}, "acked"),
        ({3: Wanted("ledger")}, "jobs"),
        ({1: Wanted("ledger", "notes", after=(2,))}, "once"),
        ({2: Wanted("noop", after=(3,))}, "once"),
        ({2: Wanted("noop", unique="only"), 3: Wanted("noop", unique="only")}, "once"),
    ],
)
def test_a_job_that_is_lost_or_runs_out_of_turn_is_found(wanted: dict[int, Wanted], guarantee: str) -> None:
    with pytest.raises(Broken) as broken:
        check_jobs(_replayed(_log()), wanted)
    assert broken.value.guarantee == guarantee


def test_two_holders_of_a_lock_at_once_are_found() -> None:
    log = _log()
    log[11], log[12] = {**log[12], "seq": 12}, {**log[11], "seq": 13}
    for event in log[11:13]:
        event["time"] = "00:12"
    replay = _replayed(log)
    check_jobs(replay, {job_id: Wanted(each.kind, each.library) for job_id, each in _WANTED.items()})
    with pytest.raises(Broken) as broken:
        check_jobs(replay, {1: Wanted("ledger", "notes", lock="a"), 2: Wanted("noop", lock="a")})
    assert broken.value.guarantee == "once"


def test_a_job_that_failed_of_a_fault_in_the_program_is_found() -> None:
    log = _log()
    log[9]["data"]["error"]["code"] = "internal"
    with pytest.raises(Broken) as broken:
        check_jobs(_replayed(log[:10]), {})
    assert broken.value.guarantee == "jobs"


def _table() -> list[dict[str, Any]]:
    def attempt(number: int, started: int, ended: int | None) -> dict[str, Any]:
        return {"attempt": number, "started_at": f"00:{started:02}", "ended_at": ended and f"00:{ended:02}"}

    return [
        {"job_id": 1, "state": "completed", "attempt": 2, "attempts": [attempt(1, 9, 10), attempt(2, 11, 12)]},
        {"job_id": 2, "state": "completed", "attempt": 1, "attempts": [attempt(1, 13, 14)]},
        {"job_id": 3, "state": "cancelled", "attempt": 0, "attempts": []},
    ]


@pytest.mark.parametrize(
    ("place", "change", "guarantee"),
    [
        (0, {"state": "pending"}, "jobs"),
        (0, {"job_id": 4}, "jobs"),
        (1, {"attempts": []}, "jobs"),
        (0, {"attempts": [{**_table()[0]["attempts"][0], "ended_at": None}, _table()[0]["attempts"][1]]}, "once"),
        (0, {"attempts": [{**_table()[0]["attempts"][0], "ended_at": "00:12"}, _table()[0]["attempts"][1]]}, "once"),
    ],
)
def test_a_table_of_jobs_that_is_not_what_the_log_says_is_refused(
    place: int, change: dict[str, Any], guarantee: str
) -> None:
    table = _table()
    check_jobs_table(_replayed(_log()), table)
    table[place].update(change)
    with pytest.raises(Broken) as broken:
        check_jobs_table(_replayed(_log()), table)
    assert broken.value.guarantee == guarantee


@pytest.mark.parametrize("applied", [["7-1", "7-1"], ["7-2"], ["7-2", "7-1"], ["7-1", "7-2", "7-3", "7-4"], ["7-1"]])
def test_a_step_that_is_applied_twice_late_or_not_at_all_is_found(applied: list[str]) -> None:
    replay = Replay()
    replay.written["notes", "7"] = [(each, content(_document(each, "step"))) for each in applied]
    with pytest.raises(Broken) as broken:
        check_steps(replay, "notes", "7", ["7-1", "7-2", "7-3"], completed=True)
    assert broken.value.guarantee == "once"


# --- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", [None, 4, 8])
def test_an_ack_that_is_lost_or_was_never_sent_is_found(there: int | None) -> None:
    for right in (5, 6, 7):
        check_consumer("worker", 5, 7, right)
    with pytest.raises(Broken):
        check_consumer("worker", 5, 7, there)


_VECTORS = {f"d{number}#0": vector_of(number) for number in range(20)}
_SCORES = cosines(vector_of(99), _VECTORS)
_BEST = sorted(_SCORES.items(), key=lambda pair: -pair[1])


@pytest.mark.parametrize(
    ("hits", "k"),
    [
        (_BEST[1:11], 10),  # the best is missing
        (_BEST[:9], 10),
        ([_BEST[0], *_BEST[:9]], 10),
        ([("gone#0", 1.0), *_BEST[:9]], 10),
        ([(_BEST[0][0], 0.5), *_BEST[1:10]], 10),
        (_BEST[9::-1], 10),
        (_BEST[:19], 30),
    ],
)
def test_an_answer_that_is_not_that_of_brute_force_is_found(hits: list[tuple[str, float]], k: int) -> None:
    check_hits("right", _BEST[:k], _SCORES, k)
    with pytest.raises(Broken) as broken:
        check_hits("wrong", hits, _SCORES, k)
    assert broken.value.guarantee == "search"


def test_an_approximate_answer_may_miss_the_best_and_nothing_else() -> None:
    check_hits("approximate", _BEST[1:11], _SCORES, 10, exact=False)
    with pytest.raises(Broken):
        check_hits("approximate", [("gone#0", 1.0), *_BEST[:9]], _SCORES, 10, exact=False)


@pytest.mark.parametrize(
    ("home", "made"),
    [
        (["data/indexes/1.index.new"], []),
        (["data/indexes/2.index"], []),
        (["data/indexes/1.index.damaged"], []),
        (["data/vec.db-journal"], []),
        ([], [".copy.db.job-7"]),
    ],
)
def test_a_file_that_is_left_behind_is_found(home: list[str], made: list[str]) -> None:
    usual = ["vecd.log", "vecd.sock", "data/vec.db", "data/vec.db-wal", "data/indexes/1.index", "data/indexes/1.text"]
    check_files(usual, {1}, ["copy.db"], {"copy.db"})
    with pytest.raises(Broken) as broken:
        check_files([*usual, *home], {1}, ["copy.db", *made], {"copy.db"})
    assert broken.value.guarantee == "files"


def test_a_copy_that_lacks_a_document_or_has_another_is_found() -> None:
    right = {"a": content(_document("a", "one"))}
    check_copy("export", right, dict(right))
    for wrong in ({}, {"a": content(_document("a", "two"))}, {**right, "b": right["a"]}):
        with pytest.raises(Broken) as broken:
            check_copy("export", wrong, right)
        assert broken.value.guarantee == "files"


def _rows(*types: str) -> list[dict[str, Any]]:
    return [{"seq": seq, "type": each} for seq, each in enumerate(types, 1)]


def test_what_measuring_logs_behind_the_last_write_is_no_fault() -> None:
    events = _rows("document.added", "chunk.added", "index.recall")
    check_log(events, 2, events[1:])


@pytest.mark.parametrize(
    ("events", "seq", "left"),
    [
        (_rows("document.added"), 2, []),  # one was not recorded
        (_rows("document.added", "document.deleted"), 1, []),  # somebody wrote behind the end
        (_rows("document.added", "chunk.added"), 2, _rows("document.added", "chunk.deleted")),
    ],
)
def test_a_log_that_is_not_what_was_recorded_of_it_is_found(
    events: list[dict[str, Any]], seq: int, left: list[dict[str, Any]]
) -> None:
    with pytest.raises(Broken):
        check_log(events, seq, left)
