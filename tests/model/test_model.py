"""Requests, restarts and kills in any order: the daemon's answers and its log agree with the model."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.instance import Instance
from tests.support.recorder import seq_of
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

from .model import Document, Event, Job, Model

#: `make model` runs more, and longer, examples.
_EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "12"))
_LONG = "MODEL_EXAMPLES" in os.environ
_STEPS = 80 if _LONG else 30
#: Restarts and kills of one example: each takes as long as hundreds of requests.
_DEATHS = 6 if _LONG else 1

#: `books` exists from the beginning, and is chosen more often.
_NAMES = st.sampled_from(("books", "books", "books", "notes"))
_IDS = st.sampled_from(tuple("abcdefgh"))
_WORDS = ("apple", "river", "stone", "cloud")
_VECTORS = st.tuples(*[st.sampled_from((-2.0, -1.0, 1.0, 3.0))] * 3)
_CHUNKS = st.tuples(st.sampled_from([*_WORDS, "apple river", "stone stone cloud"]), _VECTORS)
_DOCUMENTS = st.builds(
    lambda chunks, n: Document(tuple(text for text, _ in chunks), tuple(vector for _, vector in chunks), n),
    st.lists(_CHUNKS, min_size=1, max_size=3),
    st.integers(0, 9),
)
_CHANGES = st.lists(st.tuples(_IDS, st.one_of(_DOCUMENTS, st.none())), min_size=1, max_size=6)
#: Selects one of several items, whose number may differ when an example is repeated.
_PICKS = st.integers(0, 999)
#: A job that does not end by itself.
_ENDLESS = {"steps": 100_000, "seconds": 0.005}


class Daemon:
    """The instance that all examples share, and a connection to it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.process = instance.start()
        self.client = instance.connect()

    def end(self, how: signal.Signals) -> None:
        """Ends the daemon, and starts it again."""
        self.process.send_signal(how)
        assert self.process.wait(60) == (-signal.SIGKILL if how == signal.SIGKILL else 0)
        self.client.close()
        self.process = self.instance.start()
        self.client = self.instance.connect()


def _line(document_id: str, document: Document | None) -> dict[str, Any]:
    if document is None:
        return {"op": "delete", "id": document_id}
    vectors = [np.array(vector, "<f4").tobytes() for vector in document.vectors]
    return {"id": document_id, "texts": list(document.texts), "vectors": vectors, "metadata": {"n": document.n}}


