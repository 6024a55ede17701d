"""The process `vec worker`: claims embedding tasks and jobs of a daemon by lease, and runs them.

    slots    threads, each with a connection and one task or job at a time
    keeper   a thread with a connection that sends the heartbeats of all slots: a slot may compute for long

Rules:
- What a slot holds is the daemon's again when the lease expires. A slot that learns that its lease is lost discards its
  work; what it sends late is refused by the daemon.
- A lost connection is made again, with increasing pauses, for as long as it takes. An answer without a receipt is sent
  again: the daemon refuses or recognizes what it already has.
- `stop` ends the claims. Slots then finish what they have; what is not finished after the grace period is returned.
- A task that fails is followed by a pause, so that a worker without its model does not take tasks from others.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import backoff, limits
from ..client.client import Client
from ..errors import Code, VecError
from ..text import embedders
from . import leased_jobs
from .leased_jobs import JobStopped

if TYPE_CHECKING:
    from ..text.embedders import Embedder

T = TypeVar("T")
log = logging.getLogger("vecd.workers")

#: Kinds of task, with the work that they are part of. (leased_tasks.py has them too, but needs numpy.)
TASKS: Final = ("embed", "reembed")
#: Kinds that this process runs.
KINDS: Final = (*TASKS, *leased_jobs.RUNNERS)
#: How long a claim waits for work; then the slot claims again.
_CLAIM_S: Final = 30.0
#: The pauses between attempts to connect, and after failed tasks: a random part of a bound, which doubles.
_PAUSE_S: Final = 0.2
_PAUSE_S_MAX: Final = 5.0
_FAILURE_PAUSE_S: Final = 1.0
_FAILURE_PAUSE_S_MAX: Final = 60.0
#: How long returning work at the end may take; then its leases expire.
_RETURN_S: Final = 5.0


@dataclass(slots=True)
class Counts:
    """What a worker has done."""

    tasks: int = 0
    texts: int = 0
    jobs: int = 0
    failed: int = 0  # tasks and jobs that ended with an error
    lost: int = 0  # leases that expired, or whose work nobody needed any more
    returned: int = 0  # tasks and jobs that were given back


@dataclass(slots=True, eq=False)
class Work:
    """What a slot holds: a task (`task_id`) or an attempt at a job."""

    given: dict[str, Any]
    lost: bool = False  # the lease
    stop: str | None = None  # why a job must stop
    finishing: threading.Lock = field(default_factory=threading.Lock)  # held by the thread that sends its end
    ended: bool = False

    @property
    def is_task(self) -> bool:
        return "task_id" in self.given

    @property
    def about(self) -> str:
        """For people."""
        job_id, kind = self.given.get("job_id"), self.given["kind"]
        of = f" of job {job_id}" if job_id is not None else ""
        return f"a task {kind!r}{of}" if self.is_task else f"job {job_id} ({kind})"

    @property
    def lease_s(self) -> float:
        return float(self.given["lease_s"])


class Worker:
    """`run` it on the main thread; `stop` it from any thread or signal handler."""

    def __init__(
        self,
        connect: Callable[[], Client],
        *,
        name: str,
        kinds: Sequence[str],
        concurrency: int = 1,
        lease_s: float | None = None,
        grace_s: float = 10.0,
        output: Path | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`output` is the folder for files of jobs, if the paths in their params are those of another machine. `say` is
        called, from any thread, with a sentence for people."""
        self.counts = Counts()
        self._connect = connect
        self._name = name
        self._kinds = tuple(kinds)
        self._lease_s = lease_s
        self._grace_s = grace_s
        self._output = output
        self._tell = say
        self._telling = threading.Lock()
        self._disconnected: set[_Link] = set()  # guarded by _telling
        self._embedders: dict[str, Embedder] = {}
        self._loading = threading.Lock()  # guards _embedders; held while a model is loaded
        self._lock = threading.Lock()  # guards _held, _claiming, _running and counts
        self._held: set[Work] = set()
        self._stop_read, self._stop_write = os.pipe()  # readable when the worker is to stop
        os.set_blocking(self._stop_write, False)
        self._stopping = threading.Event()
        self._over = threading.Event()  # nothing is sent any more
        self._changed = threading.Condition(self._lock)  # a slot took work, or ended
        self._failure: VecError | None = None
        self._running = concurrency
        self._claiming: set[_Slot] = set()  # slots that wait for the answer to a claim
        self._slots = [_Slot(self, f"{name}/{number}") for number in range(1, concurrency + 1)]

    def run(self) -> bool:
        """Works until it is stopped; returns whether all slots have ended. Raises VecError if it cannot go on: the
        daemon refuses its kinds or its key."""
        keeper = threading.Thread(target=self._keep, name="vec-worker-keeper", daemon=True)
        slots = [threading.Thread(target=slot.run, name=f"vec-worker {slot.name}", daemon=True) for slot in self._slots]
        for thread in (keeper, *slots):
            thread.start()
        self._wait_readable(None)
        deadline = time.monotonic() + self._grace_s
        with self._changed:
            self._changed.wait_for(lambda: not self._running, max(0.0, deadline - time.monotonic()))
            # A claim may just be answered with work, which must be returned.
            self._changed.wait_for(lambda: not self._claiming, _RETURN_S)
            self._over.set()
            self._changed.notify_all()
        keeper.join(2 * _RETURN_S)
        if self._failure is not None:
            raise self._failure
        return not self._running

    def stop(self) -> None:
        """Claims nothing more. Safe in a signal handler, and more than once."""
        if not self._stopping.is_set():
            self._stopping.set()
            os.write(self._stop_write, b"x")

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def wakeup_fd(self) -> int:
        """For signal.set_wakeup_fd, if a signal handler calls `stop`. The kernel may give a signal to another thread
        than the main one, as just after a SIGCONT; then it interrupts no wait of the main thread, which runs the
        handler."""
        return self._stop_write

    # --- for its slots ----------------------------------------------------------------------------------------------

    def _wait_readable(self, seconds: float | None) -> bool:
        """Waits until the worker is to stop, up to that time; returns whether it is."""
        poll = select.poll()
        poll.register(self._stop_read, select.POLLIN)
        poll.poll(None if seconds is None else max(1, int(seconds * 1000)))
        return self.stopping

    def _fail(self, error: VecError) -> None:
        """The worker cannot go on."""
        self._failure = self._failure or error
        self.stop()

    def _say(self, line: str) -> None:
        with self._telling:
            self._tell(line)

    def _note(self, link: _Link, lost: VecError | None) -> None:
        """Says once that the daemon is away, however many connections there are, and once that it is back."""
        with self._telling:
            if lost is not None:
                if not self._disconnected:
                    self._tell(f"{lost.message}; trying again")
                self._disconnected.add(link)
            elif link in self._disconnected:
                self._disconnected.discard(link)
                if not self._disconnected:
                    self._tell("connected again")

    def _ended(self, slot: _Slot) -> None:
        with self._changed:
            self._running -= 1
            self._claiming.discard(slot)
            self._changed.notify_all()

    def _embedder(self, name: str) -> Embedder:
        """Raises VecError."""
        with self._loading:
            if (found := self._embedders.get(name)) is None:
                try:
                    made = embedders.make(name)
                except (ImportError, OSError, MemoryError) as error:
                    raise VecError(Code.EMBEDDER_FAILED, f"the embedder {name!r} cannot be loaded: {error}") from error
                assert made is not None
                found = self._embedders[name] = made
        return found

    @contextlib.contextmanager
    def _holding(self, slot: _Slot, given: dict[str, Any]) -> Iterator[Work]:
        work = Work(given)
        with self._changed:
            self._held.add(work)
            self._claiming.discard(slot)
            self._changed.notify_all()
        try:
            yield work
        finally:
            with self._changed:
                self._held.discard(work)
                self._changed.notify_all()

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, count in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + count)

    # --- the keeper -------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Sends heartbeats, and at the end returns what is left."""
        link = _Link(self)
        due: dict[Work, float] = {}
        while not self._over.is_set():
            now = time.monotonic()
            with self._changed:
                due = {work: due.get(work, now + work.lease_s / 4) for work in self._held}
                left_s = min(due.values(), default=now + 60.0) - now
                if left_s > 0:
                    self._changed.wait(left_s)
                    continue
            for work in [work for work, at in due.items() if at <= now]:
                due[work] = now + work.lease_s / 4
                with contextlib.suppress(VecError):  # without a connection, the lease expires
                    link.once(lambda client, work=work: self._beat(client, work))  # type: ignore[misc]
        for work in list(self._held):
            self._give_back(link, work)
        link.close()

    def _beat(self, client: Client, work: Work) -> None:
        if work.lost or work.ended:
            return
        try:
            if work.is_task:
                client.heartbeat_task(work.given["task_id"])
            else:
                work.stop = client.heartbeat_job(work.given["job_id"], work.given["attempt"])["stop"]
        except VecError as error:
            if error.code != Code.LEASE_LOST:
                raise
            work.lost = not work.ended

    def _give_back(self, link: _Link, work: Work) -> None:
        """Returns work at the end of the grace period; if its slot is just sending its end, waits for that."""
        if work.lost:
            return
        if not work.finishing.acquire(blocking=False):
            with self._changed:
                self._changed.wait_for(lambda: work not in self._held, _RETURN_S)
            return
        with contextlib.suppress(VecError):
            if work.is_task:
                link.once(lambda client: client.finish_task(work.given["task_id"]))
            else:
                link.once(lambda client: client.finish_job(work.given["job_id"], work.given["attempt"]))
            self._count(returned=1)


