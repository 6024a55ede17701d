"""Writers, watchers that are slow, stopped, killed and resumed, trims, and kills of the daemon: all that was recorded,
held against the six guarantees (history.py)."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import history as tables
from tests.support import recorder
from tests.support.instance import Instance
from tests.support.watch_history import Event, Log, Watcher, check
from vecd.client import Client
from vecd.errors import VecError

from .watching import NO_MODEL

_ROUNDS, _ROUND_S, _WRITERS, _DEADLINE_S = 6, 1.5, 3, 60.0
_LIBRARIES = ("a", "b")


def _bare(event: Event) -> Event:
    """As it comes without a payload."""
    data = {key: value for key, value in event["data"].items() if key not in ("document", "replaced")}
    return {**event, "data": data}


def _is_high(document: dict[str, Any] | None) -> bool:
    return document is not None and document["metadata"].get("n", 0) >= 50


def _high(event: Event, begin: Event) -> Event | None:
    """`n >= 50`: of documents that are or were so; one that is not any more has left."""
    now, before = begin["data"].get("document"), begin["data"].get("replaced")
    if not _is_high(now) and not _is_high(before):
        return None
    shown = _bare(event)
    if event is begin and now is not None and not _is_high(now):
        shown["data"]["left"] = True
    return shown


#: Who watches: a name, the fields of the request, and what is wanted.
_WATCHERS: dict[str, tuple[dict[str, Any], Callable[[Event, Event], Event | None]]] = {
    "everything": ({}, lambda event, _: _bare(event)),
    "payloads": ({"payload": True}, lambda event, _: event),
    "documents": (
        {"types": ["document.*"]},
        lambda event, _: _bare(event) if event["type"].startswith("document.") else None,
    ),
    "library": ({"libraries": ["a"]}, lambda event, _: _bare(event) if event["library"] == "a" else None),
    "filtered": ({"where": ["n >= 50"]}, _high),
    "nothing": ({"types": ["index.rebuilt"]}, lambda event, _: event if event["type"] == "index.rebuilt" else None),
}


class _Recorders:
    """The watchers' processes. One that records everything is never stopped, and holds the log."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self._instance = instance
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: set[str] = set()
        self._start("log", {"payload": True}, "log")
        for name, (fields, _) in _WATCHERS.items():
            self._start(name, fields)

    def _start(self, name: str, fields: dict[str, Any], *hold: str) -> None:
        command = [sys.executable, "-m", "tests.support.recorder", str(self.file(name)), json.dumps(fields), *hold]
        self._running[name] = subprocess.Popen(command, env=self._instance.environment)

    def file(self, name: str) -> Path:
        return self._folder / name

    def kill(self, name: str) -> None:
        """`kill -9`, and another in its place."""
        self.stopped.discard(name)
        self._running[name].kill()
        self._running[name].wait()
        self._start(name, _WATCHERS[name][0])

    def stop(self, name: str) -> None:
        self.stopped.add(name)
        self._running[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.stopped.discard(name)
        self._running[name].send_signal(signal.SIGCONT)

    def reached(self, seq: int) -> bool:
        """Whether all have come so far. None may have ended."""
        for name, process in self._running.items():
            assert process.poll() is None, f"the watcher {name} ended"
            if recorder.reached(self.file(name)) < seq:
                return False
        return True

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


class _Writer(threading.Thread):
    """Writes what chance says until the daemon dies; `acked` are the texts that were acknowledged."""

    def __init__(self, instance: Instance, seed: int) -> None:
        super().__init__()
        self._instance = instance
        self._chance = random.Random(seed)
        self.acked: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with self._instance.connect() as client:
                while True:
                    self._write(client)
        except VecError as error:
            if error.code != "connection_lost":
                self.failure = error
        except BaseException as error:
            self.failure = error

    def _write(self, client: Client) -> None:
        chance, texts = self._chance, []
        documents: list[dict[str, Any]] = []
        for _ in range(chance.choice((1, 1, 5, 60))):
            document_id = f"d{chance.randrange(200)}"
            if chance.random() < 0.2:
                documents.append({"op": "delete", "id": document_id})
                continue
            texts.append(f"{chance.getrandbits(60):x}")
            chunks = [texts[-1], *("more" for _ in range(chance.randrange(4)))]
            documents.append({"id": document_id, "texts": chunks, "metadata": {"n": chance.randrange(100)}})
        answer = client.ingest(documents, chance.choice(_LIBRARIES))
        assert answer["failed"] == 0, answer["errors"]
        self.acked += texts


def test_watchers_that_are_slow_stopped_killed_and_trimmed_over_get_what_they_are_promised(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    acked: list[str] = []
    with Instance(NO_MODEL) as instance:
        daemon = instance.start()
        with instance.connect() as client:
            for name in (*_LIBRARIES, "passing"):
                client.request("library.create", library=name)
            client.request("library.delete", library="passing")
            next(client.pages("watch", consumer="log", **{"from": "beginning"}))
        recorders = _Recorders(instance, tmp_path)
        try:
            for _ in range(_ROUNDS):
                writers = [_Writer(instance, chance.getrandbits(32)) for _ in range(_WRITERS)]
                for writer in writers:
                    writer.start()
                _disturb(instance, recorders, chance)
                daemon.kill()
                daemon.wait()
                for writer in writers:
                    writer.join()
                    assert writer.failure is None, writer.failure
                    acked += writer.acked
                daemon = instance.start()
            with instance.connect() as client:
                head = client.status()["seq"]
                for name in list(recorders.stopped):
                    recorders.resume(name)
                _wait(lambda: recorders.reached(head), "all to come to the head")
                there = tables.tables(client)
        finally:
            recorders.end()
    log = _check_recorded(tmp_path)
    assert len(log.events) == head
    assert tables.replayed(map(_bare, log.events)) == there
    told = {event["data"]["document"]["chunks"][0]["text"] for event in log.events if "document" in event["data"]}
    assert set(acked) <= told, "what was acknowledged is not in the log"
    assert len(acked) > 500, "too little was written to mean anything"


def _disturb(instance: Instance, recorders: _Recorders, chance: random.Random) -> None:
    """For a round: stops, resumes and kills watchers, and trims."""
    deadline = time.monotonic() + _ROUND_S
    with instance.connect() as client:
        while time.monotonic() < deadline:
            name = chance.choice(list(_WATCHERS))
            what = chance.randrange(4)
            if what == 0:
                recorders.kill(name)
            elif what == 1:
                recorders.stop(name)
            elif what == 2 and recorders.stopped:
                recorders.resume(chance.choice(sorted(recorders.stopped)))
            else:
                client.request("trim", keep_count=chance.choice((0, 10, 1_000)), wait=chance.random() < 0.3)
            head = client.status()["seq"]
            _wait(lambda head=head: client.status()["seq"] > head + 200, "more to be written")  # type: ignore[misc]


def _check_recorded(folder: Path) -> Log:
    """The log as it was recorded, after all that the watchers recorded has been held against it."""
    subscriptions = recorder.read(folder / "log")
    log = Log([event for each in subscriptions for frame in each.frames for event in frame.events])
    check(log, Watcher("log", lambda event, _: event, subscriptions))
    overtaken = 0
    for name, (_, wants) in _WATCHERS.items():
        subscriptions = recorder.read(folder / name)
        overtaken += sum(subscription.compacted is not None for subscription in subscriptions)
        check(log, Watcher(name, wants, subscriptions))
    print(f"{len(log.events):,} events, {overtaken} times trimmed over")
    return log


def _wait(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline, f"waited {_DEADLINE_S:g} s for {what}"
        time.sleep(0.01)
