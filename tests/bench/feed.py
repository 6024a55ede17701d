"""The change feed: how soon it tells, how fast it catches up, what it keeps, and what idle watchers cost.

Wanted: from commit to a watcher's stdout a median of 1 ms and a p99 of 5 ms, at 1,000 events/s; a watcher that catches
up on 1,000,000 events gets 150,000/s on the wire and 60,000/s as NDJSON; an event kept takes at most 120 bytes on disk
beside the data. (watchers.py has the thousand watchers.)
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import orjson

from tests.bench.measure import resident_bytes, times_ms, told
from tests.support.instance import BIN, Instance
from vecd.client import Client
from vecd.client.discovery import connect_socket
from vecd.wire.messages import encode, hello

MIB = 1024 * 1024
_LIBRARY = "bench"
_EVENTS = 1_000_000
_BATCH = 2_000


def main() -> None:
    with started() as (instance, client, pid):
        _latency(instance, client, pid)
        _idle_views(instance, client, pid)
    with started() as (instance, client, pid):
        fill(client, _EVENTS // 2)
        _catch_up(instance, client, pid)
        _beside_catching_up(instance, client)
        _disk(instance, client)


@contextmanager
def started() -> Iterator[tuple[Instance, Client, int]]:
    """A daemon with a library of small vectors; its process."""
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect(None) as client:
            client.request("library.create", library=_LIBRARY, embedder="none", dimension=4, index="flat")
            yield instance, client, daemon.pid


def documents(first: int, count: int) -> list[dict[str, object]]:
    """Of one chunk each: two events."""
    vector = struct.pack("<4f", 1, 2, 3, 4)
    return [
        {"id": f"document-{n}", "title": f"The title of {n}", "vector": vector, "metadata": {"n": n}}
        for n in range(first, first + count)
    ]


def fill(client: Client, count: int) -> None:
    flying = []
    for start in range(0, count, _BATCH):
        flying.append(client.submit("ingest", library=_LIBRARY, documents=documents(start, _BATCH)))
        if len(flying) > 4:
            flying.pop(0).result()
    for pending in flying:
        pending.result()


class Raw:
    """A watcher that decodes nothing: it takes frames, and looks at their cursors."""

    def __init__(self, instance: Instance, **fields: object) -> None:
        sock = connect_socket(instance.settings)
        assert sock is not None
        self.socket: socket.socket = sock
        self.frames = self.bytes = 0
        self.seq = -1  # up to which it has been read to
        self.sample: list[bytes] = []
        self._buffer = bytearray()
        self.socket.sendall(encode(hello("bench")) + encode({"op": "watch", "id": 1, **fields}))

    def take(self, data: bytes | memoryview) -> None:
        """What has arrived. Asserts that cursors only grow."""
        self.bytes += len(data)
        buffer = self._buffer
        buffer += data
        place = 0
        while len(buffer) - place >= 4:
            size = int.from_bytes(buffer[place : place + 4], "big")
            if len(buffer) - place - 4 < size:
                break
            frame = bytes(buffer[place + 4 : place + 4 + size])
            place += 4 + size
            at = frame.rfind(b"\xa6cursor")
            if at < 0:
                continue  # hello
            seq = _seq_at(frame, at + 7)
            assert seq >= self.seq, f"the cursor {seq} came behind {self.seq}"
            self.seq = seq
            self.frames += 1
            if self.frames % 97 == 3:
                self.sample.append(frame)
        del buffer[:place]


def _seq_at(frame: bytes, at: int) -> int:
    """The seq of the cursor, a string in msgpack that begins there."""
    size, at = (frame[at + 1], at + 2) if frame[at] == 0xD9 else (frame[at] & 0x1F, at + 1)
    return int(frame[at : at + size].rpartition(b":")[2])


@contextmanager
def grown(pid: int, what: str) -> Iterator[None]:
    before = resident_bytes(pid)
    yield
    after = resident_bytes(pid)
    print(f"    {what}: the daemon's resident size {before / MIB:.0f} -> {after / MIB:.0f} MiB", flush=True)


# --- how soon -------------------------------------------------------------------------------------------------------


def _latency(instance: Instance, client: Client, pid: int, rate: int = 1_000, seconds: float = 10.0) -> None:
    """Documents one at a time, each 2 events; from its ack, which comes behind the commit, to its line in the pipe.

    A line may be there before its ack is: that counts as the 0 that it is.
    """
    near, far = os.pipe()

    def through_a_pipe() -> None:
        client.ping()
        os.write(far, b"x\n")
        os.read(near, 16)

    print(f"  a ping and a pipe: {told(times_ms(through_a_pipe, 2_000))}")
    watcher = subprocess.Popen(
        [BIN / "vec", "watch", "-l", _LIBRARY], env=instance.environment, stdout=subprocess.PIPE, bufsize=0
    )
    assert watcher.stdout is not None
    while client.status()["watchers"] < 1:
        select.select([], [], [], 0.01)
    seen: dict[str, float] = {}
    last = f"document-{int(rate / 2 * seconds) - 1}"

    def read() -> None:
        pipe, rest = watcher.stdout, b""
        assert pipe is not None
        while last not in seen:
            data = os.read(pipe.fileno(), MIB)
            now = time.perf_counter()
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = orjson.loads(line)
                if event["type"] == "document.added":
                    seen[event["data"]["id"]] = now

    reader = threading.Thread(target=read)
    reader.start()
    sent: dict[str, float] = {}
    acked: dict[str, float] = {}
    with grown(pid, f"{rate:,} events/s to vec watch"):
        begun = time.perf_counter()
        for number, document in enumerate(documents(0, int(rate / 2 * seconds))):
            time.sleep(max(0.0, begun + number / (rate / 2) - time.perf_counter()))
            name = str(document["id"])
            sent[name] = time.perf_counter()
            client.request("ingest", library=_LIBRARY, documents=[document])
            acked[name] = time.perf_counter()
        reader.join()
    watcher.terminate()
    watcher.wait()
    late = sorted(max(0.0, seen[name] - acked[name]) * 1e3 for name in acked)
    whole = sorted((seen[name] - sent[name]) * 1e3 for name in acked)
    acks = sorted((acked[name] - sent[name]) * 1e3 for name in acked)
    print(f"    ack to stdout: {told(late)}; sent to stdout: {told(whole)}; sent to ack: {told(acks)}", flush=True)


# --- how fast -------------------------------------------------------------------------------------------------------


def _catch_up(instance: Instance, client: Client, pid: int) -> None:
    head = client.status()["seq"]
    for turn in range(2):
        with grown(pid, "one watcher catches up"):
            watcher, started_at = Raw(instance, **{"from": "beginning"}), time.perf_counter()
            view = memoryview(bytearray(4 * MIB))
            while watcher.seq < head:
                watcher.take(view[: watcher.socket.recv_into(view)])
            taken = time.perf_counter() - started_at
            watcher.socket.close()
        print(
            f"  {head:,} events on the wire: {head / taken:,.0f}/s ({watcher.bytes / taken / MIB:.0f} MiB/s,"
            f" {watcher.frames:,} frames)"
        )
        if turn == 0:
            print(f"    the same bytes between two processes: {head / _copied_s(watcher.bytes):,.0f}/s")
    command = [str(BIN / "vec"), "watch", "--from", "beginning", "--no-follow"]
    started_at = time.perf_counter()
    with subprocess.Popen(command, env=instance.environment, stdout=subprocess.PIPE, bufsize=0) as vec:
        assert vec.stdout is not None
        lines = 0
        while data := os.read(vec.stdout.fileno(), MIB):
            lines += data.count(b"\n")
    taken = time.perf_counter() - started_at
    assert lines == head, f"{lines} of {head}"
    print(f"  {lines:,} events as NDJSON: {lines / taken:,.0f}/s", flush=True)


def _copied_s(count: int) -> float:
    """Seconds that so many bytes take from one process to another, in messages of 64 KiB."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        block = bytes(64 * 1024)
        for _ in range(count // len(block) + 1):
            theirs.sendall(block)
        os._exit(0)
    theirs.close()
    view, started_at = memoryview(bytearray(4 * MIB)), time.perf_counter()
    while ours.recv_into(view):
        pass
    os.waitpid(child, 0)
    return time.perf_counter() - started_at


def _beside_catching_up(instance: Instance, client: Client) -> None:
    """From ack to delivery for one at the head, alone and beside many who catch up all the time."""
    first = 10_000_000
    with instance.connect(None) as live:
        parts = live.submit("watch", libraries=[_LIBRARY]).parts()
        next(parts)
        for count in (0, 60):
            stop = threading.Event()
            threads = [threading.Thread(target=_catch_up_forever, args=(instance, n, stop)) for n in range(count)]
            for thread in threads:
                thread.start()
            late = []
            for _ in range(100):
                first += 1
                client.request("ingest", library=_LIBRARY, documents=documents(first, 1))
                acked_at = time.perf_counter()
                while not next(parts).body:
                    pass  # a bookmark
                late.append((time.perf_counter() - acked_at) * 1e3)
            stop.set()
            for thread in threads:
                thread.join()
            print(f"  at the head, while {count} catch up: ack to delivery {told(sorted(late))}", flush=True)


def _catch_up_forever(instance: Instance, number: int, stop: threading.Event) -> None:
    view = memoryview(bytearray(MIB))
    with instance.connect(None) as client:
        log = client.log
    while not stop.is_set():
        watcher = Raw(instance, **{"from": f"{log}:{number * 7}"})  # no two read the same pages
        while watcher.seq < 100_000 and not stop.is_set():
            watcher.take(view[: watcher.socket.recv_into(view)])
        watcher.socket.close()


# --- what it keeps --------------------------------------------------------------------------------------------------


def _disk(instance: Instance, client: Client) -> None:
    """The pages of the events' table, and of what is there only for the log's sake."""
    db = apsw.Connection(str(instance.settings.store), flags=apsw.SQLITE_OPEN_READONLY)
    db.execute("BEGIN")
    size = {name: int(pages) for name, pages in db.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name")}
    seqs = db.execute("SELECT seq FROM log").get
    rows = db.execute("SELECT count(*) FROM events").get
    for_the_log = sum(size.get(name, 0) for name in ("events", "documents_dead"))
    print(
        f"  {seqs:,} events kept, in {rows:,} rows: {for_the_log / seqs:.0f} bytes each"
        f" ({for_the_log / rows:.0f} a row) beside the data's {(sum(size.values()) - for_the_log) / seqs:.0f}",
        flush=True,
    )
    db.close()


# --- what idle watchers cost ----------------------------------------------------------------------------------------


def _idle_views(instance: Instance, client: Client, pid: int, count: int = 300) -> None:
    """Batches of 20 documents and searches in turn, without and with watchers that want none of it."""
    first = 100_000
    for watchers in (0, count, 0, count):
        with instance.connect(None) as other, grown(pid, f"{watchers} idle views"):
            for number in range(watchers):
                pending = other.submit("watch", libraries=[_LIBRARY], where=[f"n = {-1 - number}"])
                next(pending.parts())
            taken, searched = [], []
            deadline = time.perf_counter() + 4
            while time.perf_counter() < deadline:
                started_at = time.perf_counter()
                client.request("ingest", library=_LIBRARY, documents=documents(first, 20))
                taken.append(time.perf_counter() - started_at)
                first += 20
                started_at = time.perf_counter()
                list(client.search(vector=[1.0, 2.0, 3.0, 4.0], k=3, library=_LIBRARY))
                searched.append((time.perf_counter() - started_at) * 1e3)
            rate = 1 / statistics.mean(taken)
            print(f"  {watchers:>4} idle views: {rate:,.0f} batches/s; searches {told(sorted(searched))}")


if __name__ == "__main__":
    main()