class _Link:
    """A connection of one thread, which is made again when it is lost."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._client: Client | None = None

    def once(self, call: Callable[[Client], T]) -> T:
        """One attempt. Raises VecError; a connection that was lost is closed."""
        try:
            if self._client is None:
                self._client = self._worker._connect()
                self._worker._note(self, None)
            return call(self._client)
        except VecError as error:
            if error.disconnected:
                self.close()
            raise

    def repeated(self, call: Callable[[Client], T], over: Callable[[], bool]) -> T:
        """Repeats a call until it is answered. Raises VecError: what the daemon answers with; or, once it is `over`,
        why there is no answer."""
        failures = 0
        while True:
            try:
                return self.once(call)
            except VecError as error:
                if not _passes(error) or over():
                    raise
                failures += 1
                self.close()
                self._worker._note(self, error)
                pause_s = backoff.pause_s(failures, _PAUSE_S, _PAUSE_S_MAX)
                if self._worker.stopping:
                    self._worker._over.wait(pause_s)
                else:
                    self._worker._wait_readable(pause_s)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


class _Slot:
    """A thread that holds one task or job at a time."""

    def __init__(self, worker: Worker, name: str) -> None:
        self.name = name
        self._worker = worker
        self._link = _Link(worker)
        self._failures = 0  # tasks in a row

    def run(self) -> None:
        """Claims and runs work until the worker stops."""
        worker = self._worker
        try:
            while not worker.stopping:
                with worker._lock:
                    worker._claiming.add(self)
                given = self._link.repeated(self._claim, lambda: worker.stopping)
                if given is None:
                    continue
                with worker._holding(self, given) as work:
                    if worker.stopping:
                        self._end(work)
                    elif work.is_task:
                        self._embed(work)
                    else:
                        self._run_job(work)
                if self._failures:
                    worker._wait_readable(backoff.pause_s(self._failures, _FAILURE_PAUSE_S, _FAILURE_PAUSE_S_MAX))
        except VecError as error:
            if not worker.stopping:
                worker._fail(error)
        except Exception as error:
            log.error("a slot of the worker failed", exc_info=True)
            worker._fail(VecError(Code.INTERNAL, f"a bug in the worker: {type(error).__name__}: {error}"))
        finally:
            self._link.close()
            worker._ended(self)

    def _claim(self, client: Client) -> dict[str, Any] | None:
        """Waits for work; a stop ends the wait. Raises VecError."""
        worker = self._worker
        pending = client.submit(
            "jobs.claim", worker=self.name, kinds=list(worker._kinds), lease_s=worker._lease_s, wait_s=_CLAIM_S,
            embedders=embedders.for_workers(),
        )  # fmt: skip
        poll = select.poll()
        poll.register(client, select.POLLIN)
        poll.register(worker._stop_read, select.POLLIN)
        cancelled = False
        while not pending.ready:
            if worker.stopping and not cancelled:
                cancelled = True
                poll.unregister(worker._stop_read)
                client.submit("cancel", target=pending.number)
            ready = poll.poll(limits.SILENCE_S * 1000)
            if not ready:
                client.check_daemon()
            elif any(fd == client.fileno() for fd, _ in ready):
                client.pump()
        answer = pending.result()
        found = answer.get("job") or answer.get("task")
        return None if found is None else dict(found)

    # --- tasks ------------------------------------------------------------------------------------------------------

    def _embed(self, work: Work) -> None:
        worker, texts = self._worker, work.given["texts"]
        try:
            vectors = worker._embedder(work.given["embedder"]).embed(texts).astype("<f4").tobytes()
        except Exception as error:
            self._failures += 1
            self._end(work, error=_told(error))
        else:
            self._failures = 0
            self._end(work, vectors=vectors)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _run_job(self, work: Work) -> None:
        worker, given = self._worker, work.given
        held = leased_jobs.Held(
            given, self._send, worker._connect, lambda: worker.stopping or work.stop is not None, lambda: work.lost,
            worker._output,
        )  # fmt: skip
        try:
            result = leased_jobs.RUNNERS[given["kind"]](held)
        except JobStopped:
            self._end(work)
        except Exception as error:
            self._end(work, error=_told(error))
        else:
            self._end(work, result=result)

    def _send(self, call: Callable[[Client], T]) -> T:
        return self._link.repeated(call, self._worker._over.is_set)

    # --- the end ----------------------------------------------------------------------------------------------------

    def _end(self, work: Work, **outcome: Any) -> None:
        """Sends the end of a task or a job: `vectors` or `result`, `error`, or neither: then it is returned."""
        worker, given = self._worker, work.given
        error = outcome.get("error")
        if error is not None and error["code"] == Code.LEASE_LOST:
            work.lost = True
        elif error is not None:
            worker._say(f"{work.about} failed: {error['message']} ({error['code']})")
        if not work.lost and work.finishing.acquire(blocking=False):
            try:
                if work.is_task:
                    self._send(lambda client: client.finish_task(given["task_id"], **outcome))
                else:
                    self._send(lambda client: client.finish_job(given["job_id"], given["attempt"], **outcome))
            except VecError as refusal:
                if refusal.code == Code.LEASE_LOST:
                    work.lost = True
                elif _passes(refusal):
                    return  # the worker ends without a connection: the lease expires
                else:
                    worker._say(f"{work.about}: {refusal.message} ({refusal.code})")
                    worker._count(failed=1)
                    return
        work.ended = True
        if work.lost:
            worker._say(f"{work.about} was lost: its lease has expired, or nobody needs it any more")
            worker._count(lost=1)
        elif error is not None:
            worker._count(failed=1)
        elif not outcome:
            worker._count(returned=1)
        elif work.is_task:
            worker._count(tasks=1, texts=len(given["texts"]))
        else:
            worker._count(jobs=1)


def _passes(error: VecError) -> bool:
    """Whether the same request may be answered later, on another connection."""
    return error.disconnected or error.code in (Code.NO_DAEMON, Code.BUSY, Code.DISK_FULL, Code.TIMEOUT)


def _told(error: Exception) -> dict[str, Any]:
    """An error, for the daemon."""
    if isinstance(error, VecError):
        return error.to_wire()
    log.error("work failed", exc_info=error)
    what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
    return {"code": Code.INTERNAL, "message": f"{type(error).__name__}: {what}"}
