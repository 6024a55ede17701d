"""NATS JetStream: a relay publishes to a stream, a source reads one.

**Relay.** An event goes to the subject `<prefix>.<library>.<type>`, with its cursor as `Nats-Msg-Id`: the server drops
what is sent again within the stream's duplicate window. Each message of a batch says which message must be the stream's
last one before it (`Nats-Expected-Last-Msg-Id`). So the batch is sent without waiting, and if the server refuses one
message it refuses all that follow: no event is stored before an earlier one. (A chain of expected sequence numbers has
a hole: another program's message takes the number of one that is refused.)

**Source.** The position is the sequence number of the last applied message, as the store has it. The consumer at the
server is ephemeral and acknowledges nothing.

The client is nats-py without its reconnects. Acknowledgements are read here: its `publish_async` never ends when the
server answers with an error. A header's value is percent-encoded where it is not printable ASCII.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote

import nats.errors
import orjson
from nats.aio.client import Client
from nats.js import api
from nats.js import errors as jetstream

from ..credentials import read_secret
from ..delivery import AttemptFailed, DeliveryBatch, Refused
from ..errors import Code, VecError
from . import tls
from .causes import reason
from .loop_thread import LoopThread
from .messages import InMessage, OutMessage
from .transport import MessageSink, Opening, SourceReader

T = TypeVar("T")

_PORT: Final = 4222
#: In the subject of an event that concerns no library. No library can have this name.
_NO_LIBRARY: Final = "_"
#: The error code of a server for a message whose stream does not end with the message that it names.
_WRONG_LAST_MESSAGE: Final = 10070
_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
#: Messages that one request asks the server for: nats-py queues no more of them.
_FETCH_MAX: Final = 4_096


class _Connection:
    """One connection to one of the URL's servers, and an event loop for it."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.timeout_s = opening.timeout_s
        self.server = f"NATS at {','.join(opening.url.addresses(_PORT))}"
        self.stream = opening.url.path
        self.nats: Any = Client()
        self.jetstream: Any = None
        self.lost = asyncio.Event()  # set when the connection has ended
        self._error: Exception | None = None  # the last one that the client reported
        self._password = read_secret(opening.parameters, "password")
        self._tls = tls.client_context(opening.parameters) if opening.url.scheme == "tls" else None
        self._loop = LoopThread(f"{opening.definition.direction} {opening.definition.name}: nats", opening.stop)

    def call(self, coroutine: Coroutine[Any, Any, T], what: str, more_s: float = 0.0) -> T:
        """The coroutine's result, within `timeout_s` and `more_s` more seconds. Raises AttemptFailed, Refused and
        VecError."""
        try:
            return self._loop.call(coroutine, self.timeout_s + more_s, what)
        except (nats.errors.Error, OSError) as error:
            raise self._translated(error) from error

    async def connect(self) -> api.StreamInfo | None:
        """The stream; None if there is none."""
        url = self.opening.url
        await self.nats.connect(
            [f"{url.scheme}://{each}" for each in url.addresses(_PORT)],
            name=f"vec {self.opening.definition.direction} {self.opening.definition.name}",
            user=url.user,
            password=self._password,
            user_credentials=self.opening.parameters["credentials_file"],
            tls=self._tls,
            connect_timeout=self.timeout_s,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            ping_interval=10,
            error_cb=self._failed,
            disconnected_cb=self._disconnected,
        )
        self.jetstream = self.nats.jetstream(timeout=self.timeout_s)
        try:
            info: api.StreamInfo = await self.jetstream.stream_info(self.stream)
        except jetstream.NotFoundError:
            return None
        return info

    async def _failed(self, error: Exception) -> None:
        self._error = error

    async def _disconnected(self) -> None:
        self.lost.set()

    def no_stream(self, hint: str) -> VecError:
        return VecError(Code.INVALID_REQUEST, f"{self.server} has no stream {self.stream!r}", hint)

    def _translated(self, error: Exception) -> Exception:
        """The error that says what happened, and whether it passes."""
        for each in (error, self._error):
            if isinstance(each, ssl.SSLError):
                return tls.refused(self.server, each)
            if isinstance(each, nats.errors.AuthorizationError) or "authorization violation" in str(each).lower():
                return VecError(
                    Code.SETTINGS,
                    f"{self.server} refuses the login",
                    "check the URL's user, and -p password_file=PATH, password_env=NAME or credentials_file=PATH",
                )
            if "permissions violation" in str(each).lower():
                return VecError(Code.SETTINGS, f"{self.server}: {each}", "allow it, with the stream API ($JS.API.>)")
        if isinstance(error, nats.errors.NoServersError) and self._error is not None:
            error = self._error
        if isinstance(error, (nats.errors.NoRespondersError, jetstream.ServiceUnavailableError)):
            return AttemptFailed(f"{self.server} has no JetStream, or not yet", unreachable=True)
        if isinstance(error, jetstream.APIError):
            return AttemptFailed(f"{self.server}: {error.description}", unreachable=True)
        return AttemptFailed(f"{self.server} cannot be reached ({reason(error)})", unreachable=True)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # what is left is closed with the loop
            self._loop.call(self.nats.close(), 1.0, "closing the connection")
        self._loop.close()


