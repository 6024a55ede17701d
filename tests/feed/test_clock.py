"""Times and ages beside a clock that was wrong, and numbers that are no ages."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from vecd.client import Client
from vecd.errors import VecError

HOUR_S = 3_600


def set_ahead(clock: Path, seconds: str) -> None:
    """At once: the daemon reads the file at any time."""
    written = clock.with_name("clock.new")
    written.write_text(seconds)
    written.replace(clock)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance() as instance:
        instance.start()
        with instance.connect() as made:
            yield made


@pytest.mark.parametrize("restarted", [False, True])
def test_events_behind_a_clock_that_was_ahead_are_trimmed_by_their_age(tmp_path: Path, restarted: bool) -> None:
    clock = tmp_path / "clock"

    def put(*ids: str) -> None:
        door.ingest([{"id": each, "text": f"the text of {each}"} for each in ids])

    def kept() -> list[str]:
        oldest = door.trim(keep_count=1_000_000)["oldest"]
        return [each["data"]["id"] for each in door.watch(oldest, follow=False) if each["type"] == "document.added"]

    set_ahead(clock, "0")
    with Instance({"VEC_TEST_CLOCK": str(clock)}) as instance:
        daemon = instance.start(module="tests.feed.clocked")
        door = instance.connect()
        put("before")
        set_ahead(clock, str(24 * HOUR_S))
        put("ahead")
        set_ahead(clock, "0")
        put("after")
        door.trim(keep_age_s=HOUR_S)
        assert kept() == ["before", "ahead", "after"], "none of them is an hour old"
        set_ahead(clock, str(2 * HOUR_S))
        put("later")
        if restarted:
            door.request("shutdown")
            door.close()
            daemon.wait()
            instance.start(module="tests.feed.clocked")
            door = instance.connect()
        door.trim(keep_age_s=HOUR_S)
        assert kept() == ["later"]
        door.trim(keep_age_s=HOUR_S)
        assert kept() == ["later"]
        set_ahead(clock, str(4 * HOUR_S))
        door.trim(keep_age_s=HOUR_S)
        assert kept() == []
        door.close()


def test_times_follow_the_clock_again_when_it_was_ahead(tmp_path: Path) -> None:
    """And a place in the log that is given by time or age stays right, before and after the clock has caught up."""
    clock = tmp_path / "clock"
    set_ahead(clock, str(HOUR_S))
    with Instance({"VEC_TEST_CLOCK": str(clock)}) as instance:
        instance.start(module="tests.feed.clocked")
        with instance.connect() as client:

            def put(its_id: str) -> datetime.datetime:
                client.ingest([{"id": its_id, "text": its_id}])
                (event,) = [*client.watch("beginning", types=["document.added"], follow=False)][-1:]
                assert event["data"]["id"] == its_id
                return datetime.datetime.fromisoformat(event["time"])

            def since(start: str) -> list[str]:
                return [each["data"]["id"] for each in client.watch(start, types=["document.added"], follow=False)]

            ahead = put("ahead")
            set_ahead(clock, "0")
            right = put("right")
            assert datetime.timedelta(minutes=59) < ahead - right < datetime.timedelta(minutes=61)
            assert client.submit_job("noop")["created_at"] < ahead.isoformat().replace("+00:00", "Z")
            assert since("-10m") == ["ahead", "right"], "both were logged in the last ten minutes"
            assert since(right.isoformat()) == ["ahead", "right"], "the one is no younger than the other"
            assert since((right + datetime.timedelta(microseconds=1)).isoformat()) == []
            assert since(ahead.isoformat()) == [], "that time has not come yet"
            set_ahead(clock, str(HOUR_S / 2))
            put("later")
            assert since("-10m") == ["later"]
            assert since("-40m") == ["ahead", "right", "later"]
            set_ahead(clock, str(2 * HOUR_S))
            put("last")
            assert since("-10m") == ["last"]
            assert since("-3h") == ["ahead", "right", "later", "last"]


def test_times_stand_still_while_the_clock_is_set_back_a_little(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    set_ahead(clock, "4")
    with Instance({"VEC_TEST_CLOCK": str(clock)}) as instance:
        instance.start(module="tests.feed.clocked")
        with instance.connect() as client:
            client.ingest([{"id": "a", "text": "before"}])
            set_ahead(clock, "0")
            client.ingest([{"id": "b", "text": "after"}])
            times = [each["time"] for each in client.watch("beginning", follow=False)]
    assert times == sorted(times)


def test_a_clock_that_was_behind_for_a_while_trims_nothing(tmp_path: Path) -> None:
    """As on a machine whose clock begins in 1970 and is put right over the network."""
    clock = tmp_path / "clock"
    set_ahead(clock, "0")
    with Instance({"VEC_TEST_CLOCK": str(clock)}) as instance:
        instance.start(module="tests.feed.clocked")
        with instance.connect() as client:
            client.ingest([{"id": "before", "text": "before"}])
            set_ahead(clock, str(-10_000 * HOUR_S))
            client.ingest([{"id": "behind", "text": "behind"}])
            assert client.trim(keep_age_s=HOUR_S)["trimmed"] == 0
            set_ahead(clock, "1")
            assert client.trim(keep_age_s=HOUR_S)["trimmed"] == 0


NO_SECONDS = [math.inf, -math.inf, math.nan, 1e300, -1.0, 2**63, -(2**63)]


@pytest.mark.parametrize(
    ("op", "fields", "name"),
    [
        ("trim", {}, "keep_age_s"),
        ("flush", {}, "timeout_s"),
        ("watch", {"from": "beginning", "follow": False}, "timeout_s"),
        ("jobs.wait", {"job_ids": [1]}, "timeout_s"),
        ("jobs.wait", {"job_ids": [1]}, "every_s"),
        ("jobs.submit", {"kind": "noop", "params": {}}, "delay_s"),
        ("jobs.submit", {"kind": "noop", "params": {}}, "timeout_s"),
        ("jobs.list", {}, "since_s"),
    ],
)
def test_a_number_that_is_no_time_is_an_invalid_request(
    client: Client, op: str, fields: dict[str, Any], name: str
) -> None:
    for value in NO_SECONDS:
        with pytest.raises(VecError) as refusal:
            client.request(op, **fields, **{name: value})
        assert refusal.value.code == "invalid_request", value
        assert refusal.value.details["field"] == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [("trim", "keep_age_s"), ("trim", "keep_count"), ("trim", "keep_bytes"), ("prune", "keep_s"), ("prune", "keep"),
     ("noop", "seconds"), ("rebuild", "recall"), ("rebuild", "m"), ("reembed", "chunk_chars")],
)  # fmt: skip
def test_a_job_whose_number_no_job_can_use_is_refused(client: Client, kind: str, name: str) -> None:
    client.ingest([{"id": "a", "text": "a text"}])
    about: dict[str, Any] = {"library": "default"} if kind in ("rebuild", "reembed") else {}
    for value in [*NO_SECONDS, 2**64 - 1]:
        with pytest.raises(VecError) as refusal:
            client.submit_job(kind, {name: value}, **about)
        assert refusal.value.code == "invalid_request", value
        assert refusal.value.details["field"] == name


@pytest.mark.parametrize("name", ["k", "ef", "recall", "min_score"])
def test_a_search_whose_number_is_none_is_refused_or_answered(client: Client, name: str) -> None:
    client.ingest([{"id": "a", "text": "a text"}])
    for value in NO_SECONDS:
        try:
            found = client.request("search", query="text", mode="text", **{"k": 1, name: value})
        except VecError as refusal:
            assert refusal.code == "invalid_request", refusal
        else:
            assert name == "min_score"
            assert math.isfinite(value)
            assert len(found["hits"]) <= 1


@pytest.mark.parametrize("start", [f"-{'9' * 400}s", "-99999999999w", "9999-12-31T23:59:59Z", "0001-01-01"])
def test_a_time_that_is_out_of_range_starts_somewhere_or_is_refused(client: Client, start: str) -> None:
    try:
        list(client.watch(start, follow=False))
    except VecError as refusal:
        assert refusal.code in ("invalid_cursor", "invalid_request", "compacted"), refusal
