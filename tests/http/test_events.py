"""Server-sent events: what arrives, resuming, filters, and what ends a stream; through httpx and curl."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.running import fresh
from tests.support.waiting import PATIENCE_S, until

PATH = "/v1/events/stream"


class Sent(NamedTuple):
    """A server-sent event."""

    event: str
    id: str | None
    data: Any


def parse(lines: Iterator[str]) -> Iterator[Sent]:
    """As the specification of server-sent events says, except that an `id` is returned only with its own event."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield Sent(fields.get("event", "message"), fields.get("id"), json.loads(fields["data"]))
        fields = {}


class Stream:
    """An open stream: its events, read one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._sent = parse(response.iter_lines())
        self.cursor: str | None = None

    def take(self, count: int) -> list[Sent]:
        found = [next(self._sent) for _ in range(count)]
        self.cursor = next((each.id for each in reversed(found) if each.id), self.cursor)
        return found

    def rest(self) -> list[Sent]:
        return list(self._sent)


@contextmanager
def stream(url: str, cursor: str | None = None, **query: Any) -> Iterator[Stream]:
    """Opens a stream, and returns when the subscription has begun."""
    headers = {} if cursor is None else {"last-event-id": cursor}
    with httpx.stream("GET", url + PATH, params=query, headers=headers, timeout=PATIENCE_S) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield Stream(response)


def whole(url: str, cursor: str | None = None, **query: Any) -> list[Sent]:
    """All events up to the head, without the `end`."""
    with stream(url, cursor, follow="false", **query) as opened:
        *events, end = opened.rest()
    assert end.event == "end"
    return events


def write(instance: Instance, library: str, ids: list[str], **more: Any) -> None:
    with instance.connect() as client:
        client.ingest([{"id": each, "text": f"text of {each}", **more} for each in ids], library)


def head(instance: Instance) -> str:
    with instance.connect() as client:
        return client.flush()


def serves(instance: Instance) -> bool:
    """Whether a daemon answers; starts none."""
    return instance.vec("status", "--no-spawn", status=None).returncode == 0


@pytest.fixture
def own() -> Iterator[Instance]:
    """An instance whose daemon the test may kill."""
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


# --- what arrives ---------------------------------------------------------------------------------------------------


def test_an_event_arrives_with_its_type_cursor_and_data(instance: Instance, gateway: Gateway, library: str) -> None:
    with stream(gateway.url, library_id=library) as opened:
        write(instance, library, ["a"], title="A")
        added, chunk = opened.take(2)
        log, _, seq = str(added.id).partition(":")
        assert added.event == "document.added"
        assert added.data["seq"] == int(seq)
        assert {key: added.data[key] for key in ("library_id", "document_id", "title", "chunks", "chunk_ids")} == {
            "library_id": library, "document_id": "a", "title": "A", "chunks": 1, "chunk_ids": ["a#0"],
        }  # fmt: skip
        assert "id" not in added.data
        assert added.data["at"].endswith("Z")
        assert (chunk.event, chunk.id) == ("chunk.added", f"{log}:{int(seq) + 1}")
        assert chunk.data["document_id"] == "a"


def test_the_designs_page_gets_the_document_id(instance: Instance, gateway: Gateway, library: str) -> None:
    """With curl, as the page's EventSource asks."""
    command = ["curl", "-sSN", "--max-time", "60", f"{gateway.url}{PATH}?library_id={library}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        assert [curl.stdout.readline() for _ in range(2)] == ["retry: 1000\n", "\n"]
        assert curl.stdout.readline().startswith("id: ")  # where it begins: the subscription is active
        write(instance, library, ["x"])
        first = next(parse(line.rstrip("\n") for line in curl.stdout))
        assert (first.event, first.data["document_id"]) == ("document.added", "x")
        curl.kill()


def test_filters_select(instance: Instance, gateway: Gateway, library: str) -> None:
    other = fresh(instance)
    cursor = head(instance)
    write(instance, library, ["a"], metadata={"year": 2020})
    write(instance, library, ["b"], metadata={"year": 2021})
    write(instance, other, ["c"])
    with instance.connect() as client:
        client.delete(["a"], library)
    by_type = whole(gateway.url, cursor, library_id=[library, other], type=["document.deleted", "*.added"])
    assert [each.data.get("document_id") for each in by_type if each.event.startswith("document")] == list("abca")
    by_where = whole(gateway.url, cursor, library_id=library, where="year > 2020", type="document.*")
    assert [each.data["document_id"] for each in by_where] == ["b"]
    by_library = whole(gateway.url, cursor, library_id=other)
    assert {each.data["library_id"] for each in by_library} == {other}
    with_payload = whole(gateway.url, cursor, library_id=library, payload="true", vectors="true", type="document.*")
    document = with_payload[0].data["document"]
    assert document["metadata"] == {"year": 2020}
    assert all(isinstance(number, float) for number in document["chunks"][0]["vector"])


def test_a_snapshot_comes_first_then_every_later_event(instance: Instance, gateway: Gateway, library: str) -> None:
    write(instance, library, [f"d{n:04d}" for n in range(700)])
    with stream(gateway.url, library_id=library, snapshot="true", type="document.*") as opened:
        first = opened.take(1)
        write(instance, library, ["later"])
        found = first + opened.take(702)
    documents = [each.data["document_id"] for each in found if each.event == "snapshot.document"]
    assert documents == [f"d{n:04d}" for n in range(700)]
    assert [each.event for each in found[-2:]] == ["snapshot.end", "document.added"]


def test_a_snapshot_is_resumed_where_it_was_left(instance: Instance, gateway: Gateway, library: str) -> None:
    write(instance, library, [f"d{n:04d}" for n in range(700)])
    with stream(gateway.url, library_id=library, snapshot="true") as opened:
        seen: list[Sent] = []
        while not seen or seen[-1].id is None or len(seen) < 100:
            seen += opened.take(1)
    seen += whole(gateway.url, seen[-1].id, library_id=library, snapshot="true")
    documents = [each.data["document_id"] for each in seen if each.event == "snapshot.document"]
    assert documents == [f"d{n:04d}" for n in range(700)]


def test_clients_of_the_same_stream_share_one_watch_of_the_daemon(
    instance: Instance, gateway: Gateway, library: str
) -> None:
    with instance.connect() as client:
        before = client.status()["watchers"]
        with stream(gateway.url, library_id=library) as one, stream(gateway.url, library_id=library) as two:
            with stream(gateway.url, library_id=library) as three:
                until(lambda: client.status()["watchers"] == before + 1)
                write(instance, library, ["a", "b"])
                assert one.take(4) == two.take(4) == three.take(4)
            write(instance, library, ["c"])
            assert one.take(2) == two.take(2)
        until(lambda: client.status()["watchers"] == before)


def test_a_consumer_begins_at_what_it_has_acknowledged(instance: Instance, gateway: Gateway, library: str) -> None:
    with stream(gateway.url, library_id=library, consumer="mine") as opened:
        write(instance, library, ["a"])
        first = opened.take(2)
        refused = httpx.get(gateway.url + PATH, params={"consumer": "mine"})
        assert (refused.status_code, refused.json()["code"]) == (409, "consumer_held")
    assert first[1].id is not None
    httpx.post(f"{gateway.url}/v1/consumers/mine/ack", json={"cursor": first[0].id}).raise_for_status()
    again: list[Sent] = []

    def taken() -> bool:
        """The daemon may not have noticed yet that the first stream has gone."""
        with httpx.stream("GET", gateway.url + PATH, params={"library_id": library, "consumer": "mine"}) as response:
            if response.status_code == 409:
                return False
            again.extend(Stream(response).take(1))
            return True

    until(taken)
    assert again == first[1:]


# --- resuming -------------------------------------------------------------------------------------------------------


def test_reconnecting_after_any_number_of_events_misses_and_repeats_none(
    instance: Instance, gateway: Gateway, library: str
) -> None:
    cursor = before = head(instance)

    def write_all() -> None:
        for n in range(60):
            write(instance, library, [f"{n}-{m}" for m in range(n % 7 + 1)])

    writing = threading.Thread(target=write_all)
    writing.start()
    seen: list[Sent] = []
    total = sum(2 * (n % 7 + 1) for n in range(60))
    take = 1
    with stream(gateway.url, library_id=library):  # which keeps the shared watch going
        while len(seen) < total:
            with stream(gateway.url, cursor, library_id=library) as opened:
                seen += opened.take(min(take, total - len(seen)))
                cursor = str(opened.cursor)
            take = take % 23 + 1
    writing.join()
    assert seen == whole(gateway.url, before, library_id=library)
    assert len({each.id for each in seen}) == total


def test_the_parameter_from_resumes_as_last_event_id_does(instance: Instance, gateway: Gateway, library: str) -> None:
    write(instance, library, ["a", "b"])
    events = whole(gateway.url, library_id=library, **{"from": "beginning"})
    for place, each in enumerate(events):
        assert whole(gateway.url, library_id=library, **{"from": each.id}) == events[place + 1 :]
        assert whole(gateway.url, each.id, library_id=library, **{"from": "beginning"}) == events[place + 1 :]


def test_a_cursor_of_another_log_gets_204(gateway: Gateway, library: str) -> None:
    answer = httpx.get(gateway.url + PATH, headers={"last-event-id": "0123456789abcdef:3"})
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_trimmed_cursor_gets_an_error_event_with_the_oldest_cursor_and_the_end(own: Instance) -> None:
    with own.connect() as client:
        client.create_library("notes")
        write(own, "notes", [str(n) for n in range(20)])
        client.trim(keep_count=5)
    with Gateway(own) as gateway:
        with stream(gateway.url, **{"from": "beginning"}) as opened:
            (error,) = opened.rest()
        assert (error.event, error.data["code"], error.data["status"]) == ("error", "compacted", 410)
        assert len(whole(gateway.url, error.data["oldest"])) == 6  # a document's events stay together
        gap, *events = whole(gateway.url, **{"from": "beginning", "on_gap": "oldest"})
        assert (gap.event, gap.data["code"], len(events)) == ("gap", "compacted", 6)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"from": "yesterday"}, 422, "invalid_cursor"),
        ({"where": "year >"}, 422, "invalid_filter"),
        ({"library_id": "nowhere"}, 404, "not_found"),
        ({"type": "x" * 65}, 400, "invalid_request"),
        ({"snapshot": "perhaps"}, 400, "invalid_request"),
        ({"on_gap": "pray"}, 400, "invalid_request"),
        ({"from": "beginning", "snapshot": "true"}, 400, "invalid_request"),
        ({"librry_id": "a"}, 400, "invalid_request"),
    ],
)
def test_a_stream_that_cannot_begin_is_refused_as_a_problem(
    gateway: Gateway, query: dict[str, str], status: int, code: str
) -> None:
    answer = httpx.get(gateway.url + PATH, params=query)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_head_request_does_not_wait_for_events(http: httpx.Client) -> None:
    assert http.head(PATH).headers["content-type"].startswith("text/event-stream")


