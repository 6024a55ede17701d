"""Client.watch: events with cursors, on a connection that does other things too; left, resumed, acknowledged."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.running import fresh
from tests.support.waiting import until
from vecd.client import Client
from vecd.client.watch import Watch
from vecd.errors import VecError
from vecd.wire.vectors import pack_vector


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as made:
        yield made


@pytest.fixture
def library(instance: Instance) -> str:
    return fresh(instance, embedder="none", dimension=1)


def put(client: Client, library: str, *ids: str, value: float = 1.0) -> int:
    """Writes documents of one chunk; returns the log's head."""
    return int(client.ingest([{"id": each, "vector": [value]} for each in ids], library)["seq"])


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["id"] for event in events if event["type"].startswith("document.")]


def first(watch: Watch, count: int) -> list[dict[str, Any]]:
    return [next(watch) for _ in range(count)]


def watchers(client: Client) -> int:
    return int(client.status()["watchers"])


# --- events and cursors ---------------------------------------------------------------------------------------------


def test_when_watch_returns_the_subscription_stands(client: Client, library: str) -> None:
    with client.watch(libraries=[library]) as feed:
        assert feed.cursor == f"{client.log}:{feed.head}"
        put(client, library, "a")
        assert [event["type"] for event in first(feed, 2)] == ["document.added", "chunk.added"]


