"""The load of the crash tests: concurrent actors with all kinds of requests, each on its own connection.

An actor works until its connection is lost, records what it sent and what was answered, and continues when the daemon
runs again. Each draws its actions from its own random generator, which the loop's seed initializes.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from tests.support.instance import Instance
from tests.support.recorder import seq_of
from vecd import limits
from vecd.client import Client, Pending
from vecd.client.discovery import connect_socket
from vecd.errors import VecError

from .checker import Content, Wanted, Write, written

DIMENSION: Final = 8
#: The consumers: the recorder's, which keeps the log from being trimmed, and that of the actor Consumer.
LOG, WORKER = "log", "worker"

_WORDS: Final = ("apple", "river", "stone", "cloud", "ember", "maple", "tiger", "ocean", "pearl", "raven")
_IDS = 40
#: Kinds of job, the frequent ones several times.
_KINDS: Final = (
    *("ledger", "ledger", "ledger", "ingest", "ingest", "failer", "noop", "trim", "rebuild", "rebuild", "reembed"),
    *("snapshot", "backup", "export", "export", "verify", "vacuum", "delete"),
)
_REEMBEDS: Final = [("reembed", "texts", {"chunk_chars": chars}) for chars in (950, 1_050)]  # one of them changes it
#: Points that are rarely reached at random -> kind, library and params of jobs that reach them.
_LEADING: Final[dict[str | None, list[tuple[str, str, dict[str, Any]]]]] = {
    "switch": _REEMBEDS,
    "switched": _REEMBEDS,
    "snapshot.write": [("snapshot", library, {}) for library in ("texts", "vectors")],
}
#: Error codes of a connection that has ended or cannot be made.
_OVER: Final = ("connection_lost", "no_daemon", "shutting_down", "timeout")


def create_libraries(client: Client) -> None:
    client.request("library.create", library="texts", embedder="hash", chunk_chars=1_000)
    client.request("library.create", library="vectors", embedder="none", dimension=DIMENSION)
    client.request("library.create", library="ledger", embedder="none", dimension=4)
    client.request("library.create", library="files", embedder="hash")
    still = [{"id": f"still-{n}", "text": f"still {n}", "vector": vector_of(n)} for n in range(680)]
    client.ingest(still, "vectors")  # enough rows for a structure, even after the writers' deletes
    client.request("schedule.add", name="minutely", cron="* * * * *", kind="noop", params={"steps": 1})


def vector_of(number: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(number).normal(size=DIMENSION).astype(np.float32)


class Actor(ABC):
    """A client on one connection, which calls `turn` repeatedly."""

    name: ClassVar[str]

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.failure: BaseException | None = None
        self.turns = 0

    def work(self, instance: Instance) -> None:
        """Works until the connection is lost. Runs in its own thread."""
        try:
            sock = connect_socket(instance.settings)
            if sock is None:
                return
            with Client(sock, timeout_s=60.0) as client:
                self.begin(client)
                while True:
                    self.turn(client)
                    self.turns += 1
        except VecError as error:
            if error.code not in _OVER or error.code == "timeout":
                self.failure = error
        except BaseException as error:
            self.failure = error
        finally:
            self.over()

    def begin(self, client: Client) -> None:  # noqa: B027 - most have nothing to do
        """Called for each new connection."""

    @abstractmethod
    def turn(self, client: Client) -> None: ...

    def over(self) -> None:  # noqa: B027
        """Called when the connection is lost."""


class Writer(Actor):
    """Ingests, updates and deletes its own documents, with several requests in flight."""

    name = "writer"

    def __init__(self, seed: int, number: int) -> None:
        super().__init__(seed)
        self.number = number
        self.base: dict[tuple[str, str], tuple[int, Content]] = {}  # the state at the last check
        self.writes: list[Write] = []  # requests since then, in the order in which they were sent
        self.acked = 0  # acknowledged ones of these; an answer acknowledges all earlier requests
        self.answered = 0  # answers in total
        self._flying: list[tuple[int, Pending]] = []
        self._serial = itertools.count(1)

    def turn(self, client: Client) -> None:
        library = self.chance.choice(("texts", "vectors"))
        what = self.chance.random()
        if what < 0.12:
            ids = [self._id() for _ in range(self.chance.choice((1, 5, 20)))]
            self._send(client, Write(library, dict.fromkeys(ids)), "delete", ids=ids)
        elif what < 0.2:
            below = self.chance.randrange(40)
            where = [f"writer = {self.number} and n < {below}"]
            self._send(client, Write("vectors", below=below), "delete", where=where)
        else:
            documents = [self._document() for _ in range(self.chance.choice((1, 1, 4, 30)))]
            changes: dict[str, tuple[int, Content] | None] = {}
            for document in documents:
                changes[document["id"]] = (document["metadata"]["n"], _content(document))
            if library == "vectors":
                for document in documents:
                    document["vectors"] = [vector_of(hash_of(document["id"], text)) for text in document["texts"]]
            self._send(client, Write(library, changes), "ingest", documents=documents)
        while len(self._flying) > 4:
            self._take()

    def _id(self) -> str:
        return f"w{self.number}-{self.chance.randrange(_IDS)}"

    def _document(self) -> dict[str, Any]:
        serial = next(self._serial)
        texts = [
            f"{' '.join(self.chance.choices(_WORDS, k=self.chance.randint(2, 9)))} w{self.number}x{serial}p{part}"
            for part in range(self.chance.randint(1, 3))
        ]
        title = self.chance.choice((None, None, f"title {self.chance.choice(_WORDS)}"))
        metadata = {"writer": self.number, "n": self.chance.randrange(100), "serial": serial}
        document: dict[str, Any] = {"id": self._id(), "texts": texts, "metadata": metadata}
        return document if title is None else {**document, "title": title}

    def _send(self, client: Client, write: Write, op: str, **fields: Any) -> None:
        if op == "ingest":
            for document in fields["documents"]:
                if "vectors" in document:
                    document["vectors"] = [vector.tobytes() for vector in document["vectors"]]
        self.writes.append(write)  # before it is sent: it may arrive although the connection breaks
        place = len(self.writes)
        self._flying.append((place, client.submit(op, library=write.library, **fields)))

    def _take(self) -> None:
        place, pending = self._flying.pop(0)
        try:
            answer = pending.result()
        except VecError as error:
            # No document has the field any more, so there is nothing to delete.
            if error.code != "invalid_filter":
                raise
        else:
            if answer.get("failed"):
                raise AssertionError(f"documents were refused: {answer['errors'][:3]}")
        self.acked = max(self.acked, place)
        self.answered += 1

    def over(self) -> None:
        """Processes the answers that have arrived."""
        try:
            while self._flying and self._flying[0][1].ready:
                self._take()
        except VecError as error:
            if error.code not in _OVER:
                self.failure = error
        except AssertionError as error:
            self.failure = error
        self._flying.clear()

    def check(self, there: dict[tuple[str, str], Content]) -> None:
        """Compares its stored documents with what it sent, and makes them the new base."""
        happened = written(self.name + str(self.number), self.base, self.writes, self.acked, there)
        for write in self.writes[:happened]:
            write.apply(self.base)
        self.writes.clear()
        self.acked = 0


def _content(document: dict[str, Any]) -> Content:
    metadata = sorted(document["metadata"].items())
    return Content(document.get("title"), "\n\n".join(document["texts"]), repr(metadata))


def hash_of(document_id: str, text: str) -> int:
    """A seed for the vector of a text, unique to the text."""
    return int.from_bytes(f"{document_id} {text}".encode()[-24:], "big")


class Passing(Actor):
    """Creates libraries, writes to them, and deletes them."""

    name = "passing"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._numbers = itertools.count()

    def turn(self, client: Client) -> None:
        name = f"passing-{next(self._numbers)}"
        client.request("library.create", library=name, embedder="hash", index=self.chance.choice(("flat", "hnsw")))
        client.ingest([{"id": f"p-{n}", "text": f"passing {n}"} for n in range(self.chance.randrange(30))], name)
        client.request("library.delete", library=name)


class Searcher(Actor):
    """Searches, counts and gets; only checks that the answers are plausible."""

    name = "searcher"

    def turn(self, client: Client) -> None:
        library = self.chance.choice(("texts", "vectors"))
        mode = self.chance.choice(("vector", "text", "hybrid"))
        k = self.chance.choice((1, 10, 150))
        query = " ".join(self.chance.choices(_WORDS, k=2))
        vector = None
        if library == "vectors" and mode != "text":
            vector = vector_of(self.chance.randrange(1_000))
        hits = list(
            client.search(
                query if vector is None or mode == "hybrid" else None,
                vector=vector,
                k=k,
                library=library,
                mode=mode,
                exact=self.chance.random() < 0.5,
            )
        )
        chunks = {hit["chunk_id"] for hit in hits}
        assert len(chunks) == len(hits) <= k, f"{len(hits)} hits of {len(chunks)} chunks, and {k} were wanted"
        assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1)), "the ranks have gaps"
        if self.chance.random() < 0.2:
            client.count(library)
            client.get([f"w0-{self.chance.randrange(_IDS)}"], library, vectors=True)


class Consumer(Actor):
    """A named consumer that watches and acks what it has read. Trims may overtake it."""

    name = "consumer"

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.acked = self.sent = 0
        self._pages: Any = None

    def begin(self, client: Client) -> None:
        self._pages = client.pages("watch", consumer=WORKER, on_gap="oldest", **{"from": "beginning"})

    def turn(self, client: Client) -> None:
        page = next(self._pages)
        if page.kind != "items":
            raise AssertionError(f"the watch ended: {page}")
        self.sent = max(self.sent, seq_of(page.extra["cursor"]))
        client.request("ack", consumer=WORKER, cursor=page.extra["cursor"])
        self.acked = self.sent


class Submitter(Actor):
    """Jobs of every kind, with priorities, locks, unique keys and dependencies; cancels and retries; trims."""

    name = "submitter"

    def __init__(self, seed: int, folder: Path) -> None:
        super().__init__(seed)
        self.folder = folder  # for files that jobs read and write
        self.wanted: dict[int, Wanted] = {}  # acknowledged submissions
        self.horizon = 0  # the log's oldest event, from answers
        self.files: dict[str, list[str]] = {}  # of ingest jobs: prefix of the ids -> the id of each line
        self._numbers = itertools.count()
        self.point: str | None = None  # a point to reach: the next turn submits jobs that lead there

    def turn(self, client: Client) -> None:
        point, self.point = self.point, None
        if point in _LEADING:
            for kind, library, params in _LEADING[point]:
                self._submit_at_once(client, kind, library, params)
            return
        what = self.chance.random()
        if what < 0.1:
            answer = client.trim(keep_count=self.chance.choice((0, 20, 500)), wait=self.chance.random() < 0.5)
            self.horizon = max(self.horizon, seq_of(answer["oldest"]))
        elif what < 0.2 and self.wanted:
            with_state = list(client.jobs(limit=30))
            job = self.chance.choice(with_state)
            if job["state"] in ("failed", "dead", "cancelled"):
                _allowing("invalid_request", "exists", act=lambda: client.retry_jobs([job["job_id"]]))
            elif job["kind"] not in ("trim", "vacuum"):
                client.cancel_jobs([job["job_id"]])
        elif what < 0.25:
            job = client.request("schedule.run", name="minutely")
            self.wanted[job["job_id"]] = Wanted("noop")
        else:
            self._submit(client)

    def _submit(self, client: Client) -> None:
        kind, library, params = self._job()
        after: tuple[int, ...] = ()
        if self.wanted and self.chance.random() < 0.3:
            after = (self.chance.choice(list(self.wanted)[-5:]),)
        lock = self.chance.choice((None, None, "a", "b"))
        unique = self.chance.choice((None, None, None, f"{kind} {library}"))
        answer: list[dict[str, Any]] = []
        _allowing(
            "invalid_request",  # a job to wait for has failed; a reembed has nothing to do
            act=lambda: answer.append(
                client.submit_job(
                    kind,
                    params,
                    library=library,
                    after=list(after) or None,
                    lock=lock,
                    unique=unique,
                    priority=self.chance.randint(-5, 5),
                    delay_s=self.chance.choice((None, None, 0.1)),
                )
            ),
        )
        for job in answer:
            if not job["existing"]:
                self.wanted[job["job_id"]] = Wanted(kind, library, after, lock, unique)

    def _submit_at_once(self, client: Client, kind: str, library: str, params: dict[str, Any]) -> None:
        answer: list[dict[str, Any]] = []
        submit = partial(client.submit_job, kind, params, library=library, priority=limits.PRIORITY_MAX)
        _allowing("invalid_request", act=lambda: answer.append(submit()))  # there is nothing to do
        for job in answer:
            self.wanted[job["job_id"]] = Wanted(kind, library)

    def _job(self) -> tuple[str, str | None, dict[str, Any]]:
        chance, number = self.chance, next(self._numbers)
        library = chance.choice(("texts", "vectors"))
        kind = chance.choice(_KINDS)
        if kind == "ledger":
            return kind, "ledger", {"steps": chance.randint(1, 25), "seconds": 0.002}
        if kind == "ingest":
            return kind, "files", {"files": [str(self._lines(f"i{number}"))]}
        if kind == "failer":
            return kind, None, {"times": chance.randint(1, 3)}
        if kind == "noop":
            return kind, None, {"steps": chance.randint(0, 5), "seconds": 0.01}
        if kind == "trim":
            return kind, None, {"keep_count": chance.choice((0, 50, 1_000))}
        if kind == "rebuild":
            return kind, library, {"index": chance.choice(("flat", "hnsw", "pq", "lsh", "kdtree"))}
        if kind == "reembed":
            return kind, "texts", {"chunk_chars": chance.choice((900, 1_000, 1_100))}
        if kind == "snapshot":
            return kind, chance.choice((None, library)), {}
        if kind == "backup":
            return kind, None, {"path": str(self.folder / f"backup-{number}.db")}
        if kind == "export":
            name = chance.choice((f"export-{number}.ndjson", f"export-{number}.ndjson.gz"))
            return kind, library, {"path": str(self.folder / name)}
        if kind == "delete":
            return kind, "vectors", {"where": ["writer = 99"]}  # finds nothing: the writers' documents are their own
        return kind, None, {}

    def _lines(self, key: str) -> Path:
        """A file whose lines update a few ids repeatedly, so that each line is in the log."""
        ids = [f"{key}-{n % 13}" for n in range(self.chance.randint(1, 90))]
        path = self.folder / f"{key}.ndjson"
        lines = [{"id": each, "text": f"line {n} of {key}", "metadata": {"n": n}} for n, each in enumerate(ids)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.files[key] = ids
        return path


def _allowing(*codes: str, act: Any) -> None:
    try:
        act()
    except VecError as error:
        if error.code not in codes:
            raise


class Load:
    """All actors. `run` starts their threads; `join` returns when the daemon has ended."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.writers = [Writer(chance.getrandbits(32), number) for number in range(2)]
        self.submitter = Submitter(chance.getrandbits(32), folder)
        self.consumer = Consumer(chance.getrandbits(32))
        self.actors: list[Actor] = [
            *self.writers,
            self.submitter,
            self.consumer,
            Passing(chance.getrandbits(32)),
            Searcher(chance.getrandbits(32)),
        ]
        self._threads: list[threading.Thread] = []

    def run(self, instance: Instance) -> None:
        self._threads = [threading.Thread(target=actor.work, args=(instance,)) for actor in self.actors]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Waits for the threads. Raises AssertionError for a failure of an actor."""
        for thread in self._threads:
            thread.join()
        for actor in self.actors:
            if actor.failure is not None:
                raise AssertionError(f"the {actor.name} met {actor.failure!r}") from actor.failure
