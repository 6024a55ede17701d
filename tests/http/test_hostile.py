"""Hostile and broken clients against a real `vec serve`, through raw sockets. During and after each attack, others are
answered, and the gateway's memory is bounded."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import re
import resource
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.instance import BIN, Instance
from tests.support.waiting import PATIENCE_S, until
from vecd import limits
from vecd.http.keys import KeyFile

MIB = 1 << 20
HEAD_S = 1.0
#: What the gateway may grow by under one attack: far less than what the attack sends or asks for.
GROWTH_BYTES_MAX = 80 * MIB
#: 100 MiB, compressed to 100 KB.
BOMB = gzip.compress(bytes(25 * MIB), 1) * 4

ENVIRONMENT = {"VEC_EMBEDDER": "hash", "VEC_HTTP_HEAD_S": str(HEAD_S), "VEC_STALL_S": "2"}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway without keys: every client may do everything, which is the worst case."""
    with Instance(ENVIRONMENT) as instance:
        instance.vec("library", "create", "notes", "--embedder", "none", "--dimension", "3")
        documents = b"".join(b'{"id":"d%d","text":"%s","vector":[1,2,3]}\n' % (n, b"x" * 900) for n in range(4_000))
        instance.vec("ingest", "-l", "notes", stdin=documents)
        with Gateway(instance) as made:
            yield made


@pytest.fixture(autouse=True)
def bystander(gateway: Gateway) -> Iterator[None]:
    """The attack neither stops the gateway nor makes it grow, and it has answered others."""
    before = memory(gateway)
    yield
    if gateway.process.poll() is None:  # the last test ends it in order
        answered(gateway)
        # The allocator keeps what bodies took: what is held at a time is bounded, not what is returned to the system.
        assert memory(gateway) - before < limits.BODIES_BYTES_MAX + GROWTH_BYTES_MAX
    else:
        assert gateway.process.returncode == 0


def answered(gateway: Gateway) -> None:
    """Another client is answered, by the gateway and by the daemon behind it."""
    with httpx.Client(base_url=gateway.url, timeout=20) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/libraries/notes/count").json()["documents"] == 4_000


def memory(gateway: Gateway) -> int:
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(gateway.process.pid)], capture_output=True, check=True)
    return int(said.stdout) * 1024


class Raw:
    """A connection on which a test writes and reads bytes."""

    def __init__(self, gateway: Gateway, receive_buffer: int | None = None) -> None:
        url = httpx.URL(gateway.url)
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((url.host, url.port))

    def send(self, data: bytes) -> bool:
        """Sends it all; False if the gateway has closed the connection."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def flood(self, piece: bytes, bytes_max: int) -> int:
        """Sends the piece again and again until the gateway closes the connection; returns how many bytes."""
        sent = 0
        while sent < bytes_max and self.send(piece):
            sent += len(piece)
        return sent

    def is_reset(self) -> bool:
        """Whether the gateway has cut the connection off. Reads and writes nothing."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))

    def rest(self) -> bytes:
        """What arrives until the gateway closes the connection."""
        read = b""
        with contextlib.suppress(OSError):
            while piece := self.socket.recv(65_536):
                read += piece
        return read

    def status(self) -> int:
        """The status of the next answer; 0 if the connection is closed without one."""
        read = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in read:
                piece = self.socket.recv(4_096)
                if not piece:
                    return 0
                read += piece
        return int(read.split(b" ", 2)[1]) if read else 0

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def raw(gateway: Gateway) -> Iterator[Raw]:
    with Raw(gateway) as made:
        yield made


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def statuses(answer: bytes) -> int:
    """How many answers there are."""
    return len(re.findall(rb"HTTP/1\.1 \d{3} ", answer))


# --- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"a" * 65_536),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n" * 1_000),
        (b"GET /", b"a" * 65_536),
        (b"", b"a" * 65_536),
    ],
)
def test_an_endless_head_ends(raw: Raw, first: bytes, piece: bytes) -> None:
    assert raw.send(first)
    assert raw.flood(piece, 64 * MIB) < 8 * MIB


