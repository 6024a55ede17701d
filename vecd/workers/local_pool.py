"""LocalPool: embeds in child processes of the daemon (local.py). Each embedder has its own, so that one which is slow,
or waits for a server that does not answer, delays no other.

One thread for each process hands it batches, in fair order between flows. One more process takes only small batches, of
fewer than EMBED_TEXTS_MIN texts: so a query or a one-line write does not wait for a batch of seconds. Threads and
processes start with a batch, and end after LOCAL_IDLE_S without work.

A process that dies in a batch may have died of one text, and an embedder may answer one text wrongly: the batch is
split, down to that text, whose error is permanent; the others get their vectors. Before that, and before a text is
refused, the embedder must embed another text, one that it has embedded before if there is one: an embedder that fails
for it, too, fails for all. Then it is called twice, and not for each text, and the batch has its error,
`embedder_failed`: it is tried again later.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..fair_queue import FairQueue
from ..parameters import without_parameters
from ..resources import exhausted, start
from ..text import embedders
from ..text.embedders.answers import REFUSED, refused
from . import messages
from .messages import Floats, Request

log = logging.getLogger("vecd.workers")

#: The codes of errors that are the embedder's, and no text's.
_FAILURES: Final = (Code.EMBEDDER_FAILED, Code.SETTINGS, Code.INTERNAL)
#: Embedders whose failures are remembered: more than most instances have.
_FAILURES_MAX: Final = 100
#: A text that every embedder embeds.
_PLAIN: Final = "a plain text"


class Embedded(NamedTuple):
    """The outcome of a batch: vectors, shape (texts, dimension), with zeros for the texts in `failed`."""

    vectors: Floats
    failed: dict[int, VecError]  # by position of the text


@dataclass(slots=True, eq=False)
class Batch:
    """Texts for one embedder, and the future of their vectors."""

    flow: Hashable
    embedder: str
    texts: Sequence[str]
    queries: bool = False  # not texts of documents
    future: Future[Embedded] = field(default_factory=Future)
    bulk: bool = False  # whether it waits behind large batches, however small it is

    def resolve(self, outcome: Embedded | VecError) -> None:
        """The first outcome counts; later ones are ignored."""
        with contextlib.suppress(InvalidStateError):
            if isinstance(outcome, VecError):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)


class LocalPools:
    """A pool for each embedder that is in use. `submit` on any thread."""

    def __init__(self, processes: int) -> None:
        """`processes` of each pool, beside the one for small batches."""
        self._processes = processes
        self._lock = threading.Lock()  # guards what follows
        self._pools: dict[str, LocalPool] = {}
        self._texts = 0  # embedded by pools that are gone
        self._failures: dict[str, tuple[int, VecError]] = {}  # of embedders: when (microseconds), and why
        self._closed = False

    def submit(self, batch: Batch) -> None:
        """Embeds the batch, unless its future is done before its turn. Raises VecError `busy` if the system does not
        give the threads."""
        with self._lock:
            if self._closed:
                raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
            if batch.embedder not in self._pools:
                for name in [name for name, pool in self._pools.items() if pool.unused]:
                    self._texts += self._pools.pop(name).texts
                self._pools[batch.embedder] = LocalPool(self._processes)
            self._pools[batch.embedder].submit(batch)
        batch.future.add_done_callback(partial(self._note, batch.embedder))

    def _note(self, embedder: str, done: Future[Embedded]) -> None:
        """Remembers an embedder that fails until it embeds again."""
        error = None if done.cancelled() else done.exception()
        with self._lock:
            if isinstance(error, VecError) and error.code in _FAILURES:
                self._failures[embedder] = time.time_ns() // 1_000, error
                while len(self._failures) > _FAILURES_MAX:
                    del self._failures[next(iter(self._failures))]
            elif error is None and not done.cancelled():
                self._failures.pop(embedder, None)

    def failures(self) -> dict[str, tuple[int, VecError]]:
        """The embedders whose last batch failed, whatever its texts: when (microseconds since 1970), and why."""
        with self._lock:
            return dict(self._failures)

    @property
    def waiting(self) -> int:
        """Batches that wait or are being embedded here."""
        with self._lock:
            return sum(pool.waiting for pool in self._pools.values())

    @property
    def texts(self) -> int:
        """Texts that were embedded here."""
        with self._lock:
            return self._texts + sum(pool.texts for pool in self._pools.values())

    def close(self) -> None:
        """Kills the processes, and ends what waits with VecError `shutting_down`. Blocks."""
        with self._lock:
            self._closed = True
            pools = [*self._pools.values()]
        for pool in pools:
            pool.begin_close()
        for pool in pools:
            pool.close()


class LocalPool:
    """The processes of one embedder. `submit` on any thread."""

    def __init__(self, processes: int) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._ready = threading.Condition(self._lock)
        self._large: FairQueue[Batch] = FairQueue()
        self._small: FairQueue[Batch] = FairQueue()
        self._closed = False
        self._busy = 0
        self._count = processes + 1
        self._running: dict[int, tuple[threading.Thread, _Child]] = {}  # by number; number 0 takes only small batches
        self.texts = 0  # embedded here

    def submit(self, batch: Batch) -> None:
        """Embeds the batch, unless its future is done before its turn. Raises VecError `busy` if the system does not
        give the threads."""
        small = len(batch.texts) < limits.EMBED_TEXTS_MIN and not batch.bulk
        with self._lock:
            if self._closed:
                raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
            for number in (0,) if small else range(1, self._count):
                if number not in self._running:
                    runner = self._runner(number)
                    start([runner[0]])
                    self._running[number] = runner
            (self._small if small else self._large).put(batch.flow, batch, len(batch.texts))
            self._ready.notify_all()

    def _runner(self, number: int) -> tuple[threading.Thread, _Child]:
        child = _Child()
        thread = threading.Thread(target=self._run, args=(child, number), name=f"vecd-embed_{number}", daemon=True)
        return thread, child

    @property
    def waiting(self) -> int:
        """Batches that wait or are being embedded here."""
        with self._lock:
            return len(self._large) + len(self._small) + self._busy

    @property
    def unused(self) -> bool:
        """Whether it has no threads: it has had no work for long."""
        with self._lock:
            return not self._running and not self._large and not self._small

    def begin_close(self) -> None:
        """Kills the processes, and ends what waits with VecError `shutting_down`."""
        with self._lock:
            self._closed = True
            dropped = [queue.get()[1] for queue in (self._small, self._large) for _ in range(len(queue))]
            running = [*self._running.values()]
            self._ready.notify_all()
        for batch in dropped:
            batch.resolve(VecError(Code.SHUTTING_DOWN, "the daemon is stopping"))
        for _, child in running:
            child.kill()

    def close(self) -> None:
        """Waits for the threads, after `begin_close`. Blocks."""
        with self._lock:
            running = [*self._running.values()]
        for thread, _ in running:
            thread.join()

    def _run(self, child: _Child, number: int) -> None:
        try:
            while (batch := self._take(number)) is not None:
                try:
                    if batch.future.done():  # cancelled, or a worker's answer came late
                        continue
                    batch.resolve(_embedded(child, batch.embedder, batch.texts, batch.queries))
                    self.texts += len(batch.texts)
                except VecError as error:
                    batch.resolve(error)
                except Exception as error:
                    log.exception("a batch could not be embedded", extra={"embedder": batch.embedder})
                    batch.resolve(exhausted(error) or VecError(Code.INTERNAL, f"embedding failed: {error!r:.300}"))
                finally:
                    with self._lock:
                        self._busy -= 1
        finally:
            child.end()

    def _take(self, number: int) -> Batch | None:
        """The next batch; None at the end, and if there has been none for long."""
        queue = self._large if number else self._small
        with self._lock:
            if not self._ready.wait_for(lambda: self._closed or queue, limits.LOCAL_IDLE_S):
                del self._running[number]  # the next batch starts another thread
                return None
            if self._closed:
                return None
            self._busy += 1
            return queue.get()[1]


def _embedded(child: _Child, embedder: str, texts: Sequence[str], queries: bool) -> Embedded:
    """Embeds on this thread; splits a batch that crashes the process, fails by a bug, or has a text that cannot be
    embedded. Raises VecError."""
    # The first answer tells the dimension of all: it must not be the one to a single text, which may be wrong.
    alone = len(texts) == 1 and child.fresh and embedders.dimension_of(embedder) is None
    made = _attempt(child, embedder, [*texts, child.good] if alone else texts, queries)
    if isinstance(made, Embedded):
        return Embedded(made.vectors[: len(texts)], {})
    about = {"embedder": without_parameters(embedder)[0], "texts": len(texts), "error": str(made)}
    log.warning("a batch failed in the embedder", extra=about)
    _check_works(child, embedder, queries)
    if alone:
        return _in_parts(child, embedder, texts, queries)
    if len(texts) == 1:
        return Embedded(np.zeros((1, 0), np.float32), {0: made})
    return _halves(child, embedder, texts, queries)


def _attempt(child: _Child, embedder: str, texts: Sequence[str], queries: bool) -> Embedded | VecError:
    """The vectors of a batch, or an error for which a text of it may be to blame. Raises VecError for all others."""
    try:
        return Embedded(child.embed(embedder, texts, queries), {})
    except _Crashed as error:
        return refused(f"the embedder {without_parameters(embedder)[0]}: {error}")
    except VecError as error:
        if error.code not in (Code.INTERNAL, Code.INVALID_DOCUMENT):
            raise
        return VecError(Code.INVALID_DOCUMENT, error.message, error.hint, field="text")


def _check_works(child: _Child, embedder: str, queries: bool) -> None:
    """Raises VecError `embedder_failed` if the embedder does not embed a text that it should be able to embed."""
    made = _attempt(child, embedder, [child.good], queries)
    if isinstance(made, VecError):
        raise VecError(
            Code.EMBEDDER_FAILED,
            f"the embedder {without_parameters(embedder)[0]} embeds no text: {made.message.removeprefix(REFUSED)}",
            made.hint or "correct its program, its server or its parameters",
        )


def _in_parts(child: _Child, embedder: str, texts: Sequence[str], queries: bool) -> Embedded:
    """Embeds a part of a batch that has failed, down to the texts that are to blame. Raises VecError."""
    made = _attempt(child, embedder, texts, queries)
    if isinstance(made, Embedded):
        return made
    if len(texts) > 1:
        return _halves(child, embedder, texts, queries)
    _check_works(child, embedder, queries)  # it may have failed since
    return Embedded(np.zeros((1, 0), np.float32), {0: made})


def _halves(child: _Child, embedder: str, texts: Sequence[str], queries: bool) -> Embedded:
    """The outcome of a batch from those of its halves. Raises VecError."""
    half = len(texts) // 2
    first, second = (_in_parts(child, embedder, part, queries) for part in (texts[:half], texts[half:]))
    dimension = max(first.vectors.shape[1], second.vectors.shape[1])
    vectors = np.zeros((len(texts), dimension), np.float32)
    for at, part in ((0, first), (half, second)):
        if part.vectors.shape[1]:
            vectors[at : at + len(part.vectors)] = part.vectors
    return Embedded(vectors, {**first.failed, **{half + place: each for place, each in second.failed.items()}})


class _Crashed(Exception):
    """The process died in a batch."""


class _Child:
    """One process, started on first use, and again after it has died. Used by one thread; `kill` by any."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self.fresh = True  # the process has embedded nothing yet
        self.good = _PLAIN  # a text that the embedder embeds

    def embed(self, embedder: str, texts: Sequence[str], queries: bool) -> Floats:
        """Raises VecError: the embedder's, `embedder_failed` if the process cannot be started or takes too long; and
        _Crashed."""
        process = self._process or self._started()
        request = Request("", embedder, list(texts), queries=queries).encode()
        try:
            assert process.stdin is not None
            process.stdin.write(len(request).to_bytes(4, "little") + request)
            process.stdin.flush()
            answer = self._read(process, limits.LOCAL_EMBED_S)
        except (BrokenPipeError, EOFError):
            status = self._ended()
            raise _Crashed(f"its process ended with {status}") from None
        vectors = messages.answer(answer).matrix(len(texts))
        self.good, self.fresh = min(texts, key=len), False
        return vectors

    def _started(self) -> subprocess.Popen[bytes]:
        if self._killed:
            raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
        process = self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "vecd.workers.local"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at a terminal reaches the daemon only
        )
        if self._killed:  # meanwhile
            process.kill()
        try:
            self._read(process, limits.LOCAL_START_S)
        except EOFError:
            status = self._ended()
            raise VecError(
                Code.EMBEDDER_FAILED, f"the process that embeds cannot start: it ended with {status}"
            ) from None
        log.info("embedding process started", extra={"child": process.pid})
        return process

    def _read(self, process: subprocess.Popen[bytes], bound_s: float) -> bytes:
        """A message of the process. Raises EOFError, and VecError `embedder_failed` if it takes too long."""
        assert process.stdout is not None
        deadline = time.monotonic() + bound_s
        data, wanted = bytearray(), 4
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(data) < wanted:
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not selector.select(left_s):
                    self._ended(kill=True)
                    raise VecError(
                        Code.EMBEDDER_FAILED,
                        f"the process that embeds has not answered in {bound_s:,.0f} s and was killed",
                    )
                piece = os.read(process.stdout.fileno(), wanted - len(data))
                if not piece:
                    raise EOFError
                data += piece
                if wanted == 4 == len(data):
                    wanted += int.from_bytes(data, "little")
        return bytes(data[4:])

    def _ended(self, *, kill: bool = False) -> str:
        """Reaps the process; returns how it ended."""
        process, self._process = self._process, None
        self.fresh = True
        if process is None:
            return "nothing"
        if kill:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        try:
            status = process.wait(limits.LOCAL_START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        return f"signal {-status}" if status < 0 else f"status {status}"

    def end(self) -> None:
        """Ends it by the end of its input."""
        self._ended()

    def kill(self) -> None:
        """Kills it, and starts no other."""
        self._killed = True
        process = self._process
        if process is not None:
            process.kill()