class Machine(RuleBasedStateMachine):
    """One example. Every rule waits for its answer, so at its end model and daemon are at the same seq."""

    daemon: Daemon

    def __init__(self) -> None:
        super().__init__()
        status = self.client.status()
        self.model = Model(status["seq"], status["seq"])
        self.client.trim(keep_count=0)
        self.deaths = 0
        self.running: int | None = None  # the one job that does not end

    @property
    def client(self) -> Client:
        return self.daemon.client

    def teardown(self) -> None:
        if active := [job["job_id"] for job in self.client.jobs(states=["pending", "running"])]:
            self.client.cancel_jobs(active)
            self.client.wait_for_jobs(active, timeout_s=60)
        for name in self.model.libraries:
            self.client.request("library.delete", library=name)

    def refused(self, code: str, op: str, **fields: Any) -> None:
        with pytest.raises(VecError) as refusal:
            self.client.request(op, **fields)
        assert refusal.value.code == code

    def is_there(self, name: str) -> bool:
        return name in self.model.libraries

    # --- libraries --------------------------------------------------------------------------------------------------

    @initialize(changes=_CHANGES)
    def begin(self, changes: list[tuple[str, Document | None]]) -> None:
        self.create("books")
        self.ingest("books", changes)

    @rule(name=_NAMES)
    def create_or_drop(self, name: str) -> None:
        if name == "notes" and self.is_there(name):
            self.drop(name)
        else:
            self.create(name)

    @rule()
    def drop_both(self) -> None:
        for name in ("books", "notes"):
            self.drop(name)
        self.create("books")

    def create(self, name: str) -> None:
        fields = {"library": name, "embedder": "none", "dimension": 3}
        if self.is_there(name):
            self.refused("exists", "library.create", **fields)
            return
        self.model.create(name)
        assert self.client.request("library.create", **fields)["seq"] == self.model.head

    def drop(self, name: str) -> None:
        if not self.is_there(name):
            self.refused("not_found", "library.delete", library=name)
            return
        count = len(self.model.libraries[name])
        self.model.drop(name)
        answer = self.client.request("library.delete", library=name)
        assert (answer["documents"], answer["seq"]) == (count, self.model.head)

    # --- documents --------------------------------------------------------------------------------------------------

    @rule(name=_NAMES, changes=_CHANGES)
    def ingest(self, name: str, changes: list[tuple[str, Document | None]]) -> None:
        documents = [_line(*change) for change in changes]
        if not self.is_there(name):
            self.refused("not_found", "ingest", library=name, documents=documents)
            return
        answer = self.client.request("ingest", library=name, documents=documents, detail=True)
        statuses = [self.model.put(name, *change) for change in changes]
        assert [each["status"] for each in answer["documents"]] == statuses
        counts = Counter(statuses)
        assert all(answer[status] == counts[status] for status in ("added", "updated", "unchanged", "deleted"))
        assert (answer["failed"], answer["seq"]) == (0, self.model.head)

    @rule(name=_NAMES, ids=st.lists(_IDS, min_size=1, max_size=4, unique=True))
    def delete(self, name: str, ids: list[str]) -> None:
        if not self.is_there(name):
            self.refused("not_found", "delete", library=name, ids=ids)
            return
        answer = self.client.delete(ids, name)
        statuses = [self.model.put(name, each, None) for each in ids]
        assert (answer["deleted"], answer["missing"]) == (statuses.count("deleted"), statuses.count("unchanged"))
        assert answer["seq"] == self.model.head

    @rule(name=_NAMES, below=st.integers(0, 10))
    def delete_where(self, name: str, below: int) -> None:
        if not self.is_there(name):
            self.refused("not_found", "delete", library=name, where=[f"n < {below}"])
            return
        gone = self.model.matching(name, below)
        try:
            answer = self.client.delete(library=name, where=f"n < {below}")
        except VecError as error:
            assert error.code == "invalid_filter"
            assert not self.model.libraries[name], "a filter of a field that documents have is refused"
            return
        assert answer["deleted"] == len(gone)
        for document_id in sorted(gone):
            self.model.put(name, document_id, None)

    @rule(
        name=_NAMES,
        ids=st.lists(_IDS, max_size=4),
        below=st.integers(0, 10),
        query=_VECTORS,
        k=st.sampled_from((1, 3, 100)),
    )
    def look(self, name: str, ids: list[str], below: int, query: tuple[float, ...], k: int) -> None:
        """Reads in all ways."""
        self.read(name, ids)
        self.filter(name, below)
        for where in (None, below):
            self.search(name, query, k, where)
        for word in _WORDS:
            self.search_words(name, word)

    def read(self, name: str, ids: list[str]) -> None:
        if not self.is_there(name):
            self.refused("not_found", "get", library=name, ids=ids)
            return
        documents = self.model.libraries[name]
        assert [each and _document(each) for each in self.client.get(ids, name, vectors=True)] == [
            documents.get(each) for each in ids
        ]
        listed = list(self.client.items("list", "documents", library=name))
        assert [(each["id"], each["chunks"], each["metadata"]) for each in listed] == [
            (each, len(documents[each].texts), {"n": documents[each].n}) for each in sorted(documents)
        ]
        counted = self.client.count(name)
        chunks = sum(len(document.texts) for document in documents.values())
        assert (counted["documents"], counted["chunks"]) == (len(documents), chunks)

    def filter(self, name: str, below: int) -> None:
        if self.is_there(name):
            found = self.model.matching(name, below)
            where = [f"n < {below}"]
            listed = self.client.items("list", "documents", library=name, where=where)
            assert [each["id"] for each in listed] == found
            assert self.client.count(name, where=where)["documents"] == len(found)

    def search(self, name: str, query: tuple[float, ...], k: int, below: int | None) -> None:
        vector = np.array(query, "<f4")
        if not self.is_there(name):
            self.refused("not_found", "search", library=name, vector=vector.tobytes())
            return
        where = () if below is None else (f"n < {below}",)
        among = self.model.libraries[name] if below is None else self.model.matching(name, below)
        scores = self.model.nearest(name, query, among)
        for exact in (True, False):
            hits = list(self.client.search(vector=vector, k=k, library=name, where=where, exact=exact, mode="vector"))
            best = sorted(scores.values(), reverse=True)[:k]
            assert [hit["score"] for hit in hits] == pytest.approx(best, abs=1e-5)
            assert [scores[hit["chunk_id"]] for hit in hits] == pytest.approx(best, abs=1e-5)
            assert len({hit["chunk_id"] for hit in hits}) == len(hits)

    def search_words(self, name: str, word: str) -> None:
        if self.is_there(name):
            hits = self.client.search(word, k=100, library=name, mode="text")
            assert {hit["chunk_id"] for hit in hits} == self.model.worded(name, word)

    # --- the log ----------------------------------------------------------------------------------------------------

    @rule(pick=_PICKS)
    def watch(self, pick: int) -> None:
        start = self.model.seq + pick % (len(self.model.events) + 2)
        fields = {"from": f"{self.client.log}:{start}", "follow": False}
        if start > self.model.head:
            self.refused("foreign_cursor", "watch", **fields)
            return
        if start < self.model.horizon:
            with pytest.raises(VecError) as refusal:
                self._watched(start)
            assert refusal.value.code == "compacted"
            assert seq_of(refusal.value.details["oldest"]) == self.model.horizon
            start = self.model.horizon
        assert self._watched(start) == self.model.events[start - self.model.seq :]

    def _watched(self, start: int) -> list[Event]:
        found = list(self.client.watch(f"{self.client.log}:{start}", follow=False))
        assert [each["seq"] for each in found] == list(range(start + 1, start + 1 + len(found)))
        return [_event(each) for each in found]

    @rule(keep=st.integers(0, 20))
    def trim(self, keep: int) -> None:
        answer = self.client.trim(keep_count=keep, wait=True)
        assert answer["trimmed"] == self.model.trim(keep)
        assert seq_of(answer["oldest"]) == self.model.horizon

    @invariant()
    def both_are_at_the_same_seq(self) -> None:
        assert self.client.status()["seq"] == self.model.head

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _submitted(self, params: dict[str, Any], after: int | None = None, **fields: Any) -> int:
        job = self.client.submit_job("noop", params, after=None if after is None else [after], **fields)
        self.model.jobs[job["job_id"]] = Job("pending", after, delayed="delay_s" in fields)
        self.model.log(Event("job.submitted", None, job["job_id"]))
        return int(job["job_id"])

    @rule(how=st.sampled_from(("now", "later", "after", "endless")), pick=_PICKS)
    def submit(self, how: str, pick: int) -> None:
        parents = [job_id for job_id, job in self.model.jobs.items() if job.state in ("pending", "running")]
        if how == "now":
            job_id = self._submitted({})
            self.client.wait_for_jobs([job_id], timeout_s=60)
            self.model.move(job_id, "completed", "started", "completed")
        elif how == "after" and parents:
            self._submitted({}, after=parents[pick % len(parents)])
        elif how == "endless" and self.running is None:
            self.running = self._submitted(_ENDLESS)
            self._until_it_runs()
            self.model.move(self.running, "running", "started")
        else:
            self._submitted({}, delay_s=3_600)

    def _until_it_runs(self) -> None:
        """Waits for a checkpoint of the running job since the daemon's start, so that lost attempts do not add up."""
        job_id = self.running
        assert job_id is not None

        def done() -> int:
            job = self.client.job(job_id)
            return int((job["progress"] or {}).get("done") or 0) if job["state"] == "running" else 0

        before = until(done, "a step")
        until(lambda: done() > before, "a step")

    @rule(pick=_PICKS)
    def cancel(self, pick: int) -> None:
        if not self.model.jobs:
            return
        job_id = sorted(self.model.jobs)[pick % len(self.model.jobs)]
        (job,) = self.client.cancel_jobs([job_id])
        if self.model.jobs[job_id].state in ("pending", "running"):
            if self.model.jobs[job_id].state == "running":
                (job,) = self.client.wait_for_jobs([job_id], timeout_s=60)
                self.running = None
            self.model.move(job_id, "cancelled", "cancelled")
        assert job["state"] == self.model.jobs[job_id].state

    @rule(pick=_PICKS)
    def retry(self, pick: int) -> None:
        ended = [job_id for job_id, job in self.model.jobs.items() if job.state not in ("pending", "running")]
        if not ended:
            return
        job_id = ended[pick % len(ended)]
        job = self.model.jobs[job_id]
        if job.state == "completed":
            self.refused("invalid_request", "jobs.retry", job_ids=[job_id])
        elif job.after is None and self._is_short(job_id):
            self.client.retry_jobs([job_id])
            if job.delayed:
                self.model.move(job_id, "pending", "submitted")
            else:
                self.client.wait_for_jobs([job_id], timeout_s=60)
                self.model.move(job_id, "completed", "submitted", "started", "completed")

    def _is_short(self, job_id: int) -> bool:
        return not self.client.job(job_id)["params"]

    @invariant()
    def jobs_are_in_their_states(self) -> None:
        listed = {job["job_id"]: job["state"] for job in self.client.jobs(limit=max(1, len(self.model.jobs)))}
        if self.model.jobs:
            assert listed == {job_id: job.state for job_id, job in self.model.jobs.items()}

    # --- the daemon's ends ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.deaths < _DEATHS)
    @rule(how=st.sampled_from((signal.SIGTERM, signal.SIGKILL)))
    def restart(self, how: signal.Signals) -> None:
        self.deaths += 1
        self.daemon.end(how)
        self._back(how)

    def _back(self, how: signal.Signals) -> None:
        if self.running is not None:
            self._until_it_runs()
            self.model.move(self.running, "running", *(["failed"] if how == signal.SIGKILL else []), "started")

    @precondition(lambda self: self.deaths < _DEATHS)
    @rule(name=_NAMES, changes=_CHANGES)
    def kill_in_an_ingest(self, name: str, changes: list[tuple[str, Document | None]]) -> None:
        """The ingest is applied completely or not at all."""
        if not self.is_there(name):
            return
        self.deaths += 1
        self.client.submit("ingest", library=name, documents=[_line(*change) for change in changes])
        self.daemon.end(signal.SIGKILL)
        found = list(self.client.watch(f"{self.client.log}:{self.model.head}", types=["document.*"], follow=False))
        if found:
            for change in changes:
                self.model.put(name, *change)
        self._back(signal.SIGKILL)


def _event(event: dict[str, Any]) -> Event:
    data, kind = event["data"], event["type"].partition(".")[0]
    about = data[{"document": "id", "chunk": "chunk_id", "job": "job_id", "library": "name"}[kind]]
    return Event(event["type"], event["library"], about)


def _document(document: dict[str, Any]) -> Document:
    vectors = [tuple(np.frombuffer(chunk["vector"], "<f4").tolist()) for chunk in document["chunks"]]
    return Document(
        tuple(chunk["text"] for chunk in document["chunks"]), tuple(vectors), int(document["metadata"]["n"])
    )


@contextlib.contextmanager
def _shared() -> Iterator[Daemon]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = Daemon(instance)
        try:
            yield daemon
        finally:
            daemon.client.close()


def test_the_daemon_answers_as_the_model_whatever_it_is_asked_and_whenever_it_dies() -> None:
    with _shared() as daemon:
        machine = type("TheDaemon", (Machine,), {"daemon": daemon})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=_EXAMPLES,
                stateful_step_count=_STEPS,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