@pytest.mark.parametrize(
    "sent",
    [
        head("GET", "/healthz", f"X-A: {'a' * limits.HEAD_BYTES_MAX}"),
        head("GET", "/healthz", *(f"X-{n}: b" for n in range(limits.HEADERS_MAX))),
        head("GET", f"/{'a' * limits.HEAD_BYTES_MAX}"),
    ],
)
def test_a_head_that_is_too_large_is_answered_with_431(raw: Raw, sent: bytes) -> None:
    raw.send(sent)
    answer = raw.rest()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("start", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: local", b"\r\n"])
def test_a_head_that_does_not_end_is_closed_in_time(raw: Raw, start: bytes) -> None:
    began = time.monotonic()
    raw.send(start)
    answer = raw.rest()
    assert time.monotonic() - began < HEAD_S + 10
    assert not answer or b"408" in answer.split(b"\r\n")[0]


def test_one_byte_at_a_time_does_not_extend_the_time(gateway: Gateway, raw: Raw) -> None:
    sent = head("GET", "/healthz", f"X-A: {'a' * 2_000}")
    raw.socket.settimeout(0.05)
    count = 0
    for byte in sent:
        if not raw.send(bytes((byte,))):
            break
        with contextlib.suppress(TimeoutError):
            if b"408" in raw.socket.recv(4_096):
                break
        count += 1
    assert count < len(sent) // 2


def test_empty_lines_between_requests_do_not_keep_a_connection(raw: Raw) -> None:
    raw.send(head("GET", "/healthz"))
    assert raw.status() == 200
    raw.socket.settimeout(0.1)
    deadline = time.monotonic() + HEAD_S + 15
    closed = False
    while not closed and time.monotonic() < deadline:
        closed = not raw.send(b"\r\n")
        with contextlib.suppress(TimeoutError):
            closed = closed or raw.socket.recv(4_096) == b""
    assert closed


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n folded: 1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
        b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /heal thz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"\x00" * 1_000,
        b"\xff" * 1_000,
    ],
)
def test_what_is_not_a_request_is_refused(raw: Raw, sent: bytes) -> None:
    raw.send(sent)
    assert raw.status() in (0, 400, 404, 405)


# --- smuggling --------------------------------------------------------------------------------------------------------

CHUNKED = "Transfer-Encoding: chunked"
HIDDEN = b"GET /v1/libraries HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: 5", CHUNKED),
        (CHUNKED, "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5, 5",),
        ("Content-Length: +5",),
        ("Content-Length: -1",),
        ("Content-Length: 0x5",),
        ("Content-Length: 99999999999999999999999",),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: xchunked",),
        (CHUNKED, CHUNKED),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\x0bchunked",),
    ],
)
def test_a_request_whose_end_is_ambiguous_is_refused_and_nothing_after_it_is_read(
    raw: Raw, headers: tuple[str, ...]
) -> None:
    raw.send(head("POST", "/v1/libraries/notes/search", *headers) + b"0\r\n\r\n" + HIDDEN)
    answer = raw.rest()
    assert statuses(answer) == 1
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "body", [b"zz\r\n", b"5\r\nabc\r\nxx\r\n", b"-1\r\n", b"fffffffffffffffff1\r\n", b"5\nhello\n0\n\n"]
)
def test_a_body_with_wrong_chunks_is_refused(raw: Raw, body: bytes) -> None:
    raw.send(head("POST", "/v1/libraries/notes/search", CHUNKED) + body + HIDDEN)
    answer = raw.rest()
    assert statuses(answer) <= 1
    assert b" 200 " not in answer[:20]