def test_every_cursor_goes_on_behind_its_event(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", "b", "c")
    everything = list(client.watch(start, follow=False))
    assert [event["cursor"] for event in everything] == [f"{client.log}:{event['seq']}" for event in everything]
    for place, event in enumerate(everything):
        assert list(client.watch(event["cursor"], follow=False)) == everything[place + 1 :]


def test_the_cursor_of_the_watch_is_behind_what_was_handed_over_and_nothing_else(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", "b")
    with client.watch(start) as feed:
        for _ in range(3):
            event = next(feed)
            assert feed.cursor == event["cursor"]
        rest = list(client.watch(feed.cursor, follow=False))
    assert [event["type"] for event in rest] == ["chunk.added"]


def test_a_filter_that_nothing_passes_moves_the_cursor(client: Client, library: str) -> None:
    start = client.watch().cursor
    head = put(client, library, "a")
    feed = client.watch(start, types=["library.created"], libraries=[library], follow=False)
    assert list(feed) == []
    assert feed.cursor == f"{client.log}:{head}"
    assert feed.end == {"reason": "done", "cursor": feed.cursor}
    assert feed.lag == 0


def test_lag_is_how_far_the_log_is_ahead(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", "b")
    with client.watch(start) as feed:
        assert feed.lag == 4
        next(feed)
        assert feed.lag == 3
        first(feed, 3)
        assert feed.lag == 0


def test_inside_a_snapshot_the_last_item_of_a_message_has_the_cursor_and_goes_on(client: Client, library: str) -> None:
    put(client, library, *(f"d{number:04}" for number in range(1_200)))
    wanted = [f"d{number:04}" for number in range(1_200)]
    items = list(client.watch(snapshot=True, libraries=[library], follow=False))
    assert [item["data"]["id"] for item in items if item["type"] == "snapshot.document"] == wanted
    assert (items[0]["type"], items[-1]["type"]) == ("snapshot.library", "snapshot.end")
    cursors = [place for place, item in enumerate(items) if item["cursor"]]
    assert len(cursors) >= 3
    assert "@" in items[cursors[0]]["cursor"]
    for place in cursors:
        assert list(client.watch(items[place]["cursor"], libraries=[library], follow=False)) == items[place + 1 :]


def test_messages_are_whole_and_begin_with_where_the_watch_stands(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", "b")
    messages = list(client.watch(start, follow=False).messages())
    assert messages[0] == ([], start, None)
    assert ids([event for message in messages for event in message.events]) == ["a", "b"]


def test_payloads_are_exact_though_the_document_has_changed_since(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", value=1.5)
    put(client, library, "a", value=2.5)
    client.delete(["a"], library)
    watched = client.watch(start, types=["document.*"], payload=True, vectors=True, follow=False)
    added, updated, deleted = (event["data"] for event in watched)

    def vector(document: dict[str, Any]) -> bytes:
        return bytes(document["chunks"][0]["vector"])

    assert vector(added["document"]) == vector(updated["replaced"]) == pack_vector([1.5])
    assert vector(updated["document"]) == vector(deleted["replaced"]) == pack_vector([2.5])
    assert "document" not in deleted
    bare = client.watch(start, types=["document.*"], payload=True, replaced=False, follow=False)
    assert ["replaced" in event["data"] for event in bare] == [False, False, False]


# --- two ways -------------------------------------------------------------------------------------------------------


def test_watches_writes_and_searches_share_one_connection(client: Client, library: str) -> None:
    """Several of each at once, and the reader of one watch leaves the others alone."""
    other = fresh_on(client)
    with (
        client.watch(libraries=[library], types=["document.*"]) as mine,
        client.watch(libraries=[other], types=["document.*"]) as others,
        client.watch(types=["document.*"]) as both,
    ):
        for turn in range(50):
            writes = [
                client.submit(
                    "ingest", library=name, documents=[{"id": f"{turn}", "vector": pack_vector([turn + 1.0])}]
                )
                for name in (library, other)
            ]
            hits = client.submit("search", library=library, vector=pack_vector([1.0]), k=1)
            assert next(mine)["data"]["id"] == f"{turn}"
            assert [write.result()["added"] for write in writes] == [1, 1]
            assert turn == 0 or len(hits.result()["hits"]) == 1
            assert next(others)["data"]["id"] == f"{turn}"
        assert ids(first(both, 100)) == [f"{turn}" for turn in range(50) for _ in range(2)]
        assert client.count(library)["documents"] == 50


def fresh_on(client: Client) -> str:
    name = f"two-way-{client.status()['seq']}"
    client.request("library.create", library=name, embedder="none", dimension=1)
    return name


def test_leaving_a_watch_ends_the_subscription_and_nothing_else(client: Client, library: str) -> None:
    with client.watch(libraries=[library], types=["document.*"]) as stays:
        with client.watch(libraries=[library]) as feed:
            put(client, library, "a")
            next(feed)
            assert watchers(client) == 2
        until(lambda: watchers(client) == 1, "the end of one subscription")
        put(client, library, "b")
        assert ids(first(stays, 2)) == ["a", "b"]
    until(lambda: watchers(client) == 0, "the end of the other")
    assert client.count(library)["documents"] == 2


def test_a_loop_that_is_left_ends_its_subscription(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", "b")
    for event in client.watch(start):
        assert event["data"]["id"] == "a"
        break
    until(lambda: watchers(client) == 0, "the end of the subscription")


def test_flush_has_all_that_was_committed_here(instance: Instance, client: Client, library: str) -> None:
    with client.watch(libraries=[library], types=["document.*"]) as feed, instance.connect() as writer:
        wanted = [f"{number}" for number in range(20)]
        for each in wanted:
            put(writer, library, each)
        assert feed.flush(30) == f"{client.log}:{client.status()['seq']}"
        assert feed.ready
        assert ids(first(feed, 20)) == wanted


def test_end_says_why_it_ended(client: Client, library: str) -> None:
    timed_out = client.watch(libraries=[library], timeout_s=0.05)
    assert list(timed_out) == []
    assert timed_out.end is not None
    assert timed_out.end["reason"] == "timeout"
    put(client, library, "a", "b")
    limited = client.watch("beginning", libraries=[library], limit=2)
    assert len(list(limited)) == 2
    assert limited.end == {"reason": "done", "cursor": limited.cursor}
    assert list(limited) == []


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"start": "0123456789abcdef:1"}, "foreign_cursor"),
        ({"start": "nonsense"}, "invalid_cursor"),
        ({"libraries": ["nowhere-at-all"]}, "not_found"),
        ({"types": ["document.nothing"]}, "invalid_request"),
        ({"where": "year >"}, "invalid_filter"),
        ({"on_gap": "shrug"}, "invalid_request"),
        ({"until": "nonsense"}, "invalid_cursor"),
    ],
)
def test_a_watch_that_cannot_be_is_refused_at_the_call(client: Client, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(VecError) as refused:
        client.watch(**arguments)
    assert refused.value.code == code
    client.ping()


def test_a_daemon_that_stops_is_an_error_with_the_cursor_to_go_on_from() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.start()
        with own.connect() as client, own.connect() as other:
            feed = client.watch()
            put_text(client)
            first(feed, 3)
            other.request("shutdown")
            with pytest.raises(VecError, match="is stopping") as stopped:
                next(feed)
            assert stopped.value.code == "shutting_down"
            assert feed.cursor == f"{client.log}:3"
            assert feed.cursor in str(stopped.value)


def put_text(client: Client) -> None:
    client.ingest([{"id": "a", "text": "one"}])


def test_a_daemon_that_is_silent_too_long_is_stalled() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start()
        with own.connect() as client:
            client.limits["heartbeat_s"] = 0.1
            feed = client.watch()
            daemon.send_signal(signal.SIGSTOP)
            try:
                with pytest.raises(VecError, match="has sent nothing") as stalled:
                    next(feed)
            finally:
                daemon.send_signal(signal.SIGCONT)
            assert stalled.value.code == "stalled"


def test_a_killed_daemon_is_a_lost_connection_after_what_had_arrived() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start()
        with own.connect() as client:
            feed = client.watch()
            put_text(client)
            feed.flush(30)
            os.kill(daemon.pid, signal.SIGKILL)
            assert len(first(feed, 3)) == 3
            with pytest.raises(VecError) as lost:
                next(feed)
            assert lost.value.code == "connection_lost"


def test_a_gap_is_an_error_or_mended_and_told() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.start()
        with own.connect() as client:
            mend_a_gap(client, fresh(own, embedder="none", dimension=1))


def mend_a_gap(client: Client, library: str) -> None:
    start = client.watch().cursor
    put(client, library, "a", "b")
    client.trim(keep_count=0)
    put(client, library, "c")
    with pytest.raises(VecError) as refused:
        list(client.watch(start, follow=False))
    assert refused.value.code == "compacted"
    oldest = refused.value.details["oldest"]
    mended = client.watch(start, follow=False, on_gap="oldest", types=["document.*"])
    assert ids(list(mended)) == ["c"]
    assert mended.gap is not None
    assert (mended.gap.code, mended.gap.details["oldest"]) == ("compacted", oldest)
    anew = client.watch(start, follow=False, on_gap="snapshot", libraries=[library])
    there = [item["data"]["id"] for item in anew if item["type"] == "snapshot.document"]
    assert there == ["a", "b", "c"]


# --- consumers ------------------------------------------------------------------------------------------------------


def test_a_consumer_goes_on_where_it_acknowledged(client: Client, library: str) -> None:
    put(client, library, "a", "b", "c")
    wanted: dict[str, Any] = {"libraries": [library], "types": ["document.*"], "consumer": "goes-on"}
    with client.watch("beginning", **wanted) as feed:
        assert ids(first(feed, 1)) == ["a"]
        feed.ack()
        assert ids(first(feed, 1)) == ["b"]  # handed over, and never acknowledged
    with client.watch("beginning", **wanted) as feed:
        assert ids(first(feed, 2)) == ["b", "c"]
        feed.ack()
        feed.settle()
        (found,) = (each for each in client.consumers() if each["name"] == "goes-on")
        assert found["cursor"] == feed.cursor
        assert found["holder"] is not None
        assert found["lag"] == 0


def test_a_consumer_is_free_when_its_watch_was_left(client: Client) -> None:
    for _ in range(20):
        with client.watch(consumer="again"):
            pass


def test_a_held_consumer_is_refused_by_name_of_its_holder(instance: Instance, client: Client) -> None:
    with client.watch(consumer="held"), instance.connect() as other:
        with pytest.raises(VecError, match=f"process {os.getpid()}") as refused:
            other.watch(consumer="held")
        assert refused.value.code == "consumer_held"
        with pytest.raises(VecError) as refused:
            other.reset_consumer("held", "beginning")
        assert refused.value.code == "consumer_held"
    until(lambda: client.delete_consumer("held")["name"] == "held", "its deletion")


def test_acks_are_pipelined_and_what_goes_wrong_is_raised_later(client: Client, library: str) -> None:
    put(client, library, *(f"{number}" for number in range(200)))
    with client.watch("beginning", libraries=[library], consumer="eager", limit=200) as feed:
        for _ in feed:
            feed.ack()
    (found,) = (each for each in client.consumers() if each["name"] == "eager")
    assert found["cursor"] == feed.cursor
    with pytest.raises(VecError) as refused, client.watch(consumer="eager") as feed:
        feed.ack("nonsense")
    assert refused.value.code == "invalid_cursor"


def test_flush_waits_until_a_consumer_has_acknowledged(instance: Instance, client: Client, library: str) -> None:
    with client.watch(libraries=[library], consumer="slow") as feed, instance.connect() as other:
        put(client, library, "a")
        with pytest.raises(VecError) as late:
            other.flush("slow", timeout_s=0.2)
        assert late.value.code == "timeout"
        flushed: list[str] = []
        waiting = threading.Thread(target=lambda: flushed.append(other.flush("slow", timeout_s=60)))
        waiting.start()
        for message in feed.messages():
            feed.ack(message.cursor)
            if message.events:
                break
        waiting.join()
        assert flushed == [f"{client.log}:{client.status()['seq']}"]


def test_a_thousand_watches_of_one_connection_all_get_everything(client: Client, library: str) -> None:
    with ExitStack() as stack:
        feeds = [stack.enter_context(client.watch(libraries=[library], types=["document.*"])) for _ in range(1_000)]
        put(client, library, "a", "b")
        assert {tuple(ids(first(feed, 2))) for feed in feeds} == {("a", "b")}


def test_a_watch_at_the_head_hears_within_a_heartbeat_how_far_the_log_is_whenever_it_began() -> None:
    """Six watches of different views, begun in steps of a sixth of it: for one of them the daemon has just ticked."""
    heartbeat_s = 2.0
    with Instance({"VEC_EMBEDDER": "hash", "VEC_HEARTBEAT_S": str(heartbeat_s)}) as own, ExitStack() as stack:
        own.start()
        begun: list[tuple[float, Client, Watch]] = []
        for kind in ("document.added", "document.updated", "document.deleted"):
            for more in ((), ("chunk.added",)):
                client = stack.enter_context(own.connect())
                assert client.limits["heartbeat_s"] == heartbeat_s
                feed = client.watch("now", types=[kind, *more])
                begun.append((time.monotonic(), client, feed))
                time.sleep(heartbeat_s / 6)
        for since, client, feed in begun:
            # One that waits for two ticks of a whole heartbeat hears after up to 4 s.
            bound_s = since + 1.75 * heartbeat_s - time.monotonic()
            assert client.wait_until(lambda feed=feed: feed.ready, bound_s)  # type: ignore[misc]
