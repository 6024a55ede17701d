"""Checks the guarantees after a kill and a restart of the daemon. Pure functions over recorded data: no daemon here.

Each raises Broken, which names the guarantee:

- acked: an acknowledged write is stored.
- whole: an unacknowledged write is stored completely or not at all; so are later ones.
- log: seqs have no gaps, times do not go back, payloads agree with earlier events.
- tables: a replay of the log gives the tables.
- jobs: each job follows the state machine, and the log and the table of jobs agree.
- once: a job's writes happen once, in order; attempts, holders of a lock and jobs with one unique key do not overlap;
  no job runs before its parents have completed.
- consumer: an acknowledged ack is not lost.
- search: exact answers equal brute force; approximate ones contain only existing chunks.
- files: exports and backups are the state at their seq; no unfinished file remains.

tests/support/watch_history.py checks the guarantees of the feed against recorded histories.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Event = dict[str, Any]


class Broken(AssertionError):
    """A violated guarantee."""

    def __init__(self, guarantee: str, what: str) -> None:
        super().__init__(f"{guarantee}: {what}")
        self.guarantee = guarantee


class Content(NamedTuple):
    """A document. Its texts are joined, because a reembed may split them differently."""

    title: str | None
    text: str
    metadata: str


def content(document: Mapping[str, Any]) -> Content:
    """The content of a document from `get`, a payload or an export."""
    texts = document.get("texts", [""]) if "chunks" not in document else [chunk["text"] for chunk in document["chunks"]]
    metadata = sorted((document.get("metadata") or {}).items())
    return Content(document.get("title"), "\n\n".join(text or "" for text in texts), repr(metadata))


#: Library -> id -> document.
State = dict[str, dict[str, Content]]


# --- the log --------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """A job according to the log. Intervals are of seqs; None: not ended."""

    kind: str
    library: str | None
    state: str = "pending"
    attempt: int = 0
    retried: bool = False
    waiting: list[list[int | None]] = field(default_factory=list)  # from each submission to the end
    running: list[list[int | None]] = field(default_factory=list)  # each attempt
    completed: int | None = None
    error: dict[str, Any] | None = None


#: Event type -> states in which a job may have it.
_FROM: Final = {
    "job.started": ("pending",),
    "job.completed": ("running",),
    "job.failed": ("running",),
    "job.cancelled": ("pending", "running"),
}


class Replay:
    """The state of a replay of the log from its beginning, with payloads."""

    def __init__(self) -> None:
        self.seq = 0
        self.time = ""
        self.state: State = {}
        self.jobs: dict[int, Job] = {}
        self.written: dict[tuple[str, str], list[tuple[str, Content]]] = defaultdict(list)  # by library and first part
        self.submitted: Counter[str] = Counter()  # by schedule

    def take(self, event: Event) -> None:
        """Applies the next event."""
        if event["seq"] != self.seq + 1:
            raise Broken("log", f"seq {event['seq']} follows {self.seq}")
        if event["time"] < self.time:
            raise Broken("log", f"seq {event['seq']} is of {event['time']}, and the one before of {self.time}")
        self.seq, self.time = event["seq"], event["time"]
        kind, name, data = event["type"], event["library"], event["data"]
        if kind == "library.created":
            if name in self.state:
                raise Broken("log", f"seq {self.seq}: library {name} is created again")
            self.state[name] = {}
        elif kind == "library.deleted":
            if len(self.state.pop(name)) != data["documents"]:
                raise Broken("log", f"seq {self.seq}: library {name} did not hold {data['documents']} documents")
        elif kind.startswith("document."):
            self._document(kind, name, data)
        elif kind.startswith("job."):
            self._job(kind, name, data)

    def _document(self, kind: str, library: str, data: dict[str, Any]) -> None:
        documents = self.state[library]
        before = documents.pop(data["id"], None)
        replaced = content(data["replaced"]) if "replaced" in data else None
        if replaced != before:
            raise Broken("log", f"seq {self.seq}: {data['id']} was {before}, and the payload says {replaced}")
        if kind != "document.deleted":
            documents[data["id"]] = content(data["document"])
            self.written[library, data["id"].partition("-")[0]].append((data["id"], documents[data["id"]]))

    def _job(self, kind: str, library: str | None, data: dict[str, Any]) -> None:
        job_id = data["job_id"]
        if kind == "job.submitted":
            if data.get("retried"):
                job = self._known(job_id)
                if job.state not in ("failed", "dead", "cancelled"):
                    raise Broken("jobs", f"job {job_id} is retried, and was {job.state}")
                job.state, job.retried = "pending", True
            elif job_id in self.jobs:
                raise Broken("jobs", f"job {job_id} is submitted twice")
            else:
                job = self.jobs[job_id] = Job(data["kind"], library)
                self.submitted[data.get("schedule", "")] += 1
            job.waiting.append([self.seq, None])
            return
        job = self._known(job_id)
        if job.state not in _FROM[kind]:
            raise Broken("jobs", f"seq {self.seq}: {kind} of job {job_id}, which is {job.state}")
        if kind == "job.started":
            if data["attempt"] != job.attempt + 1:
                raise Broken("jobs", f"job {job_id}: attempt {data['attempt']} follows {job.attempt}")
            job.state, job.attempt = "running", data["attempt"]
            job.running.append([self.seq, None])
            return
        if job.state == "running":
            job.running[-1][1] = self.seq
        job.state, job.error = data["state"], data.get("error")
        if job.state != "pending":
            job.waiting[-1][1] = self.seq
        if job.state == "completed":
            job.completed = self.seq

    def _known(self, job_id: int) -> Job:
        if job_id not in self.jobs:
            raise Broken("jobs", f"seq {self.seq}: job {job_id} was never submitted")
        return self.jobs[job_id]


def check_tables(replayed: State, tables: State, where: str) -> None:
    """Compares the replayed state with the tables; `where` names the tables in errors."""
    if replayed == tables:
        return
    if replayed.keys() != tables.keys():
        raise Broken("tables", f"{where} has the libraries {sorted(tables)}, the log {sorted(replayed)}")
    for name, documents in replayed.items():
        for document_id in documents.keys() | tables[name].keys():
            logged, there = documents.get(document_id), tables[name].get(document_id)
            if logged != there:
                raise Broken("tables", f"{where}, library {name}: {document_id} is {there}, by the log {logged}")


# --- writes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Write:
    """One request of a writer. `changes` are by id, None for a delete; `below` deletes documents with a lower rank."""

    library: str
    changes: Mapping[str, tuple[int, Content] | None] = field(default_factory=dict)  # rank and content
    below: int | None = None

    def apply(self, documents: dict[tuple[str, str], tuple[int, Content]]) -> None:
        for document_id, new in self.changes.items():
            if new is None:
                documents.pop((self.library, document_id), None)
            else:
                documents[self.library, document_id] = new
        if self.below is not None:
            for key, (rank, _) in list(documents.items()):
                if key[0] == self.library and rank < self.below:
                    del documents[key]


def written(
    name: str,
    base: Mapping[tuple[str, str], tuple[int, Content]],
    writes: Sequence[Write],
    acked: int,
    there: Mapping[tuple[str, str], Content],
) -> int:
    """The number of a writer's requests that the stored documents, `there`, show to have been applied. They must be the
    first ones that it sent, and include all acknowledged ones."""
    documents = dict(base)
    found = None
    for count in range(len(writes) + 1):
        if count:
            writes[count - 1].apply(documents)
        if {key: new for key, (_, new) in documents.items()} == there:
            found = count
            if count >= acked:
                return count
    if found is not None:
        raise Broken("acked", f"writer {name}: {acked} requests were answered, and {found} have happened")
    documents = dict(base)
    for write in writes[:acked]:
        write.apply(documents)
    expected = {key: new for key, (_, new) in documents.items()}
    differing = [key for key in expected.keys() | there.keys() if expected.get(key) != there.get(key)]
    raise Broken(
        "whole",
        f"writer {name}: no first part of {len(writes)} requests, {acked} of them answered, gives what is there;"
        f" after the answered ones {sorted(differing)[:10]} differ",
    )


# --- jobs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """The fields with which a job was submitted."""

    kind: str
    library: str | None = None
    after: tuple[int, ...] = ()
    lock: str | None = None
    unique: str | None = None


#: Kinds of which only one job runs at a time, and those of which only one runs at a time on each library.
ALONE: Final = {"snapshot", "backup", "verify", "trim", "vacuum", "prune"}
ALONE_IN_LIBRARY: Final = {"ingest", "delete", "export", "rebuild", "reembed"}


def check_jobs(replay: Replay, wanted: Mapping[int, Wanted]) -> None:
    """Checks all jobs in the log; `wanted` are the submissions that were acknowledged."""
    locks: dict[str, list[int]] = defaultdict(list)
    uniques: dict[str, list[int]] = defaultdict(list)
    for job_id, job in replay.jobs.items():
        if job.error is not None and job.error["code"] in ("internal", "damaged") and job.kind != "failer":
            raise Broken("jobs", f"job {job_id} ({job.kind}) failed with {job.error}")
        if job.kind in ALONE:
            locks[job.kind].append(job_id)
        elif job.kind in ALONE_IN_LIBRARY:
            locks[f"{job.kind} of {job.library}"].append(job_id)
    for job_id, about in wanted.items():
        if job_id not in replay.jobs:
            raise Broken("acked", f"job {job_id} was submitted, and the log does not know it")
        job = replay.jobs[job_id]
        if (job.kind, job.library) != (about.kind, about.library):
            raise Broken("jobs", f"job {job_id} was {about}, and is {job.kind} of {job.library}")
        if about.lock is not None:
            locks[f"lock {about.lock}"].append(job_id)
        if about.unique is not None:
            uniques[about.unique].append(job_id)
        for parent in () if job.retried else about.after:
            done = replay.jobs[parent].completed
            if job.running and (done is None or done > int(job.running[0][0] or 0)):
                raise Broken("once", f"job {job_id} ran before {parent} had completed")
    for key, job_ids in locks.items():
        _check_apart(key, [(span, each) for each in job_ids for span in replay.jobs[each].running])
    for key, job_ids in uniques.items():
        _check_apart(f"unique {key}", [(span, each) for each in job_ids for span in replay.jobs[each].waiting])


def _check_apart(key: str, spans: list[tuple[list[int | None], int]]) -> None:
    for ((_, end), one), ((start, _), other) in itertools.pairwise(sorted(spans, key=lambda span: span[0][0] or 0)):
        if end is None or (start is not None and start < end):
            raise Broken("once", f"{key}: job {other} began at seq {start}, before job {one} had ended ({end})")


def check_jobs_table(replay: Replay, table: Iterable[Mapping[str, Any]]) -> None:
    """Compares the log with `table`: all jobs with their attempts, while none runs."""
    there = {job["job_id"]: job for job in table}
    if there.keys() != replay.jobs.keys():
        raise Broken("jobs", f"the log and the table differ in the jobs {sorted(there.keys() ^ replay.jobs.keys())}")
    for job_id, job in there.items():
        logged = replay.jobs[job_id]
        if (job["state"], job["attempt"]) != (logged.state, logged.attempt):
            raise Broken("jobs", f"job {job_id} is {job['state']} ({job['attempt']}), by the log {logged}")
        numbers = [attempt["attempt"] for attempt in job["attempts"]]
        if numbers != list(range(1, logged.attempt + 1)):
            raise Broken("jobs", f"job {job_id} has the attempts {numbers}, by the log {logged.attempt}")
        for attempt, after in itertools.pairwise(job["attempts"]):
            if attempt["ended_at"] is None or after["started_at"] < attempt["ended_at"]:
                raise Broken("once", f"job {job_id}: attempt {after['attempt']} began before the one before had ended")


def check_log(events: list[Event], seq: int, left: list[Event]) -> None:
    """Checks the recorded log `events`: `seq` is its head when the daemon was idle, `left` the log after all trims."""
    late = [event for event in events[seq:] if not event["type"].startswith("index.")]
    if len(events) < seq or late:
        said = "; ".join(str(event)[:300] for event in late[:5])
        raise Broken("log", f"{len(events)} events at rest, where the head was {seq}: {said}")
    if left and left != events[left[0]["seq"] - 1 : left[-1]["seq"]]:
        raise Broken("log", "what trims have left of the log is not what was recorded of it")


def check_steps(replay: Replay, library: str, key: str, ids: Sequence[str], completed: bool) -> None:
    """Checks that a job wrote the first of `ids`, in order, each once; all of them if it has completed. `key` is the
    prefix of its ids, up to the first hyphen."""
    applied = [document_id for document_id, _ in replay.written[library, key]]
    if applied != list(ids[: len(applied)]):
        wrong = next(place for place, (one, other) in enumerate(zip(applied, [*ids, ""], strict=False)) if one != other)
        raise Broken("once", f"job {key}: step {wrong + 1} wrote {applied[wrong]}, after {applied[:wrong][-3:]}")
    if completed and len(applied) < len(ids):
        raise Broken("once", f"job {key} has completed, and wrote {len(applied)} of {len(ids)} documents")


# --- consumers ------------------------------------------------------------------------------------------------------


def check_consumer(name: str, acked: int, sent: int, there: int | None) -> None:
    """Checks a consumer's position: `acked` is the last acknowledged ack, `sent` the last ack that was sent."""
    if there is None or not acked <= there <= max(acked, sent):
        raise Broken("consumer", f"{name} is at {there}; acks up to {acked} were answered, and up to {sent} sent")


