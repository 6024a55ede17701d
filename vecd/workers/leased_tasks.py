"""Embedding tasks: texts to vectors, the heavy and pure part of reembeds and ingests, shared out to workers by lease.

A *task* is up to 256 texts for one embedder. A caller that needs vectors submits a batch of texts, which is cut into
tasks, and waits for its result; workers outside the daemon (`vec worker`) claim tasks, embed, and send vectors.

Rules:
- A task is pure, so tasks are kept in memory only. After a restart of the daemon, the job submits its tasks again.
- A worker holds a task until its lease expires; then the task is queued again. Each claim has an id of its own, the
  fencing token: vectors that come with another id are refused. So a task is never answered twice.
- The daemon embeds a batch itself if no worker is present that takes it, or if TASK_FAILURES_MAX claims of one of its
  tasks have failed. While workers are present it leaves tasks to them: its processor is for searches and writes.
- A worker is present while it waits for work, holds a task, or was heard of within WORKER_PRESENT_S.

Thread-safe: one lock guards all state. `on_ready` is called without it.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import Code, VecError
from ..index import LENGTH_MAX
from ..text import embedders

log = logging.getLogger("vecd.workers")

Vectors = npt.NDArray[np.float32]
#: Texts to vectors, shape (len(texts), dimension), in this process. Blocks; raises VecError.
Embed = Callable[[Sequence[str]], Vectors]

#: Kinds of task, the most urgent first, with the work that they are part of.
TASK_KINDS: Final[dict[str, str]] = {
    "embed": "texts of an ingest to vectors, if the embedder is slow",
    "reembed": "texts of a reembed job to vectors",
}
#: How often a thread that waits for a batch looks whether it must stop.
_LOOK_S: Final = 0.25


class Takes(NamedTuple):
    """What a worker takes: kinds of job, kinds of task, and for tasks its embedders."""

    jobs: frozenset[str]
    tasks: frozenset[str] = frozenset()
    embedders: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class Task:
    """Texts to embed. `vectors` is None until it is done."""

    batch: Batch
    texts: Sequence[str]
    vectors: Vectors | None = None
    failures: int = 0


@dataclass(slots=True, eq=False)
class Lease:
    """A worker's claim of a task."""

    task_id: str
    task: Task
    worker: str
    takes: Takes
    lease_s: float
    begun: float
    begun_us: int  # by the wall clock
    ends: float = field(init=False)

    def __post_init__(self) -> None:
        self.extend(self.begun)

    def extend(self, now: float) -> None:
        self.ends = min(now + self.lease_s, self.begun + limits.TASK_S_MAX)


