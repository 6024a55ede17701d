"""A source: applies a broker's messages to a library, each exactly once.

    the transport's reader -> batches (source_batches.py) -> source.commit: documents, offsets and dead letters

One thread, with a connection to the daemon of its own. The offsets are stored in the transaction of the documents, and
the reader is opened behind them. A commit says which offsets it follows, and is refused if others are stored: so a
second runner, or a commit whose answer was lost, doubles nothing.

Two commits are in flight at most. While the daemon cannot take any (its disk is full, there are too many dead letters),
the reader is paused and the messages stay with the broker.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .. import backoff, limits
from ..client import Client, Pending
from ..errors import Code, VecError
from . import table
from .decoding import Decoder
from .definition import SourceDefinition
from .messages import InMessage
from .runner import Connect, Runner
from .source_batches import SourceBatch, batches, letter_of, message_of
from .status import Status
from .stopping import Stopping
from .transport import Opening, SourceReader
from .url import parse

_IN_FLIGHT: Final = 2
#: How long a read waits for messages: when nothing is in flight, and when something is.
_WAIT_S, _NO_WAIT_S = 0.5, 0.005
#: Messages of the first read; each further one takes up to twice as many.
_COUNT_FIRST: Final = 64
#: How often the broker is asked for the lag.
_LAG_S: Final = 1.0
#: Pauses while the daemon does not take a batch.
_REFUSED_S, _REFUSED_S_MAX = 0.1, 5.0
#: How often a reader is told that it is still paused.
_PAUSED_S: Final = 1.0
#: The daemon refuses the batch now, and may take the same one later.
_LATER: Final = frozenset((Code.BUSY, Code.DISK_FULL, Code.EMBEDDER_FAILED, Code.INDEX_FAILED, Code.NOT_FOUND))


class _Stopped(Exception):
    """The source is to stop."""


@dataclass(slots=True)
class _Sent:
    """A commit in flight. It is done when its answer is there and refuses nothing."""

    batch: SourceBatch
    expected: dict[str, str | None]
    pending: Pending
    done: bool = False


class Source(Runner):
    """Runs one generation of a source. Use once, on one thread."""

    def __init__(self, definition: SourceDefinition, connect: Connect, status: Status, stop: Stopping) -> None:
        super().__init__(definition, connect, status, stop)
        self._source = definition
        self._retry = threading.Event()
        self._retry.set()  # somebody may have asked before

    def retry(self) -> None:
        self._retry.set()

    def _run(self) -> None:
        definition = self._source
        transport = table.transport_of(definition)
        with self._connect() as client:
            client.set_timeout(limits.STALL_S)
            stored = client.source_offsets(definition.name, definition.generation)
            decoder = Decoder(definition.mapping or _library_mapping(client, definition), definition.libraries)
            client.set_timeout(None)  # a slow embedder may take minutes for a batch
            parameters = {**table.defaults(transport), **definition.parameters}
            opening = Opening(definition, parse(definition.url), parameters, client.log, self._stop)
            reader = table.load_source(transport)(opening, stored)
            try:
                self._status.connected()
                _Session(self, definition, client, reader, decoder, stored, self._status, self._stop).run()
            finally:
                reader.close()

    def take_retry(self) -> bool:
        """Whether dead letters are to be tried again, since the last time."""
        if not self._retry.is_set():
            return False
        self._retry.clear()
        return True


def _library_mapping(client: Client, definition: SourceDefinition) -> Mapping[str, str]:
    """The mapping of the library, if it has one and the messages are no events. A change of it begins the next
    generation of the source."""
    if definition.libraries:
        return {}
    try:
        mapping: Mapping[str, str] = client.library_settings(definition.library)["mapping"]
    except VecError as error:
        if error.code != Code.NOT_FOUND:
            raise
        return {}  # the first document creates it
    return mapping


class _Session:
    """A source at work, with one reader and one connection to the daemon."""

    def __init__(
        self,
        source: Source,
        definition: SourceDefinition,
        client: Client,
        reader: SourceReader,
        decoder: Decoder,
        stored: Mapping[str, str],
        status: Status,
        stop: Stopping,
    ) -> None:
        self._source = source
        self._who = definition.name, definition.generation
        self._client = client
        self._reader = reader
        self._decoder = decoder
        self._offsets: dict[str, str] = dict(stored)  # behind all that was sent
        self._status = status
        self._stop = stop
        self._sent: deque[_Sent] = deque()
        self._count = _COUNT_FIRST  # messages of the next read
        self._lag_at = 0.0

    def run(self) -> None:
        """Returns when it is to stop; raises what ends the session."""
        with contextlib.suppress(_Stopped):
            self._run()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._source.take_retry():
                self._settle()
                try:
                    self._retry_letters()
                except VecError:
                    self._source.retry()  # those that are left, in the next session
                    raise
            messages = self._reader.read(self._count, _NO_WAIT_S if self._sent else _WAIT_S)
            self._adapt(messages)
            for batch in batches(messages, self._decoder):
                if self._stop.is_set():
                    break
                self._send(batch)
                while len(self._sent) > _IN_FLIGHT - 1:
                    self._finish_first()
            if not messages:
                self._settle()
            self._ask_lag()
        self._take_answers()

    def _adapt(self, messages: Sequence[InMessage]) -> None:
        """Bounds the memory of a read: after messages of a megabyte, the next read takes few."""
        if messages:
            mean = sum(len(each.body) for each in messages) // len(messages) + 1
            self._count = max(1, min(limits.SOURCE_BATCH_MESSAGES, 2 * self._count, limits.SOURCE_READ_BYTES // mean))

    # --- commits ----------------------------------------------------------------------------------------------------

    def _send(self, batch: SourceBatch) -> None:
        expected = {partition: self._offsets.get(partition) for partition in batch.offsets}
        self._sent.append(_Sent(batch, expected, self._submit(batch, expected)))
        self._offsets |= batch.offsets

    def _submit(self, batch: SourceBatch, expected: Mapping[str, str | None]) -> Pending:
        while True:
            try:
                return self._client.commit_source(
                    *self._who,
                    offsets=batch.offsets,
                    expected=expected,
                    documents=batch.documents,
                    dead_letters=batch.letters,
                    letter_ids=batch.resolved,
                )
            except VecError as error:
                if error.code != Code.FRAME_TOO_LARGE or not batch.documents:
                    raise
                largest = max(range(len(batch.documents)), key=lambda index: len(batch.sources[index].body))
                batch.refuse([(largest, VecError(Code.TOO_LARGE, error.message, error.hint))])

    def _settle(self) -> None:
        while self._sent:
            self._finish_first()

    def _take_answers(self) -> None:
        """Takes the answers that are there. A commit without one may become durable later: its offsets tell."""
        while self._sent and self._sent[0].pending.ready:
            self._finish_first()

    def _finish_first(self) -> None:
        """Waits until the oldest commit is durable; tries again what the daemon does not take now."""
        failures = 0
        while (error := self._result(self._sent[0])) is not None or not self._sent[0].done:
            if error is not None:
                if error.code not in _LATER:
                    raise error
                failures += 1
                self._rest(error, failures)
            self._send_again()
        sent = self._sent.popleft()
        self._reader.committed(sent.batch.offsets)
        self._status.moved(sent.batch.messages)
        self._source.progressed()

    def _result(self, sent: _Sent) -> VecError | None:
        """Waits for the answer; returns the error. Documents that the daemon refuses become dead letters: then nothing
        is committed, and the batch is to be sent again. Raises VecError if the connection is lost."""
        if sent.done:
            return None
        try:
            answer = self._answer(sent.pending)
        except VecError as error:
            if error.disconnected:
                raise
            return error
        sent.done = not answer["refused"]
        sent.batch.refuse([(each.pop("index"), VecError.from_wire(each)) for each in map(dict, answer["refused"])])
        return None

    def _answer(self, pending: Pending) -> dict[str, Any]:
        """Waits for an answer, as long as the daemon is at work. Raises VecError, and _Stopped if it is to stop."""
        silent_since = time.monotonic()
        while not pending.ready:
            if self._stop.is_set():
                raise _Stopped
            if self._stop.wait_with(self._client, _LAG_S):
                silent_since = time.monotonic()
            elif time.monotonic() - silent_since > limits.SILENCE_S:
                self._client.check_daemon()
        return pending.result()

    def _send_again(self) -> None:
        """Sends the commits in flight that are not done once more, in their order: those of the same partitions behind
        one that was not committed were refused."""
        for sent in list(self._sent)[1:]:
            self._result(sent)
        for sent in self._sent:
            if not sent.done:
                sent.pending = self._submit(sent.batch, sent.expected)

    def _rest(self, error: VecError, failures: int) -> None:
        """Waits while the daemon takes nothing. Raises _Stopped."""
        pause_s = _REFUSED_S + backoff.pause_s(failures, _REFUSED_S, _REFUSED_S_MAX - _REFUSED_S)
        self._status.failed("failing", error, pause_s)
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0:
            self._reader.pause()
            if self._stop.wait(min(left_s, _PAUSED_S)):
                raise _Stopped

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _ask_lag(self) -> None:
        now = time.monotonic()
        if now - self._lag_at >= _LAG_S:
            self._lag_at = now
            self._status.lag = self._reader.lag()

    def _retry_letters(self) -> None:
        """Tries again the dead letters that somebody has asked for: each is applied and deleted in one transaction, or
        stays with what is wrong with it now."""
        for letter in self._client.source_dead_letters(self._who[0], bodies=True, retrying=True):
            if self._stop.is_set():
                return
            self._retry_letter(letter)

    def _retry_letter(self, letter: Mapping[str, Any]) -> None:
        message = message_of(letter)
        batch = SourceBatch(messages=1)
        try:
            if "omitted" in letter["about"]:
                raise VecError(Code.TOO_LARGE, "the message was too large to be kept", "drop it")
            document = self._decoder.decode(message.body, message.key, message.headers)
        except VecError as error:
            batch.letters.append(letter_of(message, error))
        else:
            batch.resolved.append(letter["letter_id"])
            if document is not None:
                batch.documents.append(document)
                batch.sources.append(message)
        answer = self._answer(self._submit(batch, {}))
        if answer["refused"]:
            refused = dict(answer["refused"][0])
            refused.pop("index")
            buried = SourceBatch(messages=1, letters=[letter_of(message, VecError.from_wire(refused))])
            self._answer(self._submit(buried, {}))