# --- searches -------------------------------------------------------------------------------------------------------

Doubles = npt.NDArray[np.float64]

#: Tolerance of a score, compared with one in double precision.
_SLACK: Final = 2e-5


def check_hits(
    what: str, hits: Sequence[tuple[str, float]], scores: Mapping[str, float], k: int, exact: bool = True
) -> None:
    """Checks a search: `hits` are chunks and their scores, best first; `scores` are those of brute force, by chunk."""
    found = [chunk for chunk, _ in hits]
    if len(set(found)) != len(found):
        raise Broken("search", f"{what}: a hit comes twice")
    for chunk, score in hits:
        if chunk not in scores:
            raise Broken("search", f"{what}: {chunk} is found, and is not there")
        if abs(score - scores[chunk]) > _SLACK * max(1, abs(score)):
            raise Broken("search", f"{what}: {chunk} has the score {score}, by brute force {scores[chunk]}")
    if any(one < other for (_, one), (_, other) in itertools.pairwise(hits)):
        raise Broken("search", f"{what}: the hits are not in the order of their scores")
    wanted = min(k, len(scores))
    if len(hits) != wanted:
        raise Broken("search", f"{what}: {len(hits)} hits instead of {wanted}")
    if exact and wanted:
        last = sorted(scores.values(), reverse=True)[wanted - 1]
        if min(score for _, score in hits) < last - _SLACK * max(1, abs(last)):
            better = sorted((chunk for chunk, score in scores.items() if score > last and chunk not in found))
            raise Broken("search", f"{what}: {better[:5]} are missing")