def test_trailers_are_not_headers(gateway: Gateway) -> None:
    """A body with trailers is refused, also if they are harmless; so none becomes a header of this request or the
    next. The same requests without trailers are answered."""
    for trailer in (b"Authorization: Bearer x\r\n", b"Host: evil.example\r\n", b"X-A: b\r\n", b""):
        with Raw(gateway) as raw:
            raw.send(head("POST", "/v1/libraries/notes/documents/get", CHUNKED, "Connection: close"))
            raw.send(b"c\r\n" + b'{"ids":["a"]}'[:12] + b"\r\n1\r\n}\r\n0\r\n" + trailer + b"\r\n")
            answer = raw.rest()
        assert statuses(answer) == 1
        assert answer.startswith(b"HTTP/1.1 400 " if trailer else b"HTTP/1.1 200 "), answer
        assert (b"trailers" in answer) == bool(trailer)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"0\r\nX: ", b"a" * 65_536),
        (b"0\r\n", b"X: y\r\n" * 10_000),
        (b"1;", b"a=b;" * 16_000),
    ],
)
def test_endless_trailers_and_chunk_extensions_end_or_cost_nothing(raw: Raw, start: bytes, piece: bytes) -> None:
    raw.send(head("POST", "/v1/libraries/notes/search", CHUNKED) + start)
    assert raw.flood(piece, 200 * MIB) < 128 * MIB


def test_millions_of_tiny_chunks_do_not_hold_others_up(gateway: Gateway, raw: Raw) -> None:
    raw.send(head("POST", "/v1/libraries/notes/search", CHUNKED))
    assert raw.flood(b"1;x=y\r\na\r\n" * 8_000, 8 * MIB) >= 8 * MIB
    answered(gateway)


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent(raw: Raw) -> None:
    raw.send(head("POST", "/v1/libraries/notes/search", "Content-Length: 100000000", "Expect: 100-continue"))
    assert raw.status() == 413


@pytest.mark.parametrize(
    "path", ["/v1/libraries/notes/search", "/v1/libraries/notes/documents", "/nothing", "/healthz"]
)
def test_an_endless_body_ends(raw: Raw, path: str) -> None:
    raw.send(head("POST", path, CHUNKED))
    assert raw.flood(b"10000\r\n" + b" " * 65_536 + b"\r\n", 500 * MIB) < 100 * MIB


def test_a_line_of_100_mb_is_refused_and_the_lines_around_it_are_written(gateway: Gateway, raw: Raw) -> None:
    def line(name: bytes, text: bytes) -> bytes:
        return b'{"id":"%s","text":"x","vector":[%s]}\n' % (name, text)

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    before = memory(gateway)
    raw.send(head("POST", "/v1/libraries/notes/documents/stream", CHUNKED, "Connection: close"))
    raw.send(chunk(line(b"d0", b"3,2,1") + b'{"id":"huge","text":"'))
    assert raw.flood(chunk(b"1" * 65_536), 100 * MIB) >= 100 * MIB
    assert memory(gateway) - before < GROWTH_BYTES_MAX
    raw.send(chunk(b'"}\n' + line(b"d1", b"1,2,3")) + b"0\r\n\r\n")
    answer = raw.rest()
    said = [json.loads(each) for each in re.findall(rb"^\{.*\}$", answer, re.MULTILINE)]
    assert [each["status"] for each in said] == ["completed", "failed", "completed", "summary"]
    assert [each["line"] for each in said[:3]] == [1, 2, 3]
    assert f"{limits.LINE_BYTES_MAX:,} bytes" in said[1]["error"]["message"]
    assert said[3]["failed"] == 1
    assert "error" not in said[3]
    assert [said[0]["result"], said[2]["result"]] == ["updated", "updated"]


def test_a_body_that_stops_is_answered_in_time(gateway: Gateway) -> None:
    """Half a chunk, half a length, nothing: many at the same time."""
    starts = [
        head("POST", "/v1/libraries/notes/search", CHUNKED) + b'20\r\n{"query',
        head("POST", "/v1/libraries/notes/search", "Content-Length: 1000") + b'{"query"',
        head("POST", "/v1/libraries/notes/search", CHUNKED),
    ]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(gateway)) for _ in range(20) for _ in starts]
        for number, client in enumerate(clients):
            client.send(starts[number % len(starts)])
        answered(gateway)
        assert {client.status() for client in clients} == {408}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_compressed_body_is_refused(gateway: Gateway, encoding: str) -> None:
    answer = httpx.post(
        f"{gateway.url}/v1/libraries/notes/documents/stream", content=BOMB, headers={"content-encoding": encoding}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * MIB, 400),
        (b'{"a":' * MIB, 413),
        (b'{"query":' + b"9" * MIB + b"}", 400),
        (b"\xff" * MIB, 400),
        (b"{}" * MIB, 413),
        (b'{"vector":[' + b"1," * 7 * MIB + b"1]}", 413),
        (b'{"where":[' + b'"a",' * 3 * MIB + b'"a"]}', 413),
    ],
)
def test_a_body_that_is_hard_to_parse_is_refused(gateway: Gateway, body: bytes, status: int) -> None:
    answer = httpx.post(f"{gateway.url}/v1/libraries/notes/search", content=body, timeout=20)
    assert answer.status_code == status


