"""The ingest pipeline: reads lines, sends batches of documents, and processes acknowledgements in order.

Several batches are in flight, so that reading, preparing and committing overlap; at most WINDOW of them, so that
memory is bounded on endless input. A batch is sent when it is full, or when the input pauses. If the connection is
lost, unacknowledged batches are sent again, which is safe because writing the same document twice changes nothing.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vecd import limits
from vecd.errors import Code, VecError
from vecd.json_values import id_text
from vecd.wire.ingest_batch import IDLE_S, STATUSES, WINDOW, IngestBatch, Outcome, Place

from . import input_lines
from .format_hints import format_hint
from .output import Output
from .progress import Progress
from .refused_lines import RefusedLines

if TYPE_CHECKING:
    from vecd.client import Client, Pending
    from vecd.files.options import FileOptions
    from vecd.wire.mapping import DocumentMapping
    from vecd.wire.ndjson import Line

    from .file_lines import FileLines

#: The time to wait for batches in flight after Ctrl-C. vec-ingest(1) says 5 seconds.
_GRACE_S = 4.5
_RECONNECTS_MAX = 6


class _GraceOverError(BaseException):
    """The time to wait after Ctrl-C has expired. A signal handler raises this, wherever the program is blocked: on an
    answer, on the daemon's input, or on the reader of the output."""


class _Interrupted(Exception):
    """Ctrl-C was pressed while input was read."""


