"""Hostile use of a real daemon: conversations, damaged stores, crowds of connections.

Each raises AssertionError for a fault: an answer `internal`, an error or a traceback in the log, a request without an
answer, a daemon that is gone."""

from __future__ import annotations

import contextlib
import resource
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.instance import Instance
from tests.support.peer import HELLO, Peer, frame
from vecd import limits
from vecd.errors import Code, VecError
from vecd.wire.messages import encode

PATIENCE_S = 60.0
#: What stands in a log only if there is a bug.
_FAULTS = ("level=error", "level=critical", "Traceback")


class Sound:
    """A daemon whose log is looked at."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._seen = 0

    def check(self) -> None:
        """There is nothing in the log, since it was looked at last, that only a bug writes."""
        data = self.instance.settings.log.read_bytes()
        new, self._seen = data[self._seen :].decode("utf-8", "replace"), len(data)
        wrong = [line for line in new.splitlines() if any(fault in line for fault in _FAULTS)]
        assert not wrong, "\n".join(wrong)[:5_000]


def prepare(instance: Instance) -> None:
    """What requests may refer to."""
    with instance.connect(PATIENCE_S) as client:
        client.request("library.create", library="some", embedder="hash")
        documents = [{"id": each, "text": f"some words {each}", "metadata": {"n": 1, "t": "a"}} for each in "abc"]
        client.ingest(documents, library="some")
        client.ingest([{"id": "a", "text": "a document"}])


def converse(sound: Sound, requests: list[dict[str, Any]], numbers: list[int], *, greeted: bool = True) -> int:
    """Sends these requests with these numbers at once and reads to the end; returns the bytes that were sent."""
    data = b"".join(encoded(request, number) for request, number in zip(requests, numbers, strict=True))
    with Peer(sound.instance, greet=False, patience_s=PATIENCE_S) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.send((HELLO if greeted else b"") + data)
            peer.half_close()
        replies = peer.to_the_end()
    for reply in replies:
        error = reply.get("error", {})
        assert error.get("code") != Code.INTERNAL, (error, requests)
    if greeted and not any(reply["id"] is None for reply in replies):
        answered = {reply["id"] for reply in replies if "items" not in reply}
        assert set(numbers) <= answered, (requests, replies)
    sound.check()
    return len(data)


def encoded(request: dict[str, Any], number: int) -> bytes:
    try:
        return encode({**request, "id": number})
    except VecError:  # what msgpack does not have
        return frame("ping", number)


def raw(sound: Sound, data: bytes) -> None:
    """Sends these bytes after a hello."""
    with Peer(sound.instance, greet=False, patience_s=PATIENCE_S) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.send(HELLO + data)
            peer.half_close()
        for reply in peer.to_the_end():
            assert reply.get("error", {}).get("code") != Code.INTERNAL, (data, reply)
    sound.check()


# --- a damaged store --------------------------------------------------------------------------------------------------


def keep_store(folder: Path) -> None:
    """The data folder of a daemon that was stopped, with snapshots of vectors and of texts."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect(PATIENCE_S) as client:
            client.request("library.create", library="some", index="hnsw", embedder="hash")
            for part in range(4):
                client.ingest(
                    [{"id": f"{part}-{n}", "text": f"word{n} words", "metadata": {"n": n}} for n in range(300)], "some"
                )
            list(client.search("words", library="some", k=5))
            client.delete(["1-1"], "some")
        daemon.terminate()
        assert daemon.wait(PATIENCE_S) == 0
        shutil.copytree(instance.settings.data, folder, ignore=lambda *_: ["lock"])


def start_damaged(kept: Path, name: str, data: bytes) -> str:
    """Starts a daemon on the store with other bytes in one file, and uses it. Returns what came of it: `refused` or
    `started`."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        shutil.copytree(kept, instance.settings.data, dirs_exist_ok=True)
        (instance.settings.data / name).write_bytes(data)
        try:
            daemon = instance.start()
        except AssertionError:
            outcome = "refused"
        else:
            outcome = "started"
            with instance.connect(PATIENCE_S) as client:
                for op, fields in (
                    ("status", {}), ("count", {"where": ["n > 3"]}),
                    ("get", {"ids": ["1-2", "3-299"], "vectors": True}),
                    ("search", {"query": "words", "k": 50}), ("search", {"query": "word7", "mode": "text"}),
                    ("ingest", {"documents": [{"id": "new", "text": "new"}]}),
                ):  # fmt: skip
                    try:
                        client.request(op, library="some", **fields)
                    except VecError as error:
                        assert error.code != Code.INTERNAL, (op, error)
                        if error.code == Code.CONNECTION_LOST:
                            break
            daemon.terminate()
            daemon.wait(PATIENCE_S)
        log = instance.settings.log.read_text("utf-8", "replace") if instance.settings.log.exists() else ""
        assert "Traceback" not in log, log[-5_000:]
        assert outcome == "started" or "level=error" in log or "level=critical" in log, f"refused without a word: {log}"
    return outcome


# --- crowds -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def descriptors(wanted: int) -> Iterator[int]:
    """Lets this process and its children have so many file descriptors; gives how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
    try:
        yield max(soft, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def crowd(instance: Instance, count: int) -> tuple[int, int, list[float]]:
    """Makes so many connections and keeps them. Returns how many are admitted and refused, and the seconds of
    somebody's pings meanwhile."""
    admitted = refused = 0
    took_s: list[float] = []
    with instance.connect(PATIENCE_S) as client, contextlib.ExitStack() as stack:
        for number in range(count):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.settimeout(PATIENCE_S)
            sock.connect(str(instance.settings.socket))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(HELLO)
            answer = sock.recv(4096)
            admitted += b"result" in answer
            refused += Code.BUSY.encode() in answer
            if number % 50 == 0:
                began = time.monotonic()
                client.ping()
                took_s.append(time.monotonic() - began)
        assert client.status()["connections"] == admitted + 1
        assert admitted + 1 <= limits.CONNECTIONS_MAX
    return admitted, refused, took_s