def test_bodies_that_are_held_at_the_same_time_are_bounded(gateway: Gateway) -> None:
    """40 clients send 15 MiB each and do not finish: 600 MiB. Then what they held is free: the same again takes no more
    memory, and a large body is read."""
    size = 15 * MIB
    before = memory(gateway)
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Raw(gateway)) for _ in range(40)]
            for client in clients:
                client.send(head("POST", "/v1/libraries/notes/documents", f"Content-Length: {size + 1}"))
                client.flood(b"x" * MIB, size)
            assert memory(gateway) - before < limits.BODIES_BYTES_MAX + GROWTH_BYTES_MAX
            answered(gateway)
    large = b" " * size + b'{"query":"x"}'

    def is_read() -> bool:
        return httpx.post(f"{gateway.url}/v1/libraries/notes/search", content=large, timeout=20).status_code == 200

    until(is_read, "a large body is read again")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["events", "subscription"])
def test_clients_that_never_read_cost_little_and_are_cut_off(gateway: Gateway, kind: str) -> None:
    """STALL_S after the last byte that the kernel took, although the stream has more to send."""
    before = memory(gateway)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(10):
            if kind == "subscription":
                client = stack.enter_context(handshake(gateway, protocol=None, receive_buffer=4_096))
                assert client.status() == 101
                client.send(frame(1, b'{"action":"subscribe","from":"beginning","payload":true}'))
            else:
                client = stack.enter_context(Raw(gateway, receive_buffer=4_096))
                path = "/v1/events/stream?from=beginning&payload=true"
                client.send(
                    head("GET", path) if kind == "events" else head("GET", "/v1/libraries/notes/documents") * 16
                )
            clients.append(client)
        answered(gateway)
        assert memory(gateway) - before < GROWTH_BYTES_MAX
        began = time.monotonic()
        for client in clients:
            until(client.is_reset, "it is cut off")
        assert time.monotonic() - began < 30


def test_a_flood_of_pipelined_requests_is_bounded(gateway: Gateway) -> None:
    requests = head("GET", "/v1/libraries/notes/count") * 20_000
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(gateway)) for _ in range(20)]
        for client in clients:
            client.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                client.socket.send(requests)
        answered(gateway)


def test_some_pipelined_requests_are_answered_in_order(raw: Raw) -> None:
    raw.send(head("GET", "/healthz") * 4 + head("GET", "/nothing") + head("GET", "/healthz", "Connection: close"))
    answer = raw.rest()
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 4 + [b"404", b"200"]


def test_garbage_after_a_request_does_not_reach_its_answer(raw: Raw) -> None:
    raw.send(head("GET", "/v1/libraries/notes/documents") + b"\x00\x01garbage\r\n\r\n")
    answer = raw.rest()
    assert statuses(answer) <= 1


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e", "..", "%00", "a%00b", "%0d%0aX-Evil:%201", "%0aX:1", "a%2fb", "a%5cb", "%ff", "%c0%ae", "é", "%F0%9F%A6%8A",  # noqa: E501
        "a" * 60_000, "%25%32%65", "%E2%80%AE", "-", " ", "%20", "*", "a;b", "a?b", "a#b", "~", "CON", "%7f", "'", "%22",  # noqa: E501
    ],
)  # fmt: skip
def test_a_library_name_cannot_break_anything(raw: Raw, name: str) -> None:
    raw.send(head("GET", f"/v1/libraries/{name}/count", "Connection: close"))
    answer = raw.rest()
    assert int(answer.split(b" ", 2)[1]) in (307, 400, 404)
    assert statuses(answer) == 1
    fields = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\nx-evil" not in fields
    assert b"\nx:" not in fields


