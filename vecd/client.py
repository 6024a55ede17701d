"""The blocking client: `from vecd.client import connect`. Imports the standard library and msgpack only.

    with connect() as vec:
        vec.ingest([{"id": "a", "text": "rotate the logs every night"}])
        for hit in vec.search("log rotation", k=3):
            print(hit["score"], hit["document_id"])

One connection carries many requests at once: `submit` sends and returns a Pending at once, `Pending.result` waits.
While it sends it also reads, because the daemon may have answers for us that must be taken before it reads on. A
`watch` (subscription.py) is read only when it is asked for events; what arrives for it while another request is waited
for is kept, so one that is left unread for long belongs on a connection of its own.
Not thread-safe: one thread, one Client.

An answer may take long, and silence is no failure. But after SILENCE_S without a byte the client checks whether the
daemon is still at work, and gives the connection up (`stalled`) if it is not; so no wait for a daemon that is stopped
or stuck lasts for longer than that check.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import __version__, limits
from .dial import bound_reads, find, is_serving, peer_pid, silent
from .errors import Code, VecError
from .holder import folder_id, shown
from .launch import Notice, launch
from .settings import load, locate
from .subscription import Watch
from .wire.documents import pack_all
from .wire.frames import FrameDecoder
from .wire.messages import Reply, check_protocol, decode, encode, hello, parse_reply
from .wire.vectors import pack_vector

_RECEIVE_BYTES = 256 * limits.KIB
_HELLO = encode(hello(f"vec {__version__}"))


def connect(
    socket_path: str | os.PathLike[str] | None = None,
    *,
    spawn: bool = True,
    timeout_s: float | None = None,
    notice: Notice = lambda text: None,
) -> Client:
    """A connection to the daemon, which is started if none answers and `spawn` is true.

    `timeout_s` bounds the wait for each answer (None: as long as the daemon is at work). VEC_NO_SPAWN=1 in the
    environment forbids starting. `notice` is given a sentence about a start that takes long.
    Raises VecError `no_daemon`, `daemon_failed`, `version_mismatch`, `forbidden`, `invalid_settings`, `stalled` or
    `busy`.
    """
    named = os.fspath(socket_path) if socket_path is not None else None
    settings = locate(socket=named)
    sock = find(settings)
    if sock is None:
        load(socket=named)  # what a daemon would refuse is said here, and not in its log
        if not spawn or os.environ.get("VEC_NO_SPAWN", "") not in ("", "0"):
            raise VecError(
                Code.NO_DAEMON,
                f"no daemon listens on {settings.socket}",
                "start one with `vec daemon start`, or leave out --no-spawn and VEC_NO_SPAWN",
            )
        sock = launch(settings, notice)
    return Client(sock, timeout_s=timeout_s, data=None if settings.named else settings.data)


class Pending:
    """A request that has been sent. Its replies wait here until they are asked for."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self.number = number
        self.done = False  # the last reply is here
        self._replies: deque[Reply] = deque()
        self.warnings: list[str] = []  # of the answer, once it has been taken

    def result(self) -> dict[str, Any]:
        """Waits for the one answer. Raises the VecError that the daemon answered with."""
        reply = self.next()
        if reply is None or reply.kind not in ("result", "end"):
            raise VecError(Code.PROTOCOL_ERROR, "the daemon answered with a stream where one result was expected")
        return dict(reply.body)

    def parts(self) -> Iterator[Reply]:
        """The replies as they come: any number of `items`, then one `end` (or a single `result`)."""
        while (reply := self.next()) is not None:
            yield reply
            if reply.kind != "items":
                return

    @property
    def ready(self) -> bool:
        """Whether `next` has something to return without waiting."""
        return bool(self._replies) or self.done

    def next(self) -> Reply | None:
        """Waits for the next reply; None behind the last. Raises VecError."""
        self._client.wait_for(lambda: self.ready)
        if not self._replies:
            return None
        reply = self._replies.popleft()
        if reply.kind == "error":
            raise VecError.from_wire(reply.body)
        if reply.kind != "items" and reply.body.get("warnings"):
            self.warnings = list(reply.body["warnings"])
            self._client.on_warnings(self.warnings)
        return reply

    def _take(self, reply: Reply) -> None:
        self._replies.append(reply)
        self.done = reply.kind != "items"