# --- relay ------------------------------------------------------------------------------------------------------------


class _JetStreamSink:
    def __init__(self, opening: Opening) -> None:
        """Connects. Raises AttemptFailed and VecError."""
        self._parameters = opening.parameters
        self._prefix: str = opening.parameters["subject"] or opening.url.path
        self._log_id = opening.log_id
        self._bytes_max = 0  # of a message with its headers
        self._last_seq: int | None = None  # of our log, in the stream; None: unknown
        self._connection = _Connection(opening)
        try:
            self._connection.call(self._open(), "connecting")
        except BaseException:
            self._connection.close()
            raise

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        self._connection.call(self._deliver(batch.items), "publishing to the stream")

    def close(self) -> None:
        self._connection.close()

    async def _open(self) -> None:
        connection = self._connection
        info = await connection.connect()
        if info is None:
            if not self._parameters["create"]:
                raise connection.no_stream("create it, or allow the relay to: -p create=true")
            info = await connection.jetstream.add_stream(
                name=connection.stream,
                subjects=[f"{self._prefix}.>"],
                duplicate_window=self._parameters["duplicate_window_s"],
            )
        assert info is not None
        self._bytes_max = connection.nats.max_payload
        if (limit := info.config.max_msg_size or -1) > 0:
            self._bytes_max = min(self._bytes_max, limit)
        if not info.state.last_seq:
            self._last_seq = 0
        elif info.state.messages:
            with contextlib.suppress(jetstream.NotFoundError):
                last = await connection.jetstream.get_msg(connection.stream, subject=f"{self._prefix}.>")
                log_id, _, seq = ((last.headers or {}).get(api.Header.MSG_ID) or "").partition(":")
                if log_id == self._log_id and seq.isdecimal():
                    self._last_seq = int(seq)

    async def _deliver(self, messages: Sequence[OutMessage]) -> None:
        refused: dict[int, str] = {}
        repeated: list[tuple[OutMessage, dict[str, str]]] = []
        new: list[tuple[OutMessage, dict[str, str]]] = []
        for place, message in enumerate(messages):
            headers = _headers(message)
            size = len(message.body) + sum(len(key) + len(value) + 4 for key, value in headers.items()) + 100
            if size > self._bytes_max:
                refused[place] = f"it has {size:,} bytes; the stream takes {self._bytes_max:,}"
            elif self._last_seq is None or message.seq <= self._last_seq:
                repeated.append((message, headers))
            else:
                new.append((message, headers))
        # These may be in the stream: the server drops them, if that was not too long ago. Without a chain: an expected
        # message is looked at before a repetition is.
        await self._publish(repeated)
        for (before, _), (_, headers) in itertools.pairwise(new):
            headers[api.Header.EXPECTED_LAST_MSG_ID] = before.cursor
        await self._publish(new)
        self._last_seq = max(self._last_seq or 0, messages[-1].seq)
        if refused:
            raise Refused(refused)

    async def _publish(self, messages: Sequence[tuple[OutMessage, dict[str, str]]]) -> None:
        """Returns when the server has stored all. Raises AttemptFailed and VecError for the first that it refuses."""
        if not messages:
            return
        client = self._connection.nats
        answers: list[dict[str, Any] | None] = [None] * len(messages)
        left = len(messages)
        complete = asyncio.Event()

        async def answered(reply: Any) -> None:
            nonlocal left
            place = int(reply.subject.rpartition(".")[2])
            answers[place] = orjson.loads(reply.data) if reply.data else {"error": {"code": 503}}
            left -= 1
            if not left:
                complete.set()

        inbox = client.new_inbox()
        subscription = await client.subscribe(f"{inbox}.*", cb=answered)
        for place, (message, headers) in enumerate(messages):
            subject = f"{self._prefix}.{message.library or _NO_LIBRARY}.{message.type}"
            await client.publish(subject, message.body, reply=f"{inbox}.{place}", headers=headers)
        lost = asyncio.ensure_future(self._connection.lost.wait())
        done = asyncio.ensure_future(complete.wait())
        try:
            await asyncio.wait((lost, done), return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            done.cancel()
        if not complete.is_set():
            raise AttemptFailed(f"{self._connection.server} closed the connection", unreachable=True)
        await subscription.unsubscribe()
        for answer in answers:
            if answer is not None and "error" in answer:
                raise self._refusal(answer["error"])

    def _refusal(self, error: Mapping[str, Any]) -> Exception:
        server, stream = self._connection.server, self._connection.stream
        said = error.get("description", "no stream takes the subject")
        if error.get("err_code") == _WRONG_LAST_MESSAGE:
            return AttemptFailed(
                f"another program wrote to the stream {stream!r} of {server}: {said}", unreachable=True
            )
        if "description" not in error or "expected stream" in said:
            return VecError(
                Code.INVALID_REQUEST,
                f"the stream {stream!r} of {server} does not take the subjects {self._prefix}.> ({said})",
                "add them to the stream, or name others: -p subject=PREFIX",
            )
        return AttemptFailed(f"{server}: {said}", unreachable=True)


def _headers(message: OutMessage) -> dict[str, str]:
    values = {**message.headers, "content-type": message.content_type, api.Header.MSG_ID.value: message.cursor}
    return {name: value if _is_plain(value) else quote(value, safe=_PRINTABLE) for name, value in values.items()}


def _is_plain(value: str) -> bool:
    """Whether a header can have it as it is: nearly all, and `quote` is slow."""
    return value.isascii() and value.isprintable() and "%" not in value and " " not in value


def open_sink(opening: Opening) -> MessageSink:
    """It connects at once."""
    return _JetStreamSink(opening)


# --- source -----------------------------------------------------------------------------------------------------------


class _JetStreamReader:
    """Reads one stream, which is its only partition. An offset is a sequence number."""

    def __init__(self, opening: Opening, offset: str | None) -> None:
        """Connects. Raises AttemptFailed and VecError."""
        self._subject: str = opening.parameters["subject"] or ">"
        self._stream = opening.url.path
        self._name = opening.definition.name
        self._subscription: Any = None
        self._connection = _Connection(opening)
        try:
            self._connection.call(self._open(offset, opening.parameters["start"]), "connecting")
        except BaseException:
            self._connection.close()
            raise

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        if self._connection.lost.is_set():
            raise AttemptFailed(f"{self._connection.server} closed the connection", unreachable=True)
        return self._connection.call(self._read(count_max, wait_s), f"reading the stream {self._stream!r}", wait_s)

    def committed(self, offsets: Mapping[str, str]) -> None:
        """The server keeps no position for us."""

    def lag(self) -> int | None:
        return self._connection.call(self._lag(), f"reading the stream {self._stream!r}")

    def pause(self) -> None:
        """The server keeps the messages; nothing is read ahead."""

    def close(self) -> None:
        self._connection.close()

    async def _open(self, offset: str | None, start: str) -> None:
        connection = self._connection
        info = await connection.connect()
        if info is None:
            raise connection.no_stream("create it, or start what writes to it; the source goes on by itself then")
        if offset is not None and info.state.last_seq < int(offset):
            raise VecError(
                Code.INVALID_CURSOR,
                f"the stream {self._stream!r} of {connection.server} ends at {info.state.last_seq}, before the "
                f"position {offset} of the source: the stream was deleted, or its server has lost messages",
                f"to read it from its beginning: vec source reset {self._name}",
            )
        first = 1 if start == "earliest" else info.state.last_seq + 1
        self._subscription = await connection.jetstream.pull_subscribe(
            self._subject,
            stream=self._stream,
            config=api.ConsumerConfig(
                description=f"vec source {self._name}",
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=first if offset is None else int(offset) + 1,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=300.0,
                mem_storage=True,
                num_replicas=1,
            ),
        )

    async def _read(self, count_max: int, wait_s: float) -> list[InMessage]:
        try:
            # nats-py takes another way for a single message, which can lose it at its time limit.
            found = await self._subscription.fetch(max(2, min(count_max, _FETCH_MAX)), timeout=max(wait_s, 0.01))
        except (TimeoutError, nats.errors.TimeoutError):
            if self._connection.lost.is_set():
                raise AttemptFailed(f"{self._connection.server} closed the connection", unreachable=True) from None
            return []
        return [self._message(each) for each in found]

    def _message(self, received: Any) -> InMessage:
        about = received.metadata
        headers = {name: unquote(value) for name, value in (received.headers or {}).items()}
        return InMessage(self._stream, str(about.sequence.stream), received.data, headers=headers)

    async def _lag(self) -> int:
        info = await self._subscription.consumer_info()
        return int(info.num_pending)


def open_source(opening: Opening, offsets: Mapping[str, str]) -> SourceReader:
    """It connects at once."""
    return _JetStreamReader(opening, offsets.get(opening.url.path))