def cosines(query: npt.NDArray[np.float32], vectors: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
    """The cosine of each vector, by brute force, in double precision."""
    asked = query.astype(np.float64)
    found = {}
    for chunk, vector in vectors.items():
        row = vector.astype(np.float64)
        lengths = float(np.linalg.norm(row) * np.linalg.norm(asked))
        found[chunk] = float(row @ asked / lengths) if lengths else 0.0
    return found


# --- files ----------------------------------------------------------------------------------------------------------

#: The files of an idle instance.
_AT_HOME: Final = re.compile(
    r"vecd\.log|vecd\.sock|data/(vec\.db(-wal|-shm)?|vec\.id|vecd\.lock|reserve|indexes/\d+\.(index|text))"
)


def check_files(home: Iterable[str], library_ids: set[int], made: Iterable[str], expected: set[str]) -> None:
    """Checks for unexpected files: `home` are the files in VEC_HOME, `made` those in the output folder of jobs, of
    which only `expected` may exist."""
    for name in home:
        snapshot = re.fullmatch(r"data/indexes/(\d+)\..*", name)
        if not _AT_HOME.fullmatch(name) or (snapshot and int(snapshot[1]) not in library_ids):
            raise Broken("files", f"{name} is left behind")
    if left := set(made) - expected:
        raise Broken("files", f"{sorted(left)} are left behind")


def check_copy(what: str, there: Mapping[str, Content], expected: Mapping[str, Content]) -> None:
    """Compares an export or a backup with the replayed state at its seq."""
    differing = [each for each in there.keys() | expected.keys() if there.get(each) != expected.get(each)]
    if differing:
        one = sorted(differing)[0]
        raise Broken(
            "files", f"{what}: {len(differing)} documents differ; {one} is {there.get(one)}, was {expected.get(one)}"
        )
