"""The soak's load: updates, deletes, searches, watchers that come and go, trims, jobs, libraries that come and go.

The data stays the same size: writers replace and delete documents of a fixed set of ids, the log is trimmed to a fixed
length, old jobs are pruned, exports and backups replace each other. So whatever grows is not the data. The pace is
fixed as well: a latency that grows is not because more was asked.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests.support.instance import Instance
from vecd.client import Client
from vecd.client.discovery import connect_socket
from vecd.errors import VecError

IDS: Final = 4_000
_DIMENSION, _BATCH = 64, 20
#: Events that trims leave, and ended jobs that prunes leave.
_EVENTS, _JOBS = 20_000, 200
_WORDS: Final = ("apple", "river", "stone", "cloud", "ember", "maple", "tiger", "ocean", "pearl", "raven")
#: What a restart of the daemon looks like.
_AWAY: Final = ("connection_lost", "no_daemon", "shutting_down")


class Load:
    """Everything that goes on, in threads. `pause` ends the connections for a restart, `resume` makes new ones."""

    def __init__(self, instance: Instance, folder: Path, seed: int) -> None:
        self._instance = instance
        self._folder = folder
        self._chance = random.Random(seed)
        self._stop, self._paused = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._latencies: dict[str, list[float]] = defaultdict(list)  # seconds, since they were taken last
        self.done: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        #: A name, what one turn does, and seconds from turn to turn.
        turns: list[tuple[str, Callable[[Client, random.Random, int], None], float]] = [
            ("ingest", self._ingest, 0.05),
            ("ingest", self._ingest, 0.05),
            ("search", self._search, 0.02),
            ("search", self._search, 0.02),
            ("get", self._get, 0.05),
            ("delete", self._delete, 0.5),
            ("watch", self._watch, 0.3),
            ("watch", self._watch, 0.5),
            ("snapshot watch", self._watch_from_a_snapshot, 10.0),
            ("consumer", self._consume, 1.0),
            ("library", self._pass, 2.0),
            ("job", self._job, 1.0),
            ("trim", self._trim, 5.0),
        ]
        self._threads = [
            threading.Thread(target=self._run, args=(*turn, random.Random(self._chance.getrandbits(32))))
            for turn in turns
        ]

    def begin(self) -> None:
        """Makes the libraries, and fills them."""
        with self._instance.connect() as client:
            client.request("library.create", library="texts", embedder="hash")
            client.request("library.create", library="vectors", embedder="none", dimension=_DIMENSION)
            chance = random.Random(self._chance.getrandbits(32))
            for start in range(0, IDS, 500):
                for library in ("texts", "vectors"):
                    ids = range(start, min(IDS, start + 500))
                    client.ingest([_document(library, number, chance) for number in ids], library)
        for thread in self._threads:
            thread.start()

    def pause(self) -> None:
        self._paused.set()

    def resume(self) -> None:
        self._paused.clear()

    def end(self) -> None:
        """Raises what went wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.check()

    def check(self) -> None:
        for failure in self.failures:
            raise failure

    def latencies(self) -> dict[str, list[float]]:
        """Those since the last call, by what was done."""
        with self._lock:
            taken, self._latencies = self._latencies, defaultdict(list)
        return taken

    def _run(
        self, name: str, turn: Callable[[Client, random.Random, int], None], every_s: float, chance: random.Random
    ) -> None:
        numbers = itertools.count()
        try:
            while not self._stop.is_set():
                if self._paused.is_set() or (sock := connect_socket(self._instance.settings)) is None:
                    self._stop.wait(0.05)
                    continue
                try:
                    with Client(sock, timeout_s=120.0) as client:
                        self._turns(name, turn, every_s, chance, client, numbers)
                except VecError as error:
                    if error.code not in _AWAY:
                        raise
        except BaseException as failure:
            self.failures.append(failure)

    def _turns(
        self,
        name: str,
        turn: Callable[[Client, random.Random, int], None],
        every_s: float,
        chance: random.Random,
        client: Client,
        numbers: itertools.count[int],
    ) -> None:
        due = time.monotonic()
        while not self._stop.is_set() and not self._paused.is_set():
            begun = time.monotonic()
            turn(client, chance, next(numbers))
            ended = time.monotonic()
            with self._lock:
                self._latencies[name].append(ended - begun)
                self.done[name] += 1
            due = max(due + every_s, ended)
            self._stop.wait(due - ended)

    # --- turns ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _ingest(client: Client, chance: random.Random, number: int) -> None:
        library = chance.choice(("texts", "vectors"))
        documents = [_document(library, chance.randrange(IDS), chance) for _ in range(_BATCH)]
        assert client.ingest(documents, library)["failed"] == 0

    @staticmethod
    def _delete(client: Client, chance: random.Random, number: int) -> None:
        library = chance.choice(("texts", "vectors"))
        if number % 4:
            client.delete([f"d{chance.randrange(IDS)}" for _ in range(_BATCH)], library)
        else:
            client.delete(library=library, where=f"n = {chance.randrange(1_000)}")

    @staticmethod
    def _search(client: Client, chance: random.Random, number: int) -> None:
        query = " ".join(chance.sample(_WORDS, 2))
        where = (f"n < {chance.randrange(1_000)}",) if number % 3 == 0 else ()
        if number % 2:
            list(client.search(query, library="texts", k=10, where=where, mode=chance.choice(("text", "hybrid"))))
        else:
            list(client.search(vector=_vector(chance), library="vectors", k=10, where=where))

    @staticmethod
    def _get(client: Client, chance: random.Random, number: int) -> None:
        client.get([f"d{chance.randrange(IDS)}" for _ in range(_BATCH)], chance.choice(("texts", "vectors")))

    @staticmethod
    def _watch(client: Client, chance: random.Random, number: int) -> None:
        fields: dict[str, Any] = {"payload": True} if number % 2 else {"where": ["n < 300"]}
        for _ in client.watch("now", limit=chance.choice((1, 20, 200)), timeout_s=1.0, **fields):
            pass

    @staticmethod
    def _watch_from_a_snapshot(client: Client, chance: random.Random, number: int) -> None:
        for _ in client.watch("now", snapshot=True, libraries=["texts"], follow=False):
            pass

    @staticmethod
    def _consume(client: Client, chance: random.Random, number: int) -> None:
        name = f"consumer-{number % 5}"  # a restart leaves one behind
        with client.watch("now", consumer=name, on_gap="oldest", limit=20, timeout_s=0.5) as events:
            for event in events:
                client.request("ack", consumer=name, cursor=event["cursor"])
        try:
            client.delete_consumer(name)
        except VecError as error:
            if error.code != "not_found":  # the time was over before the watch began
                raise

    @staticmethod
    def _pass(client: Client, chance: random.Random, number: int) -> None:
        name = f"passing-{number}"
        client.request("library.create", library=name, embedder="hash")
        client.ingest([{"id": str(n), "text": f"passing {n}"} for n in range(50)], name)
        list(client.search("passing", library=name))
        client.request("library.delete", library=name)

    def _job(self, client: Client, chance: random.Random, number: int) -> None:
        library = ("texts", "vectors")[number % 2]
        jobs: tuple[tuple[str, dict[str, Any], str | None], ...] = (
            ("noop", {"steps": 5}, None),
            ("export", {"path": str(self._folder / f"{library}.ndjson")}, library),
            ("rebuild", {"index": chance.choice(("flat", "hnsw", "lsh"))}, "vectors"),
            ("snapshot", {}, None),
            ("backup", {"path": str(self._folder / "backup.db")}, None),
            ("verify", {}, None),
            ("reembed", {"chunk_chars": 900 + number % 100}, "texts"),
            ("prune", {"keep": _JOBS}, None),
        )
        kind, params, its = jobs[number % len(jobs)]
        (job,) = client.wait_for_jobs([client.submit_job(kind, params, library=its)["job_id"]], timeout_s=600)
        assert job["state"] == "completed", job

    @staticmethod
    def _trim(client: Client, chance: random.Random, number: int) -> None:
        client.trim(keep_count=_EVENTS, past_consumers=True, wait=True)


def _vector(chance: random.Random) -> Any:
    return np.random.default_rng(chance.getrandbits(32)).normal(size=_DIMENSION).astype(np.float32)


def _document(library: str, number: int, chance: random.Random) -> dict[str, Any]:
    text = " ".join(chance.choices(_WORDS, k=30))
    document: dict[str, Any] = {"id": f"d{number}", "text": text, "metadata": {"n": chance.randrange(1_000)}}
    return document if library == "texts" else {**document, "vector": _vector(chance)}