class EmbeddingTasks:
    """The tasks of one daemon."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock  # of leases; the jobs set it to one that stops while the daemon is stopped
        self.on_ready: Callable[[], None] = lambda: None  # called after tasks were queued
        self._lock = threading.Lock()  # guards all that follows
        self._queued: dict[str, list[Task]] = {kind: [] for kind in TASK_KINDS}  # oldest first
        self._leases: dict[str, Lease] = {}  # by task id
        self._waiting: dict[object, Takes] = {}  # workers that wait for work
        self._recent: dict[str, tuple[Takes, float]] = {}  # by name: workers heard of, and until when they are present
        self._closed = False

    def close(self) -> None:
        """Ends all batches, also those to come, without vectors."""
        with self._lock:
            self._closed = True
            batches = [*self._batches(), *(lease.task.batch for lease in self._leases.values())]
        for batch in batches:
            batch.cancel()

    # --- for those who need vectors ---------------------------------------------------------------------------------

    def submit(
        self, kind: str, embedder: str, texts: Sequence[str], *, job_id: int | None = None, library: str | None = None
    ) -> Batch:
        """Queues texts to be embedded, if a worker is present that takes them."""
        batch = Batch(self, kind, embedder, texts, job_id, library)
        with self._lock:
            queued = bool(texts) and not self._closed and any(self._accepting(kind, embedder))
            if queued:
                self._queued[kind] += batch.tasks
        if queued:
            self.on_ready()
        else:
            batch.future.set_result(None)
        return batch

    def window(self, kind: str, embedder: str) -> int:
        """How many batches should be in flight, so that each worker that is present always finds a task."""
        with self._lock:
            count = sum(self._accepting(kind, embedder))
        return min(limits.TASK_BATCHES_MAX, 2 * count + 1)

    def _accepting(self, kind: str, embedder: str) -> Iterator[bool]:
        """A true value for each worker that is present and takes such tasks."""
        now = time.monotonic()
        for takes in (
            *self._waiting.values(),
            *(lease.takes for lease in self._leases.values()),
            *(takes for takes, until in self._recent.values() if until > now),
        ):
            if kind in takes.tasks and embedder in takes.embedders:
                yield True

    def _batches(self) -> list[Batch]:
        """The batches with queued tasks."""
        return list(dict.fromkeys(task.batch for queue in self._queued.values() for task in queue))

    def withdraw(self, batch: Batch) -> None:
        """Takes back what is not done of a batch; workers that hold a part of it are refused."""
        with self._lock:
            queue = self._queued[batch.kind]
            queue[:] = [task for task in queue if task.batch is not batch]
            for task_id in [task_id for task_id, lease in self._leases.items() if lease.task.batch is batch]:
                lease = self._leases.pop(task_id)
                self._heard(lease.worker, lease.takes)

    # --- for workers ------------------------------------------------------------------------------------------------

    def heard(self, name: str, takes: Takes) -> None:
        """A worker asks for work: it is present."""
        with self._lock:
            self._heard(name, takes)

    def arrive(self, waiting: object, takes: Takes) -> None:
        """A worker waits for work."""
        with self._lock:
            self._waiting[waiting] = takes

    def leave(self, waiting: object, name: str, *, gone: bool) -> None:
        """It waits no longer. `gone`: its request was cancelled, or its connection has ended."""
        with self._lock:
            takes = self._waiting.pop(waiting, None)
            self._recent.pop(name, None)
            if takes is not None and not gone:
                self._heard(name, takes)

    def take(self, worker: str, takes: Takes, lease_s: float) -> Lease | None:
        """Gives the next task that the worker takes; None if there is none."""
        with self._lock:
            for kind, queue in self._queued.items():
                if kind not in takes.tasks:
                    continue
                for place, task in enumerate(queue):
                    if task.batch.embedder in takes.embedders:
                        del queue[place]
                        self._recent.pop(worker, None)
                        lease = Lease(secrets.token_hex(8), task, worker, takes, lease_s, self.clock(), _now_us())
                        self._leases[lease.task_id] = lease
                        return lease
        return None

    def heartbeat(self, task_id: str) -> Lease:
        """Extends a lease. Raises VecError `lease_lost`."""
        with self._lock:
            lease = self._held(task_id)
            lease.extend(self.clock())
            return lease

    def finish(self, task_id: str, vectors: bytes | None, error: VecError | None) -> None:
        """Ends a claim: with vectors, little-endian float32, one after the other; with an error; or with neither: then
        the worker returns the task. Raises VecError `lease_lost`, or `invalid_request` for vectors that are none."""
        refusal: VecError | None = None
        with self._lock:
            lease = self._held(task_id)
        task, made = lease.task, None
        if vectors is not None:
            try:
                made = _checked(task, vectors)
            except VecError as wrong:
                refusal = wrong
        with self._lock:
            self._held(task_id)
            del self._leases[task_id]
            self._heard(lease.worker, lease.takes)
            task.vectors = made
            if made is None:
                self._queue_again(lease, error or refusal)
        if made is None:
            self.on_ready()
        self.settle(task.batch)
        if refusal is not None:
            raise refusal

    def expire(self) -> bool:
        """Queues tasks again whose leases have expired, and gives batches back that no worker will take; returns
        whether there is anything left to watch. Call it every quarter of a second while there is."""
        lost: list[Lease] = []
        with self._lock:
            now = self.clock()
            for task_id in [task_id for task_id, lease in self._leases.items() if lease.ends <= now]:
                lost.append(self._leases.pop(task_id))
            for lease in lost:
                self._queue_again(lease, VecError(Code.LEASE_LOST, "the worker was silent"))
            batches = self._batches()
        if lost:
            self.on_ready()
        for batch in batches:
            self.settle(batch)
        return bool(self._leases or batches)

    def settle(self, batch: Batch) -> None:
        """Ends a batch that is done, or that the daemon must finish."""
        with self._lock:
            found = [task.vectors for task in batch.tasks if task.vectors is not None]
            done = len(found) == len(batch.tasks)
            why = None
            if not done and any(task.failures >= limits.TASK_FAILURES_MAX for task in batch.tasks):
                why = "workers failed"
            elif not done and not any(self._accepting(batch.kind, batch.embedder)):
                why = "no worker is present"
            if (not done and why is None) or batch.settled:
                return
            batch.settled = True
        if why is not None:
            about = {"why": why, "embedder": batch.embedder, "job": batch.job_id}
            log.warning("the daemon embeds texts itself", extra=about)
            batch.cancel()
        else:
            batch.end()

    def leases(self) -> list[Lease]:
        """The claims, oldest first."""
        with self._lock:
            return list(self._leases.values())

    # --- under the lock ---------------------------------------------------------------------------------------------

    def _held(self, task_id: str) -> Lease:
        lease = self._leases.get(task_id)
        if lease is None or lease.ends <= self.clock():
            raise VecError(
                Code.LEASE_LOST,
                f"the task {task_id!r:.40} is not the worker's: its lease has expired, or nobody needs it any more",
                "discard its vectors, and claim another task",
            )
        return lease

    def _heard(self, name: str, takes: Takes) -> None:
        now = time.monotonic()
        for other in [other for other, (_, until) in self._recent.items() if until <= now]:
            del self._recent[other]
        if takes.tasks:
            self._recent[name] = (takes, now + limits.WORKER_PRESENT_S)

    def _queue_again(self, lease: Lease, error: VecError | None) -> None:
        """The task is queued before all others. Without an error, the worker has returned it."""
        task = lease.task
        if error is not None:
            task.failures += 1
            log.warning(
                "a worker did not embed its texts",
                extra={"worker": lease.worker, "job": task.batch.job_id, "code": error.code, "error": str(error)},
            )
        if not task.batch.settled:
            self._queued[task.batch.kind].insert(0, task)


class Batch:
    """Texts that were submitted together."""

    def __init__(
        self,
        pool: EmbeddingTasks,
        kind: str,
        embedder: str,
        texts: Sequence[str],
        job_id: int | None,
        library: str | None,
    ) -> None:
        self._pool = pool
        self.kind = kind
        self.embedder = embedder
        self.job_id = job_id
        self.library = library
        self.tasks = [Task(self, part) for part in _parts(texts)]
        self.settled = False  # guarded by the pool's lock
        #: The vectors, one row per text, in order; None if the daemon must embed what is missing: see `result`.
        self.future: Future[Vectors | None] = Future()

    def result(self, embed: Embed, stopping: Callable[[], bool] = lambda: False) -> Vectors | None:
        """The vectors, one row per text, in order; None if there are no texts, or as soon as the caller must stop.

        Waits for workers; what no worker takes is embedded here, by `embed`. Raises what `embed` raises, and VecError
        `embedder_failed` if workers disagree about the dimension.
        """
        while not stopping():
            try:
                found = self.future.result(_LOOK_S)
            except TimeoutError:
                continue
            if found is not None or not self.tasks:
                return found
            for task in self.tasks:
                if task.vectors is None:
                    if stopping():
                        return None
                    task.vectors = embed(task.texts)
            return self._joined()
        return None

    def cancel(self) -> None:
        """Ends it without vectors."""
        self._pool.withdraw(self)
        with contextlib.suppress(InvalidStateError):
            self.future.set_result(None)

    def end(self) -> None:
        """All its tasks are done."""
        with contextlib.suppress(InvalidStateError):
            try:
                self.future.set_result(self._joined())
            except VecError as error:
                self.future.set_exception(error)

    def _joined(self) -> Vectors:
        found = [task.vectors for task in self.tasks if task.vectors is not None]
        if len({each.shape[1] for each in found}) > 1:
            raise VecError(Code.EMBEDDER_FAILED, "workers made vectors of different dimensions", "upgrade them")
        return np.concatenate(found)


def _parts(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts, in groups that make a task."""
    part: list[str] = []
    chars = 0
    for text in texts:
        if part and (len(part) == limits.TASK_TEXTS or chars + len(text) > limits.TASK_CHARS):
            yield part
            part, chars = [], 0
        part.append(text)
        chars += len(text)
    if part:
        yield part


def _checked(task: Task, packed: bytes) -> Vectors:
    """The vectors of a task, shape (texts, dimension). Raises VecError `invalid_request`."""
    dimension, rest = divmod(len(packed), 4 * len(task.texts))
    wanted = embedders.dimension_of(task.batch.embedder)
    if rest or not 0 < dimension <= limits.DIMENSION_MAX or wanted not in (None, dimension):
        raise _wrong(
            f"{len(packed):,} bytes are not {len(task.texts):,} vectors"
            + ("" if wanted is None else f" of {wanted:,} dimensions")
        )
    vectors: Vectors = np.frombuffer(packed, "<f4").reshape(len(task.texts), dimension).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
    if not (lengths <= LENGTH_MAX).all():
        raise _wrong(f"the vector of text {int((~(lengths <= LENGTH_MAX)).argmax())} is not finite")
    return vectors


def _now_us() -> int:
    return time.time_ns() // 1_000


def _wrong(what: str) -> VecError:
    return VecError(
        Code.INVALID_REQUEST, what, "send little-endian float32, one vector per text, in the order of the texts",
        field="vectors",
    )  # fmt: skip