class Client:
    """A connection that has said hello. Use `connect`."""

    def __init__(self, sock: socket.socket, *, timeout_s: float | None = None, data: Path | None = None) -> None:
        """Says hello. With `data`, refuses a daemon that serves another data folder. Raises VecError."""
        self._socket = sock
        self._socket.setblocking(True)
        bound_reads(sock, limits.SILENCE_S)
        self._timeout_s = timeout_s
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._arriving = memoryview(bytearray(_RECEIVE_BYTES))  # one for all: a fresh one a message costs page faults
        self._decoder = FrameDecoder()
        self._unsent: deque[memoryview] = deque()
        self._pending: dict[int, Pending] = {}
        self._number = 0
        self._lost: VecError | None = None
        #: Called with an answer's warnings, each a sentence: a filter names a field that no document has, for example.
        self.on_warnings: Callable[[list[str]], None] = lambda warnings: None
        try:
            answer = self._hello()
            if data is not None:
                _check_data(answer, data)
        except BaseException:
            self.close()
            raise
        self.log: str = str(answer.get("log", ""))  # the log id, the first half of every cursor
        self.server: str = str(answer.get("server", ""))
        self.limits: dict[str, Any] = dict(answer.get("limits") or {})

    def _hello(self) -> dict[str, Any]:
        patience, self._timeout_s = self._timeout_s, min(self._timeout_s or limits.HELLO_S, limits.HELLO_S)
        pending = self._pending[0] = Pending(self, 0)
        self._send(_HELLO)
        answer = pending.result()
        self._timeout_s = patience
        check_protocol(answer.get("protocol"), who="daemon")
        return answer

    # --- any op -----------------------------------------------------------------------------------------------------

    def submit(self, op: str, **fields: Any) -> Pending:
        """Sends a request and returns without waiting for its answer. Fields that are None are left out."""
        return self._submit(self._frame(op, **fields))

    def _frame(self, op: str, **fields: Any) -> bytes:
        """The next request, encoded."""
        message = {"op": op, "id": self._number + 1}
        message.update((key, value) for key, value in fields.items() if value is not None)
        return encode(message)

    def _submit(self, frame: bytes) -> Pending:
        """Sends what `_frame` made last."""
        self._number += 1
        pending = self._pending[self._number] = Pending(self, self._number)
        self._send(frame)
        return pending

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer. Raises VecError."""
        return self.submit(op, **fields).result()

    def pages(self, op: str, **fields: Any) -> Generator[Reply, None, None]:
        """The replies of a stream as they come: any number of `items`, then one `end`; or a single `result`.

        Leaving the iterator early cancels the stream.
        """
        pending = self.submit(op, **fields)
        try:
            yield from pending.parts()
        finally:
            self.abandon(pending)

    def items(self, op: str, key: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """The items of an answer, whether it came as one result (its list `key`) or as a stream."""
        with contextlib.closing(self.pages(op, **fields)) as pages:
            for reply in pages:
                yield from reply.body if reply.kind == "items" else reply.body.get(key, ())

    # --- the nouns --------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self.request("ping")

    def status(self) -> dict[str, Any]:
        return self.request("status")

    def ingest(self, documents: Iterable[dict[str, Any]], library: str = "default") -> dict[str, Any]:
        """Writes one batch; returns `{"added","updated","unchanged","deleted","failed","seq","errors"}` once it is
        durable and searchable. Documents are as on the command line; a vector may be a list or a numpy array.

        `errors` are the documents that were refused, here or by the daemon, in their order:
        `{"index","code","message",…}`. They cost no other.
        """
        given = list(documents)
        batch = pack_all(given)
        try:
            frame = self._frame("ingest", library=library, documents=batch.documents)
        except VecError as error:
            if error.code != Code.INVALID_REQUEST:
                raise
            batch = pack_all(given, texts=True)  # half a surrogate pair somewhere: looked for only if there is one
            frame = self._frame("ingest", library=library, documents=batch.documents)
        answer = self._submit(frame).result()
        if batch.refused:
            told = [{**error, "index": batch.places[error["index"]]} for error in answer["errors"]]
            told += [{"index": place, **error.to_wire()} for place, error in batch.refused]
            answer["errors"] = sorted(told, key=lambda error: error["index"])
            answer["failed"] += len(batch.refused)
        return answer

    def search(
        self,
        query: str | None = None,
        *,
        vector: Any = None,
        k: int = 10,
        library: str = "default",
        mode: str = "auto",
        where: str | Sequence[str] = (),
        ef: int | None = None,
        exact: bool = False,
        recall: float | None = None,
        group_by: str | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The k best, best first: `{"rank","score","document_id","chunk_id","title","text","metadata"}`.

        `where` are filters, all of which must hold; their language is in vec-search(1). `recall` is the share of the
        nearest that an approximate search is to find, instead of what the library promises; `ef` is its effort, set by
        hand; `exact` makes it none. `group_by` is "document" or "chunk": what a hit is. With `explain` each hit has an
        `explain` as well: where it comes from, and how sure the answer is.
        """
        packed = None if vector is None else pack_vector(vector)
        fields: dict[str, Any] = {
            "library": library, "query": query, "vector": packed, "k": k, "mode": mode, "where": _filters(where),
            "ef": ef, "exact": exact or None, "recall": recall, "group_by": group_by, "min_score": min_score,
            "explain": explain or None,
        }  # fmt: skip
        return iter(explained(self.request("search", **fields))) if explain else self.items("search", "hits", **fields)

    def get(self, ids: list[str], library: str = "default", *, vectors: bool = False) -> list[dict[str, Any] | None]:
        """The documents with these ids, in their order; None for one that is not there."""
        return list(self.items("get", "documents", library=library, ids=ids, vectors=vectors or None))

    def delete(
        self, ids: list[str] | None = None, library: str = "default", *, where: str | Sequence[str] = ()
    ) -> dict[str, Any]:
        """Deletes documents by id or by filters; returns `{"deleted","missing","missing_ids","seq"}`."""
        return self.request("delete", library=library, ids=ids, where=_filters(where))

    def count(self, library: str = "default", *, where: str | Sequence[str] = ()) -> dict[str, Any]:
        """`{"library","documents","chunks","seq"}`: all, or those that match the filters; `seq` is the state's."""
        return self.request("count", library=library, where=_filters(where))

    # --- the log ----------------------------------------------------------------------------------------------------

    def watch(
        self,
        start: str = "now",
        *,
        libraries: Sequence[str] = (),
        types: Sequence[str] = (),
        where: str | Sequence[str] = (),
        follow: bool = True,
        until: str | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
        payload: bool = False,
        replaced: bool = True,
        vectors: bool = False,
        snapshot: bool = False,
        consumer: str | None = None,
        on_gap: str = "fail",
    ) -> Watch:
        """The events behind `start` (exclusive): `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago: `-15m`.

        When it returns, the subscription stands: what is written from then on is in it. Names and meanings are those
        of the op `watch` in vec-protocol(7); `until` is inclusive, vectors are packed (wire/vectors.py). Raises
        VecError `not_found`, `invalid_cursor`, `foreign_cursor`, `consumer_held` or `invalid_filter`; that a position
        was trimmed away (`compacted`) is mostly found, and raised, with the first events.
        """
        pending = self.submit(
            "watch", **{"from": start}, libraries=list(libraries) or None, types=list(types) or None,
            where=_filters(where), follow=follow, until=until, limit=limit, timeout_s=timeout_s,
            payload=payload or None, replaced=replaced, vectors=vectors or None, snapshot=snapshot or None,
            consumer=consumer, on_gap=on_gap,
        )  # fmt: skip
        return Watch(self, pending, consumer)

    def flush(self, consumer: str | None = None, *, timeout_s: float | None = None) -> str:
        """Waits until all that is committed now has been handed to all who watch now, or acknowledged by a consumer.
        Returns the cursor of that. Raises VecError `timeout`, or `not_found` for a consumer that is not there."""
        return str(self.request("flush", consumer=consumer, timeout_s=timeout_s)["cursor"])

    def trim(
        self,
        *,
        keep_age_s: float | None = None,
        keep_count: int | None = None,
        keep_bytes: int | None = None,
        past_consumers: bool = False,
        wait: bool = False,
    ) -> dict[str, Any]:
        """Lets go of the log's oldest events, as far as any of the limits says and no consumer holds them:
        `{"trimmed","oldest","held_by","bytes","free_bytes"}`. With `wait` it returns when their space is free."""
        return self.request(
            "trim", keep_age_s=keep_age_s, keep_count=keep_count, keep_bytes=keep_bytes,
            past_consumers=past_consumers or None, wait=wait or None,
        )  # fmt: skip

    def consumers(self) -> list[dict[str, Any]]:
        """All, by name: `{"name","cursor","seq","lag","holder","created_at","acked_at"}`; `lag` is in events."""
        return list(self.request("consumers.list")["consumers"])

    def reset_consumer(self, name: str, to: str) -> dict[str, Any]:
        """Moves a consumer to a position as `watch` has it in `start`; returns it. Raises VecError `consumer_held`."""
        return self.request("consumers.reset", consumer=name, to=to)

    def delete_consumer(self, name: str) -> dict[str, Any]:
        """Forgets a consumer; returns what it was. Raises VecError `not_found` or `consumer_held`."""
        return self.request("consumers.delete", consumer=name)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def submit_job(self, kind: str, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Submits a background job and returns it, with `job_id` and `existing`; `fields` are those of the op
        `jobs.submit`: library, priority, delay_s, after, unique, lock, timeout_s."""
        return self.request("jobs.submit", kind=kind, params=params, **fields)

    def job(self, job_id: int) -> dict[str, Any]:
        """All that is known of a job, with its attempts."""
        return self.request("jobs.show", job_id=job_id)

    def jobs(self, **fields: Any) -> Iterator[dict[str, Any]]:
        """Jobs, the newest first; `fields` are those of the op `jobs.list`: states, kinds, library, since_s, limit."""
        return self.items("jobs.list", "jobs", **fields)

    def wait_for_jobs(
        self, job_ids: Sequence[int], *, any: bool = False, timeout_s: float | None = None
    ) -> list[dict[str, Any]]:
        """Waits until all of these jobs (or `any` of them) have ended; returns them as they are then.

        Raises VecError `timeout`, `not_found`, `shutting_down` or `connection_lost`.
        """
        last: list[dict[str, Any]] = []
        wanted = {"job_ids": list(job_ids), "any": any or None, "timeout_s": timeout_s}
        with contextlib.closing(self.pages("jobs.wait", **wanted)) as pages:
            for reply in pages:
                if reply.kind == "items":
                    last = reply.body
                elif reply.body.get("reason") == "timeout":
                    raise VecError(Code.TIMEOUT, f"the jobs have not ended within {timeout_s:g} s", jobs=last)
                elif reply.body.get("reason") != "done":
                    raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "the jobs go on when it is back")
        return last

    def cancel_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Cancels jobs that have not ended; returns them as they are then."""
        return list(self.request("jobs.cancel", job_ids=list(job_ids))["jobs"])

    def retry_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Lets jobs that failed, died or were cancelled go on from where they were."""
        return list(self.request("jobs.retry", job_ids=list(job_ids))["jobs"])

    def drop_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Forgets jobs that have ended."""
        return list(self.request("jobs.drop", job_ids=list(job_ids))["jobs"])

    # --- the socket -------------------------------------------------------------------------------------------------

    def fileno(self) -> int:
        """For select and poll: readable when `pump` has something to take."""
        return self._socket.fileno()

    def pump(self) -> None:
        """Takes what has arrived, without waiting. Raises VecError `connection_lost`."""
        self._step(0.0)

    def wait(self) -> None:
        """Waits until something arrives, and takes it. Raises VecError `connection_lost`."""
        self._step(self._timeout_s)

    def wait_for(self, reached: Callable[[], bool]) -> None:
        """Sends and receives until `reached()`. Raises VecError `timeout` or `connection_lost`."""
        if not self.wait_until(reached, self._timeout_s):
            raise VecError(Code.TIMEOUT, f"no answer within {self._timeout_s:g} s", "its outcome is unknown; try again")

    def wait_until(self, reached: Callable[[], bool], patience_s: float | None) -> bool:
        """The same for `patience_s` seconds (None: no bound); returns whether it was reached."""
        deadline = None if patience_s is None else time.monotonic() + patience_s
        while not reached():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._step(left)
        return True

    def set_timeout(self, timeout_s: float | None) -> None:
        """Bounds the wait for each answer from now on (None: no bound)."""
        self._timeout_s = timeout_s

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def abandon(self, pending: Pending) -> None:
        """Nobody will read on: ask the daemon to stop, and forget what still comes."""
        if self._pending.pop(pending.number, None) is not None and self._lost is None and self._socket.fileno() >= 0:
            self.submit("cancel", target=pending.number)

    def _send(self, frame: bytes) -> None:
        self._unsent.append(memoryview(frame))
        self.wait_for(lambda: not self._unsent)

    def _step(self, wait_s: float | None) -> None:
        """Sends and receives what can be, waiting up to `wait_s` for either to be possible."""
        if self._lost is not None:
            raise self._lost
        try:
            if self._unsent:
                self._write()
                if not self._unsent:
                    return  # progress; whoever only wanted to send must not wait for an answer
            if wait_s is None and not self._unsent:
                # The socket blocks, up to SILENCE_S: one system call, where poll and recv would be two.
                if not self._read(0):
                    self.check_daemon()
                return
            self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            bound_s = limits.SILENCE_S if wait_s is None else min(wait_s, limits.SILENCE_S)
            if self._poll.poll(0 if bound_s == 0 else max(1, int(bound_s * 1000))):
                self._read(socket.MSG_DONTWAIT)
            elif bound_s == limits.SILENCE_S:
                self.check_daemon()
        except (OSError, ValueError) as error:
            self._lose(error)
        if self._lost is not None:
            raise self._lost

    def _write(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The daemon has hung up; what it said last may still be there to read.
                self._unsent.clear()
                return
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    def check_daemon(self) -> None:
        """To be called after SILENCE_S without a byte. Raises VecError `stalled` if the daemon is not at work; then the
        connection is lost."""
        if self._lost is None and not is_serving(self._socket, _HELLO, limits.PROBE_S):
            self._lose(None, silent(peer_pid(self._socket), limits.SILENCE_S + limits.PROBE_S))
        if self._lost is not None:
            raise self._lost

    def _read(self, flags: int) -> bool:
        """Takes what is there; false if nothing is."""
        try:
            count = self._socket.recv_into(self._arriving, _RECEIVE_BYTES, flags)
        except BlockingIOError:
            return False
        if not count:
            self._lose(None)
            return True
        for payload in self._decoder.feed(self._arriving[:count]):
            reply = parse_reply(decode(payload))
            if reply.id is None:
                self._lose(None, VecError.from_wire(reply.body))
                return True
            if (pending := self._pending.get(reply.id)) is not None:
                pending._take(reply)
                if pending.done:
                    del self._pending[reply.id]
        return True

    def _lose(self, cause: Exception | None, said: VecError | None = None) -> None:
        """The connection is over: with a reason that the daemon gave, or without one."""
        if self._lost is None:
            self._lost = said or VecError(
                Code.CONNECTION_LOST,
                "the connection to the daemon was lost" + (f" ({cause})" if cause else ""),
                "what had no answer may or may not have happened; sending it again is safe",
            )
            self._lost.__cause__ = cause


def explained(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The hits of a search that explains them, each with what is said of it and of the answer as a whole."""
    whole = answer.get("explain") or {}
    return [{**hit, "explain": {**whole, **(hit.get("explain") or {})}} for hit in answer["hits"]]


def _check_data(answer: dict[str, Any], data: Path) -> None:
    """Raises VecError `invalid_settings` if the daemon that said hello serves another folder than `data`."""
    served, name = answer.get("data"), answer.get("data_id")
    if not isinstance(served, str):
        return  # an older daemon
    try:
        ours = folder_id(data)
    except OSError:
        ours = None
    if ours != name and served != shown(data):
        raise VecError(
            Code.SETTINGS,
            f"the daemon on this home's socket serves the data in {served}, and this home's are in {data}",
            "two homes need two sockets: set VEC_HOME or XDG_RUNTIME_DIR for each, or name one with VEC_SOCKET",
        )


def _filters(where: str | Sequence[str]) -> list[str] | None:
    return ([where] if isinstance(where, str) else list(where)) or None