class Pipeline:
    """One run of an ingest: reads lines, keeps batches in flight, and processes acknowledgements in order."""

    def __init__(
        self,
        connect: Callable[[], Client],
        library: str,
        output: Output,
        progress: Progress,
        *,
        strict: bool,
        ack: bool,
        batch: int,
        name_files: bool,
        form: str | None = None,
        rules: Mapping[str, str] | None = None,
        file_options: FileOptions | None = None,
    ) -> None:
        """`form` is the format of the input; None: what the names of the files say. `rules` are those of a mapping;
        None: the library's."""
        self._connect = connect
        self._library = library
        self._output = output
        self._progress = progress
        self._refused = RefusedLines(progress.say)
        self._settings: dict[str, Any] = {}  # of the library; empty if it does not exist
        self._saved_mapping = False  # the mapping is the library's
        self._strict = strict
        self._ack = ack
        self._batch_documents = batch
        self._name_files = name_files
        self._form = form
        self._rules = rules
        self._mapping: DocumentMapping | None = None
        self._file_options = file_options
        self.files: FileLines | None = None  # with `file_options`: what reads files and folders
        self._client: Client
        self._lines = 0  # read so far
        self._first = b""  # the beginning of the last file's first line
        self._batch = IngestBatch()
        self._flying: deque[IngestBatch] = deque()
        self._wake_read, self._wake_write = os.pipe()
        self.counts: Counter[str] = Counter()
        self.seq: int | None = None  # the log's head at the last acknowledgement
        self.interrupted = False
        self._stopped = False  # --strict: a line was rejected
        self._unreadable: VecError | None = None  # the error that ended the input early

    def run(self, paths: list[str]) -> None:
        """Ingests all files. Raises VecError if it cannot continue; acknowledged documents are counted by then."""
        self._client = self._connect()
        self._mapping = self._mapping_of_run()
        before = signal.signal(signal.SIGINT, self._interrupt)
        alarm_before = signal.signal(signal.SIGALRM, _end_grace)
        try:
            self._run(paths)
        except _GraceOverError:
            documents = sum(len(batch.documents) for batch in self._flying)
            self._progress.say(
                f"vec: {documents:,} documents were sent and not acknowledged; sending them again is safe"
            )
        finally:
            self._refused.sum_up(end=True)
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm_before)
            signal.signal(signal.SIGINT, before)
            self._client.close()

    def _mapping_of_run(self) -> DocumentMapping | None:
        """Raises VecError, also for a library that is missing and may not be created: before any input is read."""
        try:
            self._settings = self._client.library_settings(self._library)
        except VecError as error:
            if error.code != Code.NOT_FOUND or not self._client.limits.get("create"):
                raise
        rules = self._rules
        if rules is None:
            rules = self._settings.get("mapping")
            self._saved_mapping = bool(rules)
        if not rules:
            return None
        from vecd.wire.mapping import DocumentMapping

        return DocumentMapping.parse(rules)

    def _run(self, paths: list[str]) -> None:
        try:
            for line in self._readable(paths):
                if line is None:
                    self._send()
                else:
                    self._add(line)
                if self.interrupted or self._stopped:
                    break
            if not self._stopped and not self.interrupted:
                self._send()
            while self._flying:
                self._take()
            if self._unreadable is not None:
                raise self._unreadable
        except VecError:
            self._salvage()
            raise

    def _readable(self, paths: list[str]) -> Iterator[Line | None]:
        """Yields the lines up to an error of the input; these lines are valid and are written."""
        try:
            if self._file_options is not None:
                from .file_lines import FileLines

                self.files = FileLines(self._options_of_library, self._progress.say)
            yield from input_lines.records(
                paths, self._form, self._mapping, self._wait, self._check, self.files,
                say=lambda text: self._progress.say(f"vec: {text}"),
            )  # fmt: skip
        except _Interrupted:
            return
        except VecError as error:
            if "file" not in error.details:
                raise
            self._unreadable = error

    def _options_of_library(self) -> FileOptions:
        """How files are read: their chunks are those of the library."""
        assert self._file_options is not None
        chunk_chars = self._settings.get("chunk_chars") or self._client.limits.get("chunk_chars")
        return replace(
            self._file_options,
            chunk_chars=chunk_chars or self._file_options.chunk_chars,
            chunk_overlap=self._settings.get("chunk_overlap", 0),
        )

    def _check(self) -> None:
        """Ends the reading after Ctrl-C, even within a line of gigabytes."""
        if self.interrupted:
            raise _Interrupted

    def _interrupt(self, number: int, frame: object) -> None:
        """Handles SIGINT: stops reading, and limits the wait for batches in flight. A second one ends the run."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        signal.setitimer(signal.ITIMER_REAL, _GRACE_S)
        os.write(self._wake_write, b"!")

    def _wait(self, fd: int) -> bool:
        """Waits until `fd` is readable, processing acknowledgements; false if the current batch should be sent."""
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLHUP)
        poll.register(self._wake_read, select.POLLIN)
        if self._flying:
            poll.register(self._client, select.POLLIN)
        idle = not self._batch.empty
        silence_s = limits.SILENCE_S if self._flying else None
        wait_s = IDLE_S if idle else silence_s
        ready = {each for each, _ in poll.poll(None if wait_s is None else wait_s * 1000)}
        if not ready and not idle:
            self._client.check_daemon()
        if self._wake_read in ready:
            return False
        if self._flying and self._client.fileno() in ready:
            self._take_ready()
        return fd in ready

    # --- a line -----------------------------------------------------------------------------------------------------

    def _add(self, line: Line) -> None:
        if not self._batch.has_room(line):
            self._send()
        order, self._lines = self._lines, self._lines + 1
        if line.number == 1:
            self._first = (line.data or b"")[:200]
        if not self._batch.add(line, order, self._mapping):
            return
        if self._batch.is_full(self._batch_documents) or (self._strict and self._batch.refused):
            self._send()

    # --- a batch ----------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Sends the current batch, after waiting for the oldest acknowledgement if the window is full."""
        batch, self._batch = self._batch, IngestBatch()
        if batch.empty:
            return
        while len(self._flying) >= (1 if self._strict else WINDOW):
            self._take()
        if self._stopped:
            return
        self._flying.append(batch)
        self._submit(batch)
        if self._strict:
            self._take()
        while self._flying and self._flying[0].pending is None:
            self._take()  # rejected lines only: there is no answer to wait for

    def _request(self, batch: IngestBatch) -> Pending:
        return self._client.submit(
            "ingest",
            library=self._library,
            documents=batch.documents,
            strict=self._strict or None,
            detail=self._ack or None,
            create=True,
        )

    def _submit(self, batch: IngestBatch) -> None:
        if not batch.documents:
            return
        try:
            batch.pending = self._request(batch)
        except VecError as error:
            if error.code == Code.CONNECTION_LOST:
                self._reconnect(error)
            elif error.code in (Code.FRAME_TOO_LARGE, Code.INVALID_REQUEST):
                self._split(batch, error)
            else:
                raise

    def _split(self, batch: IngestBatch, error: VecError) -> None:
        """Sends a batch that does not fit in one frame as two halves; rejects a single document."""
        assert self._flying[-1] is batch
        if len(batch.documents) == 1:
            batch.refuse(error)
            return
        self._flying.pop()
        for half in batch.halves():
            self._flying.append(half)
            self._submit(half)

    def _take_ready(self) -> None:
        """Processes the acknowledgements that have arrived, without waiting."""
        try:
            self._client.pump()
        except VecError as error:
            self._reconnect(error)
        while self._flying and (self._flying[0].pending is None or self._flying[0].pending.done):
            self._take()

    def _take(self) -> None:
        """Waits for the acknowledgement of the oldest batch, and reports it."""
        while True:
            batch = self._flying[0]
            try:
                answer = batch.pending.result() if batch.pending is not None else {}
                break
            except VecError as error:
                if error.code not in (Code.CONNECTION_LOST, Code.SHUTTING_DOWN):
                    self._flying.popleft()
                    raise
                self._reconnect(error)
        self._flying.popleft()
        self._tell(batch, answer)

    def _reconnect(self, cause: VecError) -> None:
        """Connects again and sends the unacknowledged batches again. Raises `cause` if that fails."""
        self._client.close()
        if self.interrupted:
            raise cause
        self._progress.say(f"vec: {cause.message}; reconnecting to send unacknowledged documents again")
        for attempt in range(_RECONNECTS_MAX):
            time.sleep(0.05 * 2**attempt)
            try:
                self._client = self._connect()
                for batch in self._flying:
                    if batch.documents:
                        batch.pending = self._request(batch)
                return
            except VecError as error:
                if error.code not in (Code.CONNECTION_LOST, Code.NO_DAEMON, Code.SHUTTING_DOWN):
                    raise
        raise cause

    def _salvage(self) -> None:
        """After an error: counts the acknowledgements that still arrive."""
        self._client.set_timeout(_GRACE_S)
        while self._flying:
            batch = self._flying.popleft()
            try:
                self._tell(batch, batch.pending.result() if batch.pending is not None else {})
            except VecError as error:
                if error.code in (Code.CONNECTION_LOST, Code.TIMEOUT):
                    return

    # --- an answer --------------------------------------------------------------------------------------------------

    def _tell(self, batch: IngestBatch, answer: dict[str, Any]) -> None:
        refused = batch.errors(answer)
        if self._strict:
            del refused[1:]
        for status in STATUSES[:-1]:
            self.counts[status] += answer.get(status, 0)
        self.counts["failed"] += len(refused)
        self.seq = answer.get("seq", self.seq)
        if (made := answer.get("created")) is not None and made["name"] != "default":
            self._progress.say(f"vec: created {_described(made)}")
        for place, error in refused:
            self._refused.add(place, error, self._hint(place, error))
        self._refused.sum_up()
        if self._ack:
            self._tell_each(batch, answer, refused)
        self._stopped = self._strict and bool(refused)
        self._progress.advance(self.counts, batch.size)

    def _hint(self, place: Place, error: VecError) -> str | None:
        """What to do about a rejected line."""
        if self._saved_mapping and "field" in error.details and not error.hint:
            self._saved_mapping = False  # said once
            return (
                f"the mapping of library {self._library!r} was applied; --no-map takes documents as they are, and"
                f" `vec library show {self._library}` prints it"
            )
        if error.hint is None and place.number == 1 and self._form is None:
            return format_hint(self._first)
        return error.hint

    def _tell_each(self, batch: IngestBatch, answer: dict[str, Any], refused: list[tuple[Place, VecError]]) -> None:
        self._output.objects(
            (
                {
                    **({"file": each.place.file} if self._name_files else {}),
                    "line": each.place.number,
                    **_acknowledged(each),
                }
                for each in batch.outcomes(answer, refused)
            ),
            flush=True,
        )


def _described(library: dict[str, Any]) -> str:
    dimension = library["dimension"]
    vectors = "vectors of any one dimension" if dimension is None else f"{dimension}-dimension vectors"
    undo = f"; there is also {library['similar']!r}: `vec library delete {library['name']}` removes the new one"
    similar = undo if library["similar"] else ""
    about = f"embedder {library['embedder']}, {vectors}, metric {library['metric']}"
    return f"library {library['name']!r} ({about}){similar}"


def _acknowledged(found: Outcome) -> dict[str, Any]:
    if found.error is not None:
        given = id_text(found.document.get("id")) if found.document is not None else None
        return {
            "id": given if isinstance(given, str) else None, "status": "failed", "error": found.error.to_wire()
        }  # fmt: skip
    assert found.outcome is not None
    return {key: found.outcome[key] for key in ("id", "status", "seq") if found.outcome[key] is not None}


def _end_grace(number: int, frame: object) -> None:
    raise _GraceOverError
