"""RemoteExecutor: hands batches of texts to workers of a framework, through a broker, and takes their answers.

The lease of a batch is kept here, and redelivery by the broker is only a bonus: a broker gives a dead worker's message
to another one after seconds (Dramatiq), minutes (Celery on Redis), or never (RQ). So:

- A batch waits for its answer for `executor_timeout_s`, counted again whenever a message that was sent earlier is
  answered: it waits behind those. Then the daemon embeds it itself (LocalPools).
- If nobody has answered for that time, the executor is silent: the daemon embeds everything, until a worker answers a
  ping. Whatever comes late is used if it is still of use.
- When the broker was lost, it may have lost what was sent: it is sent again. Work that is done twice is only wasted: a
  batch has one future, and the first answer counts.
- Only as many messages are with the broker as keep its workers busy. The others wait here, in fair order.

Threads: one sends, one receives, one watches the limits. The first two wait for a dead broker, and nothing else does.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any

from .. import limits
from ..backoff import pause_s
from ..errors import Code, VecError
from ..fair_queue import FairQueue
from ..resources import start
from ..text import embedders
from . import messages
from .executor_settings import ExecutorSettings, shown, without_secrets
from .executor_table import FRAMEWORKS, Receiver, Sender
from .local_pool import Batch, Embedded, LocalPools
from .messages import Request

log = logging.getLogger("vecd.workers")

_FIRST_PAUSE_S = 0.1


@dataclass(slots=True, eq=False)
class _Message:
    """A message that was given to the sender. `clock` is when its limit began, on the monotonic clock."""

    id: str
    order: int  # messages that were sent earlier have lower ones
    clock: float
    batch: Batch | None  # None: a ping
    sends: int = 0

    @property
    def done(self) -> bool:
        return self.batch is not None and self.batch.future.done()


class RemoteExecutor:
    """`submit` on any thread, after `start`."""

    def __init__(self, settings: ExecutorSettings, pool: LocalPools) -> None:
        """Loads the framework. Raises VecError `invalid_settings`: it is not installed, or the URL cannot be read."""
        self._settings = settings
        self._pool = pool
        self._open_sender, self._open_receiver = FRAMEWORKS[settings.executor].connect()
        self._broker = shown(settings.broker_url())
        self._answers = f"vecd.answers.{uuid.uuid4().hex}"  # an earlier daemon's answers are of no use
        self._changed = threading.Condition()  # its lock guards what follows
        self._waiting: FairQueue[Batch] = FairQueue()
        self._to_send: deque[_Message] = deque()  # again, and pings
        self._sent: dict[str, _Message] = {}  # in the order in which they were sent
        self._given_up: dict[str, Batch] = {}  # sent, and now embedded here
        self._order = 0
        self._present: dict[str, float] = {}  # worker: when it last answered
        self._heard_at: float | None = None  # when any worker last answered
        self._silent = False
        self._here = 0  # batches that the pool has got because of a silence
        self._ping_at = 0.0
        self._texts = 0  # embedded by workers
        self._error: str | None = None  # the last one
        self._closed = False
        self._threads = [
            threading.Thread(target=target, name=f"vecd-executor_{name}", daemon=True)
            for name, target in (("send", self._send), ("receive", self._receive), ("watch", self._watch))
        ]

    def start(self) -> None:
        """Raises VecError `busy` if the system does not give the threads."""
        start(self._threads)

    def submit(self, batch: Batch) -> None:
        """Has a batch embedded: by a worker, or here."""
        with self._changed:
            if self._closed:
                raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping")
            self._waiting.put(batch.flow, batch, len(batch.texts))
            self._changed.notify_all()

    def status(self) -> dict[str, Any]:
        """For people: man/vec-workers.7."""
        with self._changed:
            state = "silent" if self._silent else "waiting" if self._heard_at is None else "working"
            return {
                "broker": self._broker,
                "state": state,
                "workers": len(self._workers()),
                "sent": len(self._sent),
                "waiting": len(self._waiting),
                "texts": self._texts,
                "error": self._error,
            }

    def close(self) -> None:
        """Ends the threads within a few seconds, and what waits with VecError `shutting_down`. Blocks."""
        with self._changed:
            self._closed = True
            dropped = [self._waiting.get()[1] for _ in range(len(self._waiting))]
            dropped += [message.batch for message in self._sent.values() if message.batch is not None]
            self._changed.notify_all()
        for batch in dropped:
            batch.resolve(VecError(Code.SHUTTING_DOWN, "the daemon is stopping"))
        for thread in self._threads:
            thread.join(2 * limits.EXECUTOR_CALL_S)

    # --- sending ----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        sender: Sender | None = None
        failures = 0
        while (message := self._next()) is not None:
            batch = message.batch
            request = Request(
                message.id,
                batch.embedder if batch else "",
                list(batch.texts) if batch else [],
                self._answers,
                batch is not None and batch.queries,
            )
            timeout_s = self._settings.executor_timeout_s
            expires_s = 2 * timeout_s + limits.EXECUTOR_PING_EXPIRES_S if batch else limits.EXECUTOR_PING_EXPIRES_S
            try:
                sender = sender or self._open_sender(self._settings.broker_url(), self._answers)
                sender.send(message.id, request.encode(), len(request.texts), timeout_s, expires_s)
                failures = 0
            except Exception as error:
                _close(sender)
                sender = None
                failures += 1
                self._broker_failed(error, failures)
                with self._changed:
                    self._to_send.appendleft(message)
                self._pause(failures)
            else:
                message.sends += 1
        _close(sender)

    def _next(self) -> _Message | None:
        """The next message to send; None at the end."""
        with self._changed:
            while not self._closed:
                while self._to_send:
                    message = self._to_send.popleft()
                    if message.batch is None or message.id in self._sent:
                        return message
                if self._waiting and not self._silent and len(self._sent) < self._window():
                    batch = self._waiting.get()[1]
                    if batch.future.done():  # cancelled
                        continue
                    message = self._message(batch)
                    self._sent[message.id] = message
                    self._changed.notify_all()  # its limit begins
                    return message
                self._changed.wait()
            return None

    def _message(self, batch: Batch | None) -> _Message:
        self._order += 1
        return _Message(uuid.uuid4().hex, self._order, time.monotonic(), batch)

    def _window(self) -> int:
        """How many messages may be with the broker."""
        wanted = limits.EXECUTOR_SENT_PER_WORKER * len(self._workers()) + limits.EXECUTOR_SENT_SPARE
        return min(wanted, limits.EXECUTOR_SENT_MAX)

    def _workers(self) -> dict[str, float]:
        """Those that have answered lately."""
        since = time.monotonic() - max(limits.EXECUTOR_PRESENT_S, self._settings.executor_timeout_s)
        self._present = {name: at for name, at in self._present.items() if at >= since}
        return self._present

    # --- receiving --------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        receiver: Receiver | None = None
        failures, opened = 0, False
        while not self._closed:
            try:
                if receiver is None:
                    receiver = self._open_receiver(self._settings.broker_url(), self._answers)
                    if opened or failures:
                        self._broker_back()
                    else:
                        self._ping()
                    opened, failures = True, 0
                for data in receiver.receive():
                    self._answered(data)
            except Exception as error:
                _close(receiver)
                receiver = None
                failures += 1
                self._broker_failed(error, failures)
                self._pause(failures)
        _close(receiver)

    def _answered(self, data: bytes) -> None:
        try:
            answer = messages.answer(data)
        except VecError as error:
            log.warning("an answer cannot be read", extra={"error": str(error)})
            return
        now = time.monotonic()
        with self._changed:
            if self._silent:
                log.info("workers answer again", extra={"worker": answer.worker})
            self._silent, self._heard_at = False, now
            self._present[answer.worker] = now
            message = self._sent.pop(answer.id, None)
            batch = self._given_up.pop(answer.id, None) if message is None else message.batch
            if message is not None:
                for later in self._sent.values():
                    if later.order > message.order:
                        later.clock = now
            self._changed.notify_all()
        if batch is None:
            return
        try:
            vectors = answer.matrix(len(batch.texts))
            declared = embedders.dimension_of(batch.embedder)
            if declared not in (None, vectors.shape[1]):
                raise VecError(
                    Code.EMBEDDER_FAILED,
                    f"worker {answer.worker} made {vectors.shape[1]}-dimension vectors of {batch.embedder!r}, which"
                    f" makes {declared}-dimension ones",
                    "run the same version of vecd on all machines",
                )
        except VecError as error:
            self._error = f"worker {answer.worker}: {error.message}"
            log.warning(
                "a worker failed, so the daemon embeds the batch itself",
                extra={"worker": answer.worker, "embedder": batch.embedder, "error": str(error)},
            )
            self._embed_here(batch)
        else:
            if not batch.future.done():
                self._texts += len(batch.texts)
            batch.resolve(Embedded(vectors, {}))

    # --- limits -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        timeout_s = self._settings.executor_timeout_s
        while True:
            here: list[Batch] = []
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                for message in [each for each in self._sent.values() if each.done]:
                    del self._sent[message.id]  # cancelled
                overdue = [each for each in self._sent.values() if now >= each.clock + timeout_s]
                if overdue and not self._silent and (self._heard_at is None or now - self._heard_at >= timeout_s):
                    self._silent = True
                    self._present.clear()
                    overdue = list(self._sent.values())
                    log.warning(
                        "no worker answers, so the daemon embeds itself, which is slower",
                        extra={"executor": self._settings.executor, "limit_s": timeout_s, "batches": len(overdue)},
                    )
                elif overdue:
                    log.warning(
                        "no answer within the limit, so the daemon embeds the batch itself",
                        extra={"executor": self._settings.executor, "limit_s": timeout_s, "batches": len(overdue)},
                    )
                for message in overdue:
                    del self._sent[message.id]
                    if message.batch is not None:
                        here.append(message.batch)
                        self._given_up[message.id] = message.batch
                self._given_up = {key: batch for key, batch in self._given_up.items() if not batch.future.done()}
                # One at a time, so that workers that come back find work.
                while self._silent and self._waiting and self._here < self._settings.executor_processes:
                    batch = self._waiting.get()[1]
                    if batch.future.done():
                        continue
                    self._here += 1
                    batch.future.add_done_callback(self._done_here)
                    here.append(batch)
                if self._silent and (here or self._waiting) and now >= self._ping_at:
                    self._queue_ping(now)
                if not here:
                    due = [each.clock + timeout_s for each in self._sent.values()]
                    if self._silent and (self._waiting or self._here):
                        due.append(self._ping_at)
                    self._changed.wait(max(0.0, min(due) - now) if due else None)
            for batch in here:
                self._embed_here(batch)

    def _done_here(self, _: Any) -> None:
        with self._changed:
            self._here -= 1
            self._changed.notify_all()

    def _embed_here(self, batch: Batch) -> None:
        try:
            self._pool.submit(batch)
        except VecError as error:
            batch.resolve(error)

    def _ping(self) -> None:
        with self._changed:
            self._queue_ping(time.monotonic())

    def _queue_ping(self, now: float) -> None:
        self._ping_at = now + limits.EXECUTOR_PING_S
        if not any(each.batch is None for each in self._to_send):
            self._to_send.append(self._message(None))
        self._changed.notify_all()

    # --- the broker -------------------------------------------------------------------------------------------------

    def _broker_failed(self, error: Exception, failures: int) -> None:
        try:
            text = without_secrets(f"{type(error).__name__}: {error}", self._settings.broker_url())
        except VecError as unreadable:
            text = str(unreadable)
        self._error = text[: limits.ERROR_CHARS_MAX]
        if failures == 1:
            about = {"executor": self._settings.executor, "broker": self._broker, "error": self._error}
            log.warning("the broker cannot be reached", extra=about)

    def _broker_back(self) -> None:
        """What was sent may be lost: sends it again."""
        with self._changed:
            again = [each for each in self._sent.values() if each.sends < limits.EXECUTOR_SENDS_MAX]
            waiting = {each.id for each in self._to_send}
            self._to_send.extend(each for each in again if each.id not in waiting)
            self._queue_ping(time.monotonic())
        log.info("the broker is reached again", extra={"executor": self._settings.executor, "sent_again": len(again)})

    def _pause(self, failures: int) -> None:
        """A pause before the next attempt, which the stop shortens."""
        until = time.monotonic() + pause_s(failures, _FIRST_PAUSE_S, limits.EXECUTOR_RECONNECT_S_MAX)
        with self._changed:
            self._changed.wait_for(lambda: self._closed, max(0.0, until - time.monotonic()))


def _close(connection: Sender | Receiver | None) -> None:
    """Closes what may be broken."""
    if connection is not None:
        try:
            connection.close()
        except Exception as error:
            log.debug("a broker's connection was not closed", extra={"error": repr(error)})