# --- connections ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def file_limit(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_idle_connections_against_a_low_file_limit_keep_nobody_out() -> None:
    environment = {**ENVIRONMENT, "VEC_HTTP_HEAD_S": "60"}
    with Instance(environment) as instance:
        instance.vec("status")
        prefix = ["prlimit", "--nofile=200:200"]
        command = [*prefix, str(BIN / "vec"), "serve", "--listen", "127.0.0.1:0"]
        process = subprocess.Popen(command, env=instance.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            url = httpx.URL(json.loads(process.stdout.readline())["url"])
            with contextlib.ExitStack() as stack, file_limit(4_096):
                for number in range(2_000):
                    idle = stack.enter_context(socket.socket())
                    idle.connect((url.host, url.port))
                    if number % 200 == 0:
                        assert httpx.get(f"{url}/v1/libraries", timeout=20).status_code == 200
                assert httpx.get(f"{url}/v1/libraries", timeout=20).status_code == 200
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE_S)
        assert b"Traceback" not in said


def test_one_key_and_one_client_cannot_take_all_connections() -> None:
    environment = {**ENVIRONMENT, "VEC_HTTP_CONNECTIONS": "20", "VEC_HTTP_REQUESTS_PER_KEY": "5"}
    with Instance(environment) as instance:
        _, secret = KeyFile.of(instance.settings).create("greedy", "write")
        instance.vec("library", "create", "notes")
        header = f"Authorization: Bearer {secret}"
        with Gateway(instance) as gateway, contextlib.ExitStack() as stack:
            for _ in range(5):  # bodies that never end hold a request each
                held = stack.enter_context(Raw(gateway))
                held.send(head("POST", "/v1/libraries/notes/documents/stream", header, CHUNKED))
            until(
                lambda: (
                    httpx.get(f"{gateway.url}/v1/libraries", headers={"authorization": f"Bearer {secret}"}).status_code
                    == 429
                ),
                "the key is at its limit",
            )
            answer = httpx.get(f"{gateway.url}/v1/libraries", headers={"authorization": f"Bearer {secret}"})
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            _, other = KeyFile.of(instance.settings).create("other", "read")
            answer = httpx.get(f"{gateway.url}/v1/libraries", headers={"authorization": f"Bearer {other}"})
            assert answer.status_code == 200


# --- WebSockets -------------------------------------------------------------------------------------------------------