# --- restarts and the end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", [{}, {"consumer": "mine"}, {"library_id": "notes"}])
def test_a_killed_daemon_ends_no_stream_and_no_event_is_lost_or_repeated(own: Instance, query: dict[str, str]) -> None:
    with own.connect() as client:
        client.create_library("notes")
    with Gateway(own) as gateway, stream(gateway.url, type="document.added", **query) as opened:
        for number in range(3):
            write(own, "notes", [f"{number}-{n}" for n in range(10)])
            if number:
                seen = opened.take(10)
                assert [each.data["document_id"] for each in seen] == [f"{number}-{n}" for n in range(10)]
            else:
                assert len(opened.take(5)) == 5
                assert len(opened.take(5)) == 5
            pid = own.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            # The gateway starts it again, because it follows.
            until(lambda: serves(own))
        write(own, "notes", ["last"])
        assert opened.take(1)[0].data["document_id"] == "last"


def test_a_daemon_that_was_stopped_on_purpose_is_waited_for(own: Instance) -> None:
    with own.connect() as client:
        client.create_library("notes")
    with Gateway(own) as gateway, stream(gateway.url, library_id="notes", type="document.added") as opened:
        own.vec("daemon", "stop")
        time.sleep(1.5)  # several attempts of the gateway to reconnect
        assert not serves(own)
        own.vec("ingest", "-l", "notes", stdin='{"id":"a","text":"x"}\n')
        assert opened.take(1)[0].data["document_id"] == "a"


