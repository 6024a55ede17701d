"""WebSockets with JSON messages, through a real client: documents, searches, subscriptions, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.waiting import PATIENCE_S
from vecd import limits


class Peer:
    """A client, which keeps the answers and the events that arrive apart."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.events: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []

    async def send(self, action: str, **fields: Any) -> None:
        await self.connection.send(json.dumps({"action": action, **fields}))

    async def receive(self) -> dict[str, Any]:
        """The next message, of either kind."""
        message: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), PATIENCE_S))
        (self.events if "event" in message else self.answers).append(message)
        return message

    async def answer(self, number: Any = None) -> dict[str, Any]:
        """The answer with that id (None: the next)."""
        while True:
            for message in self.answers:
                if number is None or message.get("id") == number:
                    self.answers.remove(message)
                    return message
            await self.receive()

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        await self.send(action, id="ask", **fields)
        return await self.answer("ask")

    async def ending(self) -> Close:
        """Receives to the end; returns the close frame."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None
            return closed.rcvd

    async def event(self) -> dict[str, Any]:
        """The next event; heartbeats are not."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] != "heartbeat":
                    return event
            await self.receive()


@contextlib.asynccontextmanager
async def peer(gateway: Gateway, path: str = "/v1/ws", **options: Any) -> AsyncIterator[Peer]:
    async with connect(gateway.websocket_url + path, max_size=None, **options) as connection:
        yield Peer(connection)


