"""Attacks by one peer, and what everybody else feels of them: `python -m tests.fuzz.attacks [NAME ...]`.

Each runs against a daemon of its own. Meanwhile two bystanders work: one pings, searches and ingests a line, the other
watches. Printed are the largest resident size of the daemon and the bystanders' latencies.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.instance import Instance
from tests.support.peer import Peer, frame
from vecd import limits
from vecd.errors import VecError
from vecd.wire.frames import encode_frame

MIB = limits.MIB


@dataclass
class Felt:
    """What the bystanders felt: seconds that each request took, and each event from its acknowledgement."""

    requests_s: list[float] = field(default_factory=list)
    events_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Bystanders:
    """Somebody else's clients, from the beginning of the block to its end."""

    def __init__(self, instance: Instance) -> None:
        self.felt = Felt()
        self._instance = instance
        self._over = threading.Event()
        self._acked_s: dict[str, float] = {}
        self._ready = threading.Event()

    def __enter__(self) -> Bystanders:
        self._threads = [threading.Thread(target=self._watch), threading.Thread(target=self._ask)]
        for thread in self._threads:
            thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with self._instance.connect(600) as client:
            turn = 0
            while not self._over.is_set():
                turn += 1
                name = f"bystander-{turn}"
                for ask in (
                    client.ping,
                    lambda: list(client.search("bystander", library="theirs", k=3)),
                    lambda name=name: client.ingest([{"id": name, "text": f"bystander {name}"}], library="theirs"),
                ):
                    began = time.monotonic()
                    try:
                        ask()
                    except VecError as error:
                        self.felt.errors.append(error.code)
                    self.felt.requests_s.append(time.monotonic() - began)
                self._acked_s[name] = time.monotonic()
                self._over.wait(0.02)

    def _watch(self) -> None:
        try:
            with Peer(self._instance, patience_s=1) as peer:
                peer.send(frame("watch", 1, types=["document.added"], libraries=["theirs"]))
                peer.until(lambda: bool(peer.answers(1)))
                peer.replies.clear()
                self._ready.set()
                while not self._over.is_set():
                    with contextlib.suppress(TimeoutError):
                        peer.read()
                    now = time.monotonic()
                    for event in peer.items(1):
                        acked = self._acked_s.get(event["data"]["id"], now)
                        self.felt.events_s.append(max(0.0, now - acked))
                    peer.replies.clear()
        except (AssertionError, OSError) as error:
            self.felt.errors.append(repr(error)[:100])
            self._ready.set()


def share(values: list[float], of: float) -> float:
    return sorted(values)[min(len(values) - 1, int(of * len(values)))] if values else 0.0


def resident_mib(pid: int, what: str = "VmHWM") -> float:
    """The resident size of a process; VmHWM: the largest that it has had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) / 1024
    raise AssertionError(what)


# --- the attacks ------------------------------------------------------------------------------------------------------

Attack = Callable[[Instance, float], None]
EMPTY_MAPS_ROW = b"\xdc\x3f\xff" + b"\x80" * 0x3FFF  # an array of 16,383 empty maps


def fields(count: int, at: str = "unknown") -> str:
    return " or ".join(f"{at}{number:04d}xyz = 1" for number in range(count))


def patient(peer: Peer, number: int, seconds: float) -> None:
    """Waits for an answer, but not for ever."""
    deadline = time.monotonic() + seconds
    peer.socket.settimeout(1)
    while not peer.answers(number) and not peer.ended and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            peer.read()


def large_type(instance: Instance, seconds: float) -> None:
    """A watch of one type of 15 MB."""
    with Peer(instance) as peer:
        peer.send(frame("watch", 1, types=["x" * (15 * MIB)]))
        patient(peer, 1, seconds)


def large_strings(instance: Instance, seconds: float) -> None:
    """Requests with long strings in lists and in keys of maps."""
    with Peer(instance) as peer:
        peer.send(frame("watch", 1, libraries=["x" * (15 * MIB)]))
        peer.send(frame("get", 2, ids=["x" * (15 * MIB)]))
        peer.send(frame("library.create", 3, library="keys", parameters={"x" * (15 * MIB): 1}))
        peer.send(frame("jobs.list", 4, states=["x" * (15 * MIB)]))
        for number in (1, 2, 3, 4):
            patient(peer, number, seconds / 4)


def large_metadata(instance: Instance) -> None:
    with instance.connect(600) as client:
        for part in range(16):
            documents = [{"id": f"large-{part}-{n}", "text": "t", "metadata": {"m": "x" * 200_000}} for n in range(64)]
            client.ingest(documents, library="large")


def unread_lists(instance: Instance, seconds: float) -> None:
    """60 lists of 200 MB at once on one connection, and nobody reads."""
    large_metadata(instance)
    with Peer(instance) as peer:
        peer.send(b"".join(frame("list", number, library="large") for number in range(1, 61)))
        time.sleep(min(seconds, 15))


def unread_answers(instance: Instance, seconds: float) -> None:
    """30 connections, each with 60 gets of 16 documents and 60 searches that nobody reads."""
    large_metadata(instance)
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            peer = stack.enter_context(Peer(instance))
            ids = [f"large-0-{n}" for n in range(16)]
            peer.send(b"".join(frame("get", n, library="large", ids=ids) for n in range(1, 31)))
            peer.send(b"".join(frame("search", n, library="large", query="t", k=100) for n in range(31, 61)))
        time.sleep(min(seconds, 15))


def unknown_fields(instance: Instance, seconds: float) -> None:
    """Filters with 5,500 fields that nobody has heard of."""
    with instance.connect(600) as client:
        for part in range(10):
            client.ingest(
                [
                    {
                        "id": f"f-{part}-{n}",
                        "text": "t",
                        "metadata": {f"key{part}x{n}": 1, "a": {"b": n}},
                    }
                    for n in range(500)
                ],
                library="fields",
            )
    with Peer(instance) as peer:
        for number in range(1, 5):
            peer.send(frame("count", number, library="fields", where=[fields(5_500, f"a.u{number}")]))
        for number in range(1, 5):
            patient(peer, number, seconds / 4)


def empty_maps(instance: Instance, seconds: float) -> None:
    """Twelve connections with a frame of 16 MB each that is nothing but empty maps."""
    rows = (limits.FRAME_BYTES_MAX - 1_000) // len(EMPTY_MAPS_ROW)
    body = b"\x83\xa2op\xa6ingest\xa2id\x01\xa9documents\xdc" + rows.to_bytes(2, "big") + EMPTY_MAPS_ROW * rows
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(instance)) for _ in range(12)]
        senders = [threading.Thread(target=_send, args=(peer, encode_frame(body))) for peer in peers]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        for peer in peers:
            patient(peer, 1, seconds / 12)


def _send(peer: Peer, data: bytes) -> None:
    with contextlib.suppress(OSError):
        peer.send(data)


def payload_views(instance: Instance, seconds: float) -> None:
    """300 watches, each with a view of its own and whole documents, while much is written."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(instance)) for _ in range(3)]
        for peer in peers:
            peer.send(
                b"".join(
                    frame("watch", number, payload=True, where=[f"n < {number + 10_000}"]) for number in range(1, 101)
                )
            )
            while len({reply["id"] for reply in peer.replies}) < 100:
                peer.read()
            threading.Thread(target=_swallow, args=(peer,), daemon=True).start()
        with instance.connect(600) as client:
            for part in range(40):
                client.ingest(
                    [
                        {"id": f"p-{part}-{n}", "text": f"{part} {n}", "metadata": {"n": n, "m": "x" * 20_000}}
                        for n in range(20)
                    ],
                    library="payload",
                )
        time.sleep(min(seconds, 5))


