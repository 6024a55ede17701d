"""A thousand watchers on a thousand connections while documents stream in.

Wanted: at 1,000 events/s for a minute everybody gets everything in order, the daemon's resident size grows by less than
100 MB, and the writers' acks stay under 50 ms at p99. One of them is stopped for the whole run, and gets all it missed
when it goes on. Beside it the same bytes from one process to a thousand sockets.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import select
import signal
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

import msgpack

from tests.bench.feed import MIB, Raw, documents, started
from tests.bench.measure import resident_bytes, told
from tests.support.instance import Instance

_WATCHERS = 1_000
_BATCHES_S = 20
#: Events a second, for how long, and for how many.
_RUNS = ((0, 5.0, _WATCHERS), (1_000, 20.0, 1), (1_000, 60.0, _WATCHERS), (10_000, 20.0, _WATCHERS))


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8_192), most))
    for rate, lasts_s, watchers in _RUNS:
        _run(rate, lasts_s, watchers)
    print(f"  raw sockets, batches of 100 events of 120 bytes: {_raw_deliveries_s():,.0f} deliveries/s", flush=True)


def _run(rate: int, lasts_s: float, watchers: int) -> None:
    context = multiprocessing.get_context("fork")
    with started() as (instance, client, pid):
        idle = resident_bytes(pid)
        near, far = context.Pipe()
        readers = context.Process(target=_read_all, args=(instance, watchers, far))
        readers.start()
        assert near.recv() == "standing"
        near_one, far_one = context.Pipe()
        one = context.Process(target=_read_all, args=(instance, 1, far_one))
        one.start()
        assert near_one.recv() == "standing"
        assert one.pid is not None
        os.kill(one.pid, signal.SIGSTOP)
        standing, processor_s = resident_bytes(pid), _processor_s(pid)
        acks: list[float] = []
        size, first, peak = rate // 2 // _BATCHES_S, 0, standing
        begun = time.perf_counter()
        turn = 0
        while (now := time.perf_counter() - begun) < lasts_s:
            if rate:
                started_at = time.perf_counter()
                client.request("ingest", library="bench", documents=documents(first, size))
                acks.append((time.perf_counter() - started_at) * 1e3)
                first += size
            turn += 1
            peak = max(peak, resident_bytes(pid))
            time.sleep(max(0.0, turn / _BATCHES_S - now))
        written_s = time.perf_counter() - begun
        head = client.status()["seq"]
        near.send(head)
        frames, sent, late_s = near.recv()
        processor_s = (_processor_s(pid) - processor_s) / written_s
        os.kill(one.pid, signal.SIGCONT)
        near_one.send(head)
        _, _, missed_s = near_one.recv()
        readers.join()
        one.join()
        after = resident_bytes(pid)
    events = 2 * first
    print(f"  {watchers:,} watchers, {events / written_s:,.0f} events/s for {written_s:.0f} s ({rate:,} wanted):")
    if rate:
        rate_s = events * watchers / written_s
        print(
            f"    all have all, in order, {late_s * 1e3:.0f} ms after the last ack; {rate_s:,.0f} deliveries/s"
            f" in {frames / watchers:,.0f} messages each, {sent / written_s / MIB:.0f} MiB/s;"
            f" acks {told(sorted(acks))}"
        )
        print(f"    the stopped one had all {missed_s * 1e3:.0f} ms after it went on")
    print(
        f"    the daemon's resident size: idle {idle / MIB:.0f}, with them {standing / MIB:.0f}, most {peak / MIB:.0f},"
        f" at the end {after / MIB:.0f} MiB; processor {processor_s:.0%}",
        flush=True,
    )


def _read_all(instance: Instance, count: int, told: Connection) -> None:
    """Reads so many watches until each has been read to the head that it is told; checks every cursor, and what is in
    some of the messages."""
    watchers = {}
    poll = select.epoll()
    for _ in range(count):
        watcher = Raw(instance, libraries=["bench"])
        watchers[watcher.socket.fileno()] = watcher
        poll.register(watcher.socket, select.EPOLLIN)
    view = memoryview(bytearray(MIB))
    head: int | None = None
    standing, waiting, asked_at = False, set(watchers), 0.0
    poll.register(told, select.EPOLLIN)
    while head is None or waiting:
        for number, _ in poll.poll():
            if number == told.fileno():
                head, asked_at = told.recv(), time.perf_counter()
                waiting = {each for each, watcher in watchers.items() if watcher.seq < head}
                continue
            watcher = watchers[number]
            size = watcher.socket.recv_into(view)
            assert size, "the daemon hung up"
            watcher.take(view[:size])
            if head is not None and watcher.seq >= head:
                waiting.discard(number)
        if not standing and all(watcher.seq >= 0 for watcher in watchers.values()):
            standing = True
            told.send("standing")
    late_s = time.perf_counter() - asked_at
    for watcher in watchers.values():
        for frame in watcher.sample[:50]:
            _check_sample(frame)
    told.send((sum(w.frames for w in watchers.values()), sum(w.bytes for w in watchers.values()), late_s))


def _check_sample(frame: bytes) -> None:
    message: dict[str, Any] = msgpack.unpackb(frame)
    seqs = [event["seq"] for event in message["items"]]
    if seqs:
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        assert message["cursor"].endswith(f":{seqs[-1]}")


def _processor_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _raw_deliveries_s(seconds: float = 3.0) -> float:
    """Of events, each block of 100 written to every socket."""
    pairs = [socket.socketpair() for _ in range(_WATCHERS)]
    child = os.fork()
    if child == 0:
        poll = select.epoll()
        theirs = {pair[1].fileno(): pair[1] for pair in pairs}
        for ours, _ in pairs:
            ours.close()
        for number in theirs:
            poll.register(number, select.EPOLLIN)
        view = memoryview(bytearray(MIB))
        while theirs:
            for number, _ in poll.poll():
                if not theirs[number].recv_into(view):
                    poll.unregister(number)
                    theirs.pop(number).close()
        os._exit(0)
    block, delivered = bytes(100 * 120), 0
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for ours, _ in pairs:
            ours.sendall(block)
        delivered += 100 * len(pairs)
    taken = time.perf_counter() - begun
    for pair in pairs:
        pair[0].close()
        pair[1].close()
    os.waitpid(child, 0)
    return delivered / taken


if __name__ == "__main__":
    main()