def test_a_stop_of_the_gateway_ends_streams_with_a_last_event_that_a_client_can_resume_from(own: Instance) -> None:
    with own.connect() as client:
        client.create_library("notes")
    with Gateway(own) as gateway:
        with stream(gateway.url) as opened, stream(gateway.url, consumer="mine") as held:
            write(own, "notes", ["a"])
            assert len(opened.take(2)) == len(held.take(2)) == 2
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            (end,), (held_end,) = opened.rest(), held.rest()
            assert (end.event, end.data["reason"], end.id) == ("end", "shutting_down", opened.cursor)
            assert held_end.event == "end"
        assert gateway.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - began < 8
    write(own, "notes", ["b"])
    with Gateway(own) as gateway, stream(gateway.url, end.id) as opened:
        assert [each.data["document_id"] for each in opened.take(2)] == ["b", "b"]


# --- slow and many --------------------------------------------------------------------------------------------------


def raw_stream(gateway: Gateway, query: str = "", buffer_bytes: int | None = None) -> socket.socket:
    """A stream on a plain socket, of which nothing is read."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    sock = socket.socket()
    if buffer_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    sock.settimeout(PATIENCE_S)
    sock.connect((host, int(port)))
    sock.sendall(f"GET {PATH}?{query} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    return sock


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_a_client_that_never_reads_costs_little_and_gets_everything_when_it_reads(own: Instance) -> None:
    title = "t" * 500
    with own.connect() as client:
        client.create_library("notes", embedder="none", dimension=2)
        with Gateway(own) as gateway:
            slow = [raw_stream(gateway, "type=document.added", 4096) for _ in range(20)]
            for each in slow:
                head = b""
                while b"id: " not in head:
                    head += each.recv(256)
            with stream(gateway.url, type="document.added") as quick:
                before = resident_kib(gateway.process.pid)
                for start in range(0, 8_000, 2_000):
                    client.ingest(
                        [{"id": f"{n:06d}", "title": title, "vector": [1.0, n]} for n in range(start, start + 2_000)],
                        "notes",
                    )
                assert [each.data["document_id"] for each in quick.take(8_000)] == [f"{n:06d}" for n in range(8_000)]
                grown = resident_kib(gateway.process.pid) - before
            assert grown < 40 * 1024, f"{grown} KiB for 20 clients that do not read 5 MB each"
            for each in slow[1:]:
                each.close()
            text = b""
            while b'"document_id":"007999"' not in text[-4096:]:
                text += slow[0].recv(1 << 20)
            slow[0].close()
            text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", text)  # the boundaries of chunks
            found = [part[:6].decode() for part in text.split(b'"document_id":"')[1:]]
            assert found == [f"{n:06d}" for n in range(8_000)]


def test_a_thousand_streams_with_few_files(own: Instance) -> None:
    """The gateway raises its soft limit; the daemon sees one connection for all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with own.connect() as client, contextlib.ExitStack() as stack:
        client.create_library("notes")
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # the gateway inherits it
        gateway = stack.enter_context(Gateway(own))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
        streams = [stack.enter_context(raw_stream(gateway, "type=document.added")) for _ in range(1_000)]
        for each in streams:
            assert each.recv(64).startswith(b"HTTP/1.1 200")
        assert client.status()["connections"] < 60
        write(own, "notes", ["a"])
        for each in streams:
            got = b""
            while b'"document_id":"a"' not in got:
                piece = each.recv(65536)
                assert piece
                got += piece
        for each in streams:
            each.close()
        # The files of the streams that have ended are free again.
        until(lambda: httpx.get(f"{gateway.url}/healthz").status_code == 200)