def _swallow(peer: Peer) -> None:
    """Reads and forgets."""
    with contextlib.suppress(OSError):
        while peer.socket.recv(MIB):
            pass


def costly_filters(instance: Instance, seconds: float) -> None:
    """20 watches with filters of thousands of tests."""
    with Peer(instance) as peer:
        for number in range(1, 21):
            tests = " or ".join(f"n = {number * 10_000 + n}" for n in range(5_000))
            peer.send(frame("watch", number, where=[tests]))
        for number in range(1, 21):
            patient(peer, number, seconds)
        threading.Thread(target=_swallow, args=(peer,), daemon=True).start()
        time.sleep(min(seconds, 15))


def costly_filters_small(instance: Instance, seconds: float) -> None:
    """400 watches with filters of 500 tests each."""
    with Peer(instance) as peer:
        for number in range(1, 401):
            tests = " or ".join(f"n = {number * 1_000 + n}" for n in range(500))
            peer.send(frame("watch", number, where=[tests]))
        for number in range(1, 401):
            patient(peer, number, seconds)
        threading.Thread(target=_swallow, args=(peer,), daemon=True).start()
        time.sleep(min(seconds, 15))


def half_frames(instance: Instance, seconds: float) -> None:
    """100 connections with half of a frame of 16 MB each, and now and then a byte."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(instance, patience_s=2)) for _ in range(100)]
        for peer in peers:
            _send(peer, (15 * MIB).to_bytes(4, "big") + bytes(14 * MIB))
        time.sleep(2)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        large_type, large_strings, unread_lists, unread_answers, unknown_fields, empty_maps, payload_views,
        costly_filters, costly_filters_small, half_frames,
    )
}  # fmt: skip


def run(name: str, seconds: float) -> tuple[float, float, Felt, float]:
    """The daemon's largest resident size before and at the end, what was felt, and the seconds that it took."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect(60) as client:
            for library in ("theirs", "large", "fields", "payload"):
                client.request("library.create", library=library)
            client.ingest([{"id": "first", "text": "first bystander"}], library="theirs")
            list(client.search("bystander", library="theirs", k=3))
        before = resident_mib(daemon.pid)
        began = time.monotonic()
        with Bystanders(instance) as bystanders:
            with contextlib.suppress(OSError):
                ATTACKS[name](instance, seconds)
            took = time.monotonic() - began
            after = resident_mib(daemon.pid)
        assert daemon.poll() is None, instance.log()
        for line in instance.settings.log.read_text("utf-8", "replace").splitlines():
            if "level=error" in line or "Traceback" in line:
                print("  log:", line[:300])
        return before, after, bystanders.felt, took


def rows(names: list[str], seconds: float) -> Iterator[str]:
    yield f"{'attack':22}{'s':>6}{'MiB':>7}{'grown':>7}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'event max ms':>13}"
    for name in names:
        before, after, felt, took = run(name, seconds)
        milliseconds = [1e3 * share(felt.requests_s, of) for of in (0.5, 0.99, 1)]
        told = "".join(f"{value:8.0f}" for value in milliseconds) + f"{1e3 * share(felt.events_s, 1):13.0f}"
        yield f"{name:22}{took:6.1f}{after:7.0f}{after - before:7.0f}{told}  {' '.join(sorted(set(felt.errors)))}"


if __name__ == "__main__":
    for row in rows(sys.argv[1:] or list(ATTACKS), 60):
        print(row, flush=True)