def test_the_messages_of_the_design_work_as_they_stand(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            await ws.connection.send('{"action":"subscribe","events":["document.added"]}')
            assert (await ws.answer())["status"] == "ok"
            text = '{"action":"add_document","data":{"title":"New Doc","texts":["machine learning","chunk 2"]}}'
            await ws.connection.send(text)
            added = await ws.answer()
            assert (added["status"], added["result"]) == ("ok", "added")
            assert added["id"] == added["document_id"]
            await ws.connection.send('{"action":"search","query":"machine learning","k":10}')
            found = await ws.answer()
            assert (found["status"], found["hits"][0]["document_id"]) == ("ok", added["id"])
            event = await ws.event()
            assert event["event"] == "document.added"
            assert event["library_id"] == library
            assert event["data"]["document_id"] == added["id"]
            assert event["cursor"].endswith(f":{event['data']['seq']}")

    asyncio.run(scenario())


def test_every_action_answers_with_the_id_that_was_given(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            documents = [{"id": f"d{n}", "text": f"number {n}"} for n in range(3)]
            written = await ws.ask("add_documents", documents=documents)
            assert [each["status"] for each in written["documents"]] == ["added"] * 3
            assert (await ws.ask("ping"))["status"] == "ok"
            assert (await ws.ask("count"))["documents"] == 3
            got = await ws.ask("get", ids=["d1", "nothing"])
            assert [each and each["id"] for each in got["documents"]] == ["d1", None]
            assert (await ws.ask("delete", ids=["d1"]))["deleted"] == 1
            assert library in [each["name"] for each in (await ws.ask("libraries"))["libraries"]]
            job = await ws.ask("submit_job", kind="rebuild")
            assert job["status_url"] == f"/v1/jobs/{job['job_id']}"
            shown = await ws.ask("job", job_id=job["job_id"])
            assert shown["job"]["kind"] == "rebuild"
            assert shown["job"]["status"] in ("pending", "running", "completed")
            assert "jobs" in await ws.ask("queue")
            await ws.send("ping", id=7.5)
            assert (await ws.answer())["id"] == 7.5

    asyncio.run(scenario())


def test_a_vector_is_a_list_of_numbers_both_ways(gateway: Gateway, vectors: str) -> None:
    async def scenario() -> None:
        async with peer(gateway) as ws:
            data = {"id": "a", "vector": [1, 0, 0]}
            assert (await ws.ask("add_document", library=vectors, data=data))["result"] == "added"
            (hit,) = (await ws.ask("search", library=vectors, vector=[1, 0, 0]))["hits"]
            assert (hit["document_id"], hit["score"]) == ("a", pytest.approx(1))
            (found,) = (await ws.ask("get", library=vectors, ids=["a"], vectors=True))["documents"]
            assert found["chunks"][0]["vector"] == [1, 0, 0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("{", "invalid_request", "not JSON"),
        ("[1]", "invalid_request", "must be a JSON object"),
        ("{}", "invalid_request", "no 'action'"),
        ('{"action": "serach"}', "invalid_request", "there is no action 'serach'"),
        ('{"action": ["search"]}', "invalid_request", "there is no action"),
        ('{"action": "search", "kk": 3}', "invalid_request", "unknown key 'kk'"),
        ('{"action": "search", "query": "x", "k": 0}', "invalid_request", "k"),
        ('{"action": "search", "query": "x", "library": "other"}', "invalid_request", "for the library"),
        ('{"action": "search", "query": "x", "libraries": ["*"]}', "invalid_request", "for the library"),
        ('{"action": "search", "query": "x", "where": "a ="}', "invalid_filter", ""),
        ('{"action": "add_document", "data": 3}', "invalid_document", "must be an object"),
        ('{"action": "add_document"}', "invalid_request", "'data' is missing"),
        ('{"action": "add_document", "data": {"id": "a", "text": "x", "metadata": {"n": 1e400}}}', "", ""),
        ('{"action": "add_documents", "documents": {}}', "invalid_request", "must be a list"),
        ('{"action": "subscribe", "from": "nowhere"}', "invalid_cursor", ""),
        ('{"action": "subscribe", "events": "document.added"}', "invalid_request", "list of strings"),
        ('{"action": "unsubscribe", "subscription": 9}', "not_found", "no subscription 9"),
        ('{"action": "ack", "consumer": "nobody", "cursor": "x"}', "invalid_cursor", ""),
        ('{"action": "ping", "id": [1]}', "invalid_request", "'id' must be"),
        ('{"action": "ping", "id": {}}', "invalid_request", "'id' must be"),
    ],
)
def test_a_mistake_is_answered_and_ends_nothing(
    gateway: Gateway, library: str, text: str, code: str, said: str
) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            await ws.connection.send(text)
            answer = await ws.answer()
            assert answer["status"] == "error"
            assert answer["error"]["code"] == (code or answer["error"]["code"])
            assert said in answer["error"]["message"]
            assert (await ws.ask("ping"))["status"] == "ok"

    asyncio.run(scenario())


def test_writes_take_effect_in_the_order_of_their_messages(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            for n in range(300):
                await ws.send("add_document", id=n, data={"id": "same", "text": f"version {n}"})
                await ws.send("search", id=f"s{n}", query="version")
            await ws.send("delete", id="deleted", ids=["same"])
            await ws.send("add_document", id="last", data={"id": "same", "text": "last of all"})
            for n in range(300):
                assert (await ws.answer(n))["status"] == "ok"
                assert (await ws.answer(f"s{n}"))["status"] == "ok"
            assert (await ws.answer("deleted"))["deleted"] == 1
            assert (await ws.answer("last"))["result"] == "added"
            (found,) = (await ws.ask("get", ids=["same"]))["documents"]
            assert found["chunks"][0]["text"] == "last of all"

    asyncio.run(scenario())


def test_many_subscriptions_each_get_what_they_asked_for(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            added = (await ws.ask("subscribe", events=["document.added"]))["subscription"]
            everything = (await ws.ask("subscribe", **{"from": "beginning"}))["subscription"]
            odd = await ws.ask("subscribe", events=["document.*"], where="n = 1", payload=True)
            assert len({added, everything, odd["subscription"]}) == 3
            for n in (1, 2):
                await ws.ask("add_document", data={"id": f"d{n}", "text": "x", "metadata": {"n": n}})
            seen: dict[int, list[str]] = {}
            while len(seen.get(everything, ())) < 5:
                event = await ws.event()
                seen.setdefault(event["subscription"], []).append(event["event"])
            assert seen[everything][0] == "library.created"
            assert seen[added] == ["document.added"] * 2
            assert seen[odd["subscription"]] == ["document.added"]
            stopped = await ws.ask("unsubscribe", subscription=added)
            assert stopped["status"] == "ok"
            await ws.ask("add_document", data={"id": "d3", "text": "x", "metadata": {"n": 1}})
            late = [await ws.event() for _ in range(3)]
            assert added not in [each["subscription"] for each in late]

    asyncio.run(scenario())


def test_a_subscription_resumes_from_a_cursor(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            await ws.ask("add_documents", documents=[{"id": f"d{n}", "text": "x"} for n in range(10)])
            await ws.ask("subscribe", events=["document.added"], **{"from": "beginning"})
            events = [await ws.event() for _ in range(5)]
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            await ws.ask("subscribe", events=["document.added"], **{"from": events[-1]["cursor"]})
            events += [await ws.event() for _ in range(5)]
        assert [each["data"]["document_id"] for each in events] == [f"d{n}" for n in range(10)]

    asyncio.run(scenario())


def test_a_consumer_resumes_behind_what_it_acknowledged(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        path, consumer = f"/v1/libraries/{library}/ws", f"c-{library}"
        begin = {"events": ["document.added"], "consumer": consumer, "from": "beginning"}
        async with peer(gateway, path) as ws:
            await ws.ask("add_documents", documents=[{"id": f"d{n}", "text": "x"} for n in range(3)])
            await ws.ask("subscribe", **begin)
            first = await ws.event()
            assert (await ws.ask("ack", consumer=consumer, cursor=first["cursor"]))["status"] == "ok"
            held = await ws.ask("subscribe", **begin)
            assert held["error"]["code"] == "consumer_held"
        async with peer(gateway, path) as ws:
            while (answer := await ws.ask("subscribe", **begin))["status"] == "error":
                assert answer["error"]["code"] == "consumer_held"  # the first connection's end is not seen at once
            assert (await ws.event())["data"]["document_id"] == "d1"

    asyncio.run(scenario())


def test_an_answer_that_is_too_long_for_a_frame_comes_in_parts(gateway: Gateway, library: str) -> None:
    async def scenario() -> None:
        async with peer(gateway, f"/v1/libraries/{library}/ws") as ws:
            text = "word " * 19_000
            for n in range(5):
                made = await ws.ask("add_document", data={"id": f"big{n}", "texts": [text] * 40})
                assert made["status"] == "ok"
            await ws.send("get", id="all", ids=[f"big{n}" for n in range(5)])
            documents: list[str] = []
            while True:
                answer = await ws.answer("all")
                documents += [each["id"] for each in answer["documents"]]
                if answer["status"] == "ok":
                    break
                assert answer["status"] == "part"
            assert documents == [f"big{n}" for n in range(5)]

    asyncio.run(scenario())


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_binary_message_ends_the_connection_with_a_reason(gateway: Gateway) -> None:
    async def scenario() -> None:
        async with peer(gateway) as ws:
            await ws.connection.send(b"\x80")
            ending = await ws.ending()
            assert (ending.code, ending.reason[:15]) == (1003, "protocol_error:")

    asyncio.run(scenario())


def test_a_message_over_the_limit_ends_the_connection_with_1009(gateway: Gateway) -> None:
    async def scenario() -> None:
        async with peer(gateway) as ws:
            with contextlib.suppress(ConnectionClosed):
                await ws.connection.send("x" * (16 * 1024 * 1024 + 1))
            assert (await ws.ending()).code == 1009

    asyncio.run(scenario())


@pytest.fixture
def own() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("library", "create", "default")
        yield made


def test_a_stopping_gateway_answers_and_ends_every_subscription_with_a_last_message(own: Instance) -> None:
    async def scenario(gateway: Gateway) -> None:
        async with peer(gateway) as ws:
            await ws.ask("subscribe", events=["document.added"])
            documents = [{"id": f"d{n}", "text": "x"} for n in range(200)]
            await ws.send("add_documents", id="last", documents=documents)
            await ws.ask("ping")
            gateway.process.send_signal(signal.SIGTERM)
            ending = await ws.ending()
            assert [each["status"] for each in ws.answers] == ["ok"]
            assert ws.events[-1]["event"] == "end"
            assert ws.events[-1]["data"]["reason"] == "shutting_down"
            assert (ending.code, ending.reason[:14]) == (1001, "shutting_down:")

    with Gateway(own) as gateway:
        asyncio.run(scenario(gateway))
        assert gateway.process.wait(PATIENCE_S) == 0


def test_a_subscription_outlives_a_daemon_that_is_killed(own: Instance) -> None:
    async def scenario(gateway: Gateway) -> None:
        async with peer(gateway) as ws:
            await ws.ask("subscribe", events=["document.added"])
            await ws.ask("add_document", data={"id": "before", "text": "x"})
            pid = own.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            while (answer := await ws.ask("add_document", data={"id": "after", "text": "x"}))["status"] == "error":
                assert answer["error"]["code"] in ("connection_lost", "no_daemon")
            assert [(await ws.event())["data"]["document_id"] for _ in range(2)] == ["before", "after"]
            assert own.pid() != pid

    with Gateway(own) as gateway:
        asyncio.run(scenario(gateway))


def test_a_peer_that_never_reads_costs_no_memory(own: Instance) -> None:
    """It subscribes to everything from the beginning and asks for ever more; others are served meanwhile."""

    async def scenario(gateway: Gateway) -> None:
        async with peer(gateway) as writer:
            documents = [{"id": f"d{n}", "text": "x" * 1_000, "metadata": {"m": "y" * 1_000}} for n in range(2_000)]
            assert (await writer.ask("add_documents", documents=documents))["added"] == 2_000
            before = _memory(gateway)
            deaf = _handshaken(gateway)
            deaf.setblocking(False)
            for n in range(200):
                action = {"action": "subscribe", "from": "beginning", "payload": True} if n < 20 else _GET
                with contextlib.suppress(BlockingIOError):
                    deaf.send(_frame(json.dumps({**action, "id": n})))
            for n in range(20):
                assert (await writer.ask("search", query="x", k=3))["status"] == "ok", n
            assert _memory(gateway) - before < 150 * 1024 * 1024
            deaf.close()
            assert (await writer.ask("ping"))["status"] == "ok"

    with Gateway(own) as gateway:
        asyncio.run(scenario(gateway))


_GET = {"action": "get", "ids": [f"d{n}" for n in range(2_000)]}


def _memory(gateway: Gateway) -> int:
    """Resident bytes of the gateway."""
    with open(f"/proc/{gateway.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _handshaken(gateway: Gateway) -> socket.socket:
    """A WebSocket of which nothing is read."""
    host, port = gateway.url.removeprefix("http://").split(":")
    sock = socket.create_connection((host, int(port)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.sendall(
        f"GET /v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert b" 101 " in sock.recv(1_024)
    return sock


def _frame(text: str) -> bytes:
    """A masked text frame; a mask of zeros changes nothing."""
    data = text.encode()
    return (
        b"\x81\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data
        if len(data) > 125
        else (bytes([0x81, 0x80 | len(data)]) + bytes(4) + data)
    )


@pytest.fixture(scope="module")
def impatient() -> Iterator[Gateway]:
    """A gateway that gives a message one second to arrive."""
    with Instance({"VEC_EMBEDDER": "hash", "VEC_STALL_S": "1"}) as made, Gateway(made) as gateway:
        made.vec("status")
        yield gateway


def _receive_answers(sock: socket.socket, count: int) -> None:
    """Reads as many answers, and no close frame."""
    read = b""
    sock.settimeout(PATIENCE_S)
    while read.count(b'"status":"ok"') < count:
        data = sock.recv(65_536)
        assert data
        assert b"\x88" not in data, data[-200:]
        read += data


def test_time_in_which_the_daemon_is_slow_is_not_the_clients(impatient: Gateway) -> None:
    """A message that has begun is not overdue while the gateway does not read on."""
    message = _frame('{"action":"ping"}')
    count = limits.UNANSWERED_MAX + 10
    pid = impatient.instance.pid()
    assert pid is not None
    with _handshaken(impatient) as sock:
        sock.sendall(message)
        _receive_answers(sock, 1)
        os.kill(pid, signal.SIGSTOP)
        try:
            sock.sendall(message * count + message[:9])
            assert not select.select([sock], [], [], 4)[0]  # neither an answer nor a close frame
        finally:
            os.kill(pid, signal.SIGCONT)
        sock.sendall(message[9:])
        _receive_answers(sock, count + 1)


def test_a_client_that_has_always_begun_the_next_message_is_not_overdue(impatient: Gateway) -> None:
    message = _frame('{"action":"ping"}')
    with _handshaken(impatient) as sock:
        sock.sendall(message[:9])
        end = time.monotonic() + 4
        while time.monotonic() < end:
            sock.sendall(message[9:] + message[:9])
            _receive_answers(sock, 1)


def test_a_message_that_stops_midway_ends_the_connection(impatient: Gateway) -> None:
    with _handshaken(impatient) as sock:
        sock.sendall(_frame('{"action":"ping"}')[:9])
        sock.settimeout(PATIENCE_S)
        assert sock.recv(1_024)[2:4] == (1008).to_bytes(2, "big")


def test_without_a_key_the_handshake_is_refused(own: Instance) -> None:
    secret = own.objects("keys", "create", "reader", "--library", "default")[0]["key"]

    async def scenario(gateway: Gateway) -> None:
        for path, options, status in (
            ("/v1/ws", {}, 401),
            ("/v1/ws", {"subprotocols": ["vec.msgpack"]}, 401),
            ("/v1/libraries/other/ws", {"additional_headers": {"Authorization": f"Bearer {secret}"}}, 403),
        ):
            with pytest.raises(InvalidStatus) as caught:
                async with peer(gateway, path, **options):
                    pass
            assert caught.value.response.status_code == status
            assert json.loads(caught.value.response.body)["code"] in ("unauthorized", "forbidden")
        async with peer(gateway, additional_headers={"Authorization": f"Bearer {secret}"}) as ws:
            assert (await ws.ask("count", library="default"))["status"] == "ok"
            for action, fields in (
                ("count", {"library": "other"}),
                ("add_document", {"library": "default", "data": {"text": "x"}}),
                ("subscribe", {}),
                ("libraries", {}),
            ):
                refused = await ws.ask(action, **fields)
                assert refused["error"]["code"] == "forbidden", action
            assert (await ws.ask("subscribe", library="default"))["status"] == "ok"

    with Gateway(own) as gateway:
        asyncio.run(scenario(gateway))
