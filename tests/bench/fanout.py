"""A thousand clients of the gateway, over server-sent events and over WebSockets, while documents stream in.

Wanted: 10,000 deliveries/s in all for a minute; every client gets every event in order, the daemon grows by less than
150 MB, and write acks stay under 150 ms at p99. Then the rate is doubled until the clients fall behind, and then the
number of clients. `python -m tests.bench.fanout [SECONDS]` shortens it; the clients are one process on plain sockets,
so that they cost little beside the gateway.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
import re
import resource
import select
import socket
import sys
import time
from multiprocessing.connection import Connection
from typing import Final

from tests.bench.feed import MIB, documents, started
from tests.bench.measure import resident_bytes, told
from tests.support.gateway import Gateway

_CLIENTS: Final = 1_000
_DELIVERIES_S: Final = 10_000
#: A run in which the last client is later than this behind the last ack counts as too much.
_LATE_S: Final = 1.0
_SEQ: Final = re.compile(rb'"seq":(\d+),"at"')
#: The longest part of a match that the end of a piece may cut off.
_CUT: Final = 40


def main(lasts_s: float = 60.0) -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 20_000), most))
    short_s = min(10.0, lasts_s)
    for kind in ("sse", "ws"):
        if not _run(kind, _CLIENTS, _DELIVERIES_S // _CLIENTS, lasts_s):
            continue
        rate = 2 * _DELIVERIES_S // _CLIENTS
        while _run(kind, _CLIENTS, rate, short_s):
            rate *= 2
        clients = 2 * _CLIENTS
        while clients <= 8 * _CLIENTS and _run(kind, clients, max(1, _DELIVERIES_S // clients), short_s):
            clients *= 2


def _run(kind: str, clients: int, rate: int, lasts_s: float) -> bool:
    """Writes `rate` documents a second, of which every client gets one event each. Returns whether they keep up."""
    context = multiprocessing.get_context("fork")
    with started() as (instance, client, pid), Gateway(instance) as gateway:
        idle = resident_bytes(pid), resident_bytes(gateway.process.pid)
        near, far = context.Pipe()
        readers = context.Process(target=_read_all, args=(kind, gateway.url, clients, far))
        readers.start()
        said = near.recv()
        if said != "standing":
            print(f"  {kind}: {said}", flush=True)
            readers.join()
            return False
        standing = resident_bytes(pid), resident_bytes(gateway.process.pid)
        peak = list(standing)
        processes = pid, gateway.process.pid, readers.pid or 0
        used = [_processor_s(each) for each in processes]
        acks: list[float] = []
        batches_s = min(rate, 20)
        size, first, turn = rate // batches_s, 0, 0
        begun = time.perf_counter()
        while (now := time.perf_counter() - begun) < lasts_s:
            at = time.perf_counter()
            client.request("ingest", library="bench", documents=documents(first, size))
            acks.append((time.perf_counter() - at) * 1e3)
            first, turn = first + size, turn + 1
            peak = [max(peak[0], resident_bytes(pid)), max(peak[1], resident_bytes(gateway.process.pid))]
            time.sleep(max(0.0, turn / batches_s - (time.perf_counter() - begun)))
        near.send(first)
        counts, late_s, received, disorder = near.recv()
        took_s = time.perf_counter() - begun
        used = [(_processor_s(each) - before) / took_s for each, before in zip(processes, used, strict=True)]
        near.send("end")
        readers.join()
    whole = counts == (first, first) and not disorder
    print(
        f"  {kind}: {clients:,} clients, {first / now:,.0f} of {rate:,} events/s for {now:.0f} s:"
        f" {first * clients / took_s:,.0f} deliveries/s, {received / took_s / MIB:.1f} MiB/s;"
        f" {'all have all, in order' if whole else f'WRONG: {counts} of {first}, {disorder} out of order'},"
        f" {late_s * 1e3:,.0f} ms after the last ack"
    )
    print(
        f"    acks {told(sorted(acks))}; processor: daemon {used[0]:.0%}, gateway {used[1]:.0%} "
        f"({used[1] * took_s / max(1, first * clients) * 1e6:.1f} µs a delivery), clients {used[2]:.0%}"
    )
    for name, place in (("daemon", 0), ("gateway", 1)):
        print(
            f"    {name}: {idle[place] / MIB:.0f} MiB idle, {standing[place] / MIB:.0f} with clients,"
            f" {peak[place] / MIB:.0f} at most",
            flush=True,
        )
    return whole and late_s < _LATE_S and first / now > 0.8 * rate


class _Client:
    """One stream: counts events, and checks their order."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        self.socket = socket.create_connection((host, port))
        self.count = self.seq = self.bytes = self.disorder = 0
        self._rest = b""
        if kind == "sse":
            path, more = "/v1/events/stream?type=document.added&library_id=bench", ""
        else:
            key = base64.b64encode(os.urandom(16)).decode()
            path = "/v1/libraries/bench/ws"
            more = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {key}\r\n"
            more += "Sec-WebSocket-Version: 13\r\n"
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{more}\r\n".encode())
        if kind == "sse":
            head = self._until(b"\nid: ")  # it is active
            assert head.startswith(b"HTTP/1.1 200"), head
        else:
            head = self._until(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(head.split(b"\r\n")[0].decode())
            asked = b'{"action":"subscribe","events":["document.added"],"id":1}'
            self.socket.sendall(bytes([0x81, 0x80 | len(asked), 0, 0, 0, 0]) + asked)
            answer = self._until(b"}")
            if b"error" in answer:
                raise ConnectionError(answer.decode("utf-8", "replace"))
        self.socket.setblocking(False)

    def _until(self, end: bytes) -> bytes:
        found = b""
        while end not in found:
            piece = self.socket.recv(4096)
            if not piece:
                raise ConnectionError(f"the gateway hung up: {found!r}")
            found += piece
        return found

    def take(self, data: memoryview) -> None:
        text = self._rest + bytes(data)
        self.bytes += len(data)
        end = 0
        for match in _SEQ.finditer(text):
            seq, end = int(match[1]), match.end()
            if seq <= self.seq:
                self.disorder += 1
            self.seq = seq
            self.count += 1
        self._rest = text[max(end, len(text) - _CUT) :]


def _read_all(kind: str, url: str, count: int, told: Connection) -> None:
    """Reads so many streams until each has as many events as it is told."""
    host, _, port = url.removeprefix("http://").partition(":")
    poll = select.epoll()
    clients: dict[int, _Client] = {}
    try:
        for _ in range(count):
            client = _Client(kind, host, int(port))
            clients[client.socket.fileno()] = client
            poll.register(client.socket, select.EPOLLIN)
    except OSError as error:
        told.send(f"stands not: {error} (client {len(clients) + 1})")
        return
    told.send("standing")
    poll.register(told, select.EPOLLIN)
    view = memoryview(bytearray(MIB))
    wanted: int | None = None
    asked_at = 0.0
    waiting = set(clients)
    while wanted is None or (waiting and time.perf_counter() - asked_at < 60):
        for number, _ in poll.poll(1.0):
            if number == told.fileno():
                wanted, asked_at = told.recv(), time.perf_counter()
                waiting = {each for each, client in clients.items() if client.count < wanted}
                continue
            client = clients[number]
            size = client.socket.recv_into(view)
            if not size:
                poll.unregister(number)
                continue
            client.take(view[:size])
            if wanted is not None and client.count >= wanted:
                waiting.discard(number)
    late_s = time.perf_counter() - asked_at
    counts = [client.count for client in clients.values()]
    received = sum(client.bytes for client in clients.values())
    told.send(((min(counts), max(counts)), late_s, received, sum(client.disorder for client in clients.values())))
    told.recv()


def _processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