def handshake(
    gateway: Gateway, *headers: str, protocol: str | None = "vec.msgpack", receive_buffer: int | None = None
) -> Raw:
    made = Raw(gateway, receive_buffer)
    nonce = base64.b64encode(os.urandom(16)).decode()
    wanted = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {nonce}"]
    wanted += [f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []
    made.send(head("GET", "/v1/ws", *wanted, *headers))
    return made


@pytest.fixture(params=[None, "vec.msgpack"])
def opened(gateway: Gateway, request: pytest.FixtureRequest) -> Iterator[Raw]:
    """A WebSocket with JSON messages, and one with the daemon's frames."""
    with handshake(gateway, protocol=request.param) as made:
        assert made.status() == 101
        yield made


def frame(opcode: int, data: bytes, final: bool = True, announced: int | None = None) -> bytes:
    """A frame, masked with zeros."""
    size = len(data) if announced is None else announced
    first = bytes(((0x80 if final else 0) | opcode,))
    if size < 126:
        return first + bytes((0x80 | size,)) + bytes(4) + data
    if size < 65_536:
        return first + b"\xfe" + struct.pack("!H", size) + bytes(4) + data
    return first + b"\xff" + struct.pack("!Q", size) + bytes(4) + data


def close_code(answer: bytes) -> int | None:
    """The code of the close frame with which an answer ends."""
    at = answer.rfind(b"\x88")
    return struct.unpack("!H", answer[at + 2 : at + 4])[0] if at >= 0 and len(answer) >= at + 4 else None


def test_a_frame_that_is_announced_as_huge_is_refused(opened: Raw) -> None:
    opened.send(frame(1, b"x" * 1_000, announced=1 << 40))
    assert close_code(opened.rest()) == 1009


def test_an_endless_fragmented_message_is_refused(opened: Raw) -> None:
    opened.send(frame(2, b"x", final=False))
    assert opened.flood(frame(0, b"x" * 60_000, final=False), 200 * MIB) < 64 * MIB
    assert close_code(opened.rest()) in (1009, None)


def test_endless_empty_fragments_are_refused(opened: Raw) -> None:
    opened.send(frame(2, b"", final=False))
    assert opened.flood(frame(0, b"", final=False) * 10_000, 64 * MIB) < 32 * MIB
    assert close_code(opened.rest()) in (1009, None)


def test_a_flood_of_pings_of_a_client_that_does_not_read_is_bounded(gateway: Gateway) -> None:
    with handshake(gateway) as client:
        assert client.status() == 101
        client.socket.settimeout(2)
        client.flood(frame(9, b"p" * 100) * 1_000, 100 * MIB)
        answered(gateway)


def test_a_flood_of_tiny_messages_is_bounded(gateway: Gateway) -> None:
    with handshake(gateway) as client:
        assert client.status() == 101
        client.socket.settimeout(2)
        client.flood(frame(2, b"{}") * 30_000, MIB)
        answered(gateway)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81\x05hello",  # not masked
        frame(3, b""),  # a reserved opcode
        b"\xf1" + frame(1, b"x")[1:],  # reserved bits
        frame(9, b"x" * 126),  # a large ping
        frame(0, b"x"),  # a continuation of nothing
        frame(1, b"\xff\xfe"),  # not UTF-8
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_not_a_frame_ends_the_connection(opened: Raw, sent: bytes) -> None:
    opened.send(sent)
    assert close_code(opened.rest()) in (1002, 1003, 1007, 1008)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (("Origin: https://evil.example",), 403),
        (("Origin: null",), 403),
        (("Authorization: Bearer vec_x",), 401),
        (("Sec-WebSocket-Version: 7",), 400),
        ((f"X-A: {'a' * 20_000}",), 431),
    ],
)
def test_a_handshake_that_is_not_allowed_gets_a_status(gateway: Gateway, headers: tuple[str, ...], status: int) -> None:
    with handshake(gateway, *headers) as client:
        assert client.status() == status


def test_a_compressed_websocket_is_not_negotiated(gateway: Gateway) -> None:
    with handshake(gateway, "Sec-WebSocket-Extensions: permessage-deflate") as client:
        read = b""
        while b"\r\n\r\n" not in read:
            read += client.socket.recv(4_096)
        assert b"101" in read[:20]
        assert b"permessage-deflate" not in read


def test_no_attack_is_logged_and_no_secret(gateway: Gateway) -> None:
    """The last test of the shared gateway: it ends it, and reads all that it has written."""
    secret = "vec_" + "s" * 40
    with httpx.Client(base_url=gateway.url, timeout=20) as client:
        client.get(f"/v1/libraries/{secret}/count", params={"ticket": secret})
        client.get("/v1/libraries", headers={"authorization": f"Bearer {secret}"})
    with handshake(gateway, f"Authorization: Bearer {secret}") as refused:
        assert refused.status() == 401
    keys = gateway.instance.settings.config.parent / "keys.json"
    keys.write_text("damaged")  # the gateway says so, which shows that its log is what is read here
    with httpx.Client(base_url=gateway.url, timeout=20) as client:
        client.get("/v1/libraries", headers={"authorization": f"Bearer {secret}"})
    assert gateway.stop() == 0
    said = gateway.stderr()
    assert "the file of keys cannot be used" in said
    assert "Traceback" not in said, said[-4_000:]
    assert len(said) < 2_000, said[-4_000:]
    assert secret not in said