def test_the_last_events_of_bursts_arrive_without_a_heartbeat() -> None:
    """A lost wake-up would show as a wait for the next heartbeat, which never comes here."""
    with Instance({"VEC_HEARTBEAT_S": "3600"}) as instance:
        instance.start()
        with instance.connect() as client, Gateway(instance) as gateway, contextlib.ExitStack() as stack:
            client.create_library("notes", embedder="none", dimension=2)
            opened = [stack.enter_context(stream(gateway.url, type="document.added")) for _ in range(10)]
            for burst in range(40):
                wanted = [f"{burst}-{number}" for number in range(burst % 7 + 1)]
                for document in wanted:
                    client.ingest([{"id": document, "vector": [1, 2]}], "notes")
                for each in opened:
                    assert [sent.data["document_id"] for sent in each.take(len(wanted))] == wanted


def test_a_stream_that_is_late_gets_many_events_in_one_piece(own: Instance) -> None:
    with own.connect() as client:
        client.create_library("notes", embedder="none", dimension=2)
        with Gateway(own) as gateway, raw_stream(gateway, "type=document.added") as sock:
            got = b""
            while b"\nid: " not in got:  # it has begun
                got += sock.recv(65_536)
            os.kill(gateway.process.pid, signal.SIGSTOP)
            try:
                for number in range(200):
                    client.ingest([{"id": str(number), "vector": [1, 2]}], "notes")
            finally:
                os.kill(gateway.process.pid, signal.SIGCONT)
            got = b""
            while b'"document_id":"199"' not in got:
                piece = sock.recv(65_536)
                assert piece
                got += piece
    assert re.findall(rb'"document_id":"(\d+)"', got) == [b"%d" % number for number in range(200)]
    assert len(re.findall(rb"(?m)^[0-9a-f]+\r$", got)) < 50  # chunks


# --- who may --------------------------------------------------------------------------------------------------------


def test_a_key_for_some_libraries_sees_the_events_of_those_only(own: Instance) -> None:
    with own.connect() as client:
        for name in ("mine", "theirs"):
            client.create_library(name)
    made = own.objects(
        "keys", "create", "reader", "--scope", "read", "--library", "mine", "--library", "absent", "--json"
    )
    headers = {"authorization": f"Bearer {made[0]['key']}"}
    with Gateway(own) as gateway:
        with httpx.stream("GET", gateway.url + PATH, headers=headers, timeout=PATIENCE_S) as response:
            opened = Stream(response)
            write(own, "theirs", ["a"])
            write(own, "mine", ["b"])
            assert [each.data["library_id"] for each in opened.take(2)] == ["mine", "mine"]
        for query in ({"library_id": "theirs"}, {"consumer": "c"}):
            refused = httpx.get(gateway.url + PATH, headers=headers, params=query)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
