"""RabbitMQ, over AMQP 0-9-1: a relay publishes to an exchange, a source reads a queue or a stream.

A relay's message is persistent, its `message_id` is the event's cursor, and its routing key `<library>.<type>`, so that
queues select what they get with the patterns of a topic exchange. The messages of a batch are published without waiting
for each other's confirms. A batch that is sent again is there twice: consumers drop what has a `message_id` that they
know. A message that no queue is bound for is returned, and refused.

A source reads a queue: a message is acknowledged when its document is durable, so it is applied at least once. Queues
have no offsets. A stream has them (`stream=true`): what a source reads begins behind the offset that is stored with the
documents, so a message is applied exactly once.

The client is aio-pika, on an event loop of its own. Connections are not its robust ones: those restore themselves in
the background, and hide from us what is confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import aio_pika
from aio_pika import exceptions as amqp
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from ..credentials import read_secret
from ..delivery import AttemptFailed, DeliveryBatch, Refused
from ..errors import Code, VecError
from . import tls
from .loop_thread import LoopThread
from .messages import InMessage, OutMessage
from .transport import MessageSink, Opening, SourceReader

if TYPE_CHECKING:
    from aio_pika.abc import (
        AbstractChannel,
        AbstractConnection,
        AbstractExchange,
        AbstractIncomingMessage,
        AbstractQueue,
    )

#: RabbitMQ closes a connection after two of these intervals without a sign of life, and so does the client.
_HEARTBEAT_S: Final = 10
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
#: Messages that are published together when a batch is sent again; twice as many after each confirmed group.
_TOGETHER_AGAIN: Final = 16
#: In the routing key of an event that concerns no library. No library can have this name.
_NO_LIBRARY: Final = "_"
#: Bytes of a routing key, in AMQP.
_ROUTING_KEY_BYTES_MAX: Final = 255

logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it logs errors that it also raises


def routing_key(message: OutMessage) -> str:
    """`<library>.<type>`, as in `notes.document.added`."""
    return f"{message.library if message.library is not None else _NO_LIBRARY}.{message.type}"


class _Connection:
    """A connection to the first of the URL's hosts that answers."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._timeout_s = opening.timeout_s
        self._amqp: AbstractConnection | None = None

    async def renew(self) -> AbstractConnection:
        """A new connection in the place of an earlier one. Raises AttemptFailed and VecError."""
        await self.close()
        failure: Exception | None = None
        for host in self._opening.url.hosts:
            try:
                self._amqp = await self._connect(host.name or "localhost", host.port)
            except (AttemptFailed, VecError) as error:
                failure = failure or error
            else:
                return self._amqp
        assert failure is not None
        raise failure

    async def _connect(self, host: str, port: int | None) -> AbstractConnection:
        opening = self._opening
        secure = opening.url.scheme == "amqps"
        port = port or _PORTS[opening.url.scheme]
        server = f"RabbitMQ at {host}:{port}"
        password = read_secret(opening.parameters, "password")
        user = opening.url.user or "guest"
        vhost = opening.parameters["vhost"]
        context = tls.client_context(opening.parameters) if secure else None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await aio_pika.connect(
                    host=host,
                    port=port,
                    login=user,
                    password="guest" if password is None else password,
                    virtualhost=vhost,
                    ssl=secure,
                    ssl_context=context,
                    client_properties={
                        "connection_name": f"vec {opening.definition.direction} {opening.definition.name}"
                    },
                    heartbeat=_HEARTBEAT_S,
                )
        except (amqp.AuthenticationError, amqp.ProbableAuthenticationError) as error:
            raise VecError(
                Code.SETTINGS,
                f"{server} refuses the user {user!r}",
                "check the URL's user, and the password: -p password_file=PATH or -p password_env=NAME",
            ) from error
        except amqp.InvalidFrameError as error:
            if "Connection.OpenOk" not in str(error):
                raise AttemptFailed(f"{server} cannot be reached ({_reason(error)})", unreachable=True) from error
            raise VecError(  # it closed the connection instead
                Code.SETTINGS,
                f"{server} has no virtual host {vhost!r} that the user {user!r} may use",
                "create it, or allow it (rabbitmqctl set_permissions), or name another: -p vhost=NAME",
            ) from error
        except TimeoutError as error:
            raise AttemptFailed(f"{server} did not answer within {self._timeout_s:g} s", unreachable=True) from error
        except amqp.IncompatibleProtocolError as error:
            raise AttemptFailed(f"{server} does not answer in AMQP 0-9-1", unreachable=True) from error
        except amqp.CONNECTION_EXCEPTIONS as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise tls.refused(server, error.__cause__) from error
            raise AttemptFailed(f"{server} cannot be reached ({_reason(error)})", unreachable=True) from error

    async def close(self) -> None:
        """Within a second; raises nothing."""
        if self._amqp is not None:
            with contextlib.suppress(Exception):  # it may be lost, in any state
                async with asyncio.timeout(1.0):
                    await self._amqp.close()
            self._amqp = None


class _RabbitSink:
    """Publishes to an exchange."""

    def __init__(self, opening: Opening) -> None:
        self._exchange_name = opening.url.path
        self._create = bool(opening.parameters["create"])
        self._mandatory = bool(opening.parameters["mandatory"])
        self._timeout_s = opening.timeout_s
        self._connection = _Connection(opening)
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._loop = LoopThread(f"relay {opening.definition.name}: amqp", opening.stop)

    def open(self) -> None:
        """Raises AttemptFailed and VecError."""
        self._loop.call(self._open(), None, "connecting to RabbitMQ")

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        # After a failure the broker may be slow: few at first, so that these are confirmed before the time is over.
        together = len(batch.items) if batch.attempt == 1 else _TOGETHER_AGAIN
        if refused := self._loop.call(self._deliver(batch.items, together), None, "publishing to RabbitMQ"):
            raise Refused(refused)

    def close(self) -> None:
        _close(self._loop, self._connection)

    async def _deliver(self, messages: Sequence[OutMessage], together: int) -> dict[int, str]:
        """Publishes all, `together` at a time and then more and more, and waits for all confirms. Returns why messages
        were refused, by index. An AttemptFailed says how many were confirmed before the first that was not.

        RabbitMQ closes the channel for a message that is too large, and does not say for which. So what was not
        confirmed of such a group is published again in smaller ones, in the end alone.
        """
        refused: dict[int, str] = {}
        done = 0
        try:
            while done < len(messages):
                exchange = await self._open()
                group = messages[done : done + together]
                together = 2 * len(group)
                outcomes = await self._publish(exchange, group)
                refusal = next((each for each in outcomes if isinstance(each, amqp.ChannelPreconditionFailed)), None)
                for outcome in outcomes:
                    if isinstance(outcome, amqp.PublishError):
                        refused[done] = f"no queue is bound for the routing key {routing_key(messages[done])!r}"
                    elif isinstance(outcome, amqp.DeliveryError):
                        raise AttemptFailed(
                            "RabbitMQ does not take the messages: a queue is full",
                            unreachable=True,
                            hint="read the queue, or raise its limit (x-max-length)",
                        )
                    elif outcome is not None and refusal is not None and len(group) > 1:
                        together = max(1, len(group) // 8)
                        break
                    elif isinstance(outcome, amqp.ChannelPreconditionFailed):
                        refused[done] = f"RabbitMQ refuses the message ({_reason(outcome)})"
                    elif outcome is not None:
                        with _translated(f"the exchange {self._exchange_name!r}"):
                            raise outcome
                    done += 1
        except AttemptFailed as failure:
            failure.delivered, failure.refused = done, refused
            raise
        return refused

    async def _publish(self, exchange: AbstractExchange, messages: Sequence[OutMessage]) -> list[BaseException | None]:
        """Publishes in this order. Returns the exception, or None if it is confirmed, of each.

        Waits as long as confirms arrive: how long they all take depends on the broker's load.
        """
        tasks = [asyncio.create_task(self._publish_one(exchange, message)) for message in messages]
        waiting: set[asyncio.Task[None]] = set(tasks)
        silent = AttemptFailed(f"RabbitMQ confirmed nothing for {self._timeout_s:g} s", unreachable=True)
        done = waiting
        while waiting and done:
            done, waiting = await asyncio.wait(waiting, timeout=self._timeout_s)
        for task in waiting:
            task.cancel()
        return [silent if task in waiting else task.exception() for task in tasks]

    async def _publish_one(self, exchange: AbstractExchange, message: OutMessage) -> None:
        await exchange.publish(
            aio_pika.Message(
                message.body,
                headers=dict(message.headers),
                content_type=message.content_type,
                delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                message_id=message.cursor,
                type=message.type,
                app_id="vecd",
            ),
            routing_key(message),
            mandatory=self._mandatory,
        )

    async def _open(self) -> AbstractExchange:
        """The exchange, on an open channel."""
        if self._exchange is None or self._channel is None or self._channel.is_closed:
            connection = await self._connection.renew()
            with _translated(f"the exchange {self._exchange_name!r}"):
                async with asyncio.timeout(self._timeout_s):
                    channel = await connection.channel(on_return_raises=True)
                    self._channel, self._exchange = await _find_exchange(
                        connection, channel, self._exchange_name, create=self._create
                    )
        return self._exchange


def open_sink(opening: Opening) -> MessageSink:
    sink = _RabbitSink(opening)
    try:
        sink.open()
    except BaseException:
        sink.close()
        raise
    return sink


class _RabbitReader:
    """Reads a queue or a stream. Messages that were read wait for `committed`; no more than `prefetch` do, so a source
    that does not read stops the broker."""

    def __init__(self, opening: Opening, offsets: Mapping[str, str]) -> None:
        parameters = opening.parameters
        self._queue_name = opening.url.path
        self._what = f"the {'stream' if parameters['stream'] else 'queue'} {self._queue_name!r}"
        self._stream = bool(parameters["stream"])
        self._exchange_name: str | None = parameters["exchange"]
        self._binding: str = parameters["binding"]
        self._prefetch = int(parameters["prefetch"])
        self._start: str = parameters["start"]
        self._offset = int(offsets[self._queue_name]) if self._stream and self._queue_name in offsets else None
        self._timeout_s = opening.timeout_s
        self._connection = _Connection(opening)
        self._channel: AbstractChannel | None = None
        self._received: deque[AbstractIncomingMessage] = deque()
        self._unacknowledged: deque[tuple[str, AbstractIncomingMessage]] = deque()  # by offset, in order
        self._arrived = asyncio.Event()
        self._loop = LoopThread(f"source {opening.definition.name}: amqp", opening.stop)

    def open(self) -> None:
        self._loop.call(self._open(), None, "connecting to RabbitMQ")

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        return self._loop.call(self._read(count_max, wait_s), None, "reading from RabbitMQ")

    def committed(self, offsets: Mapping[str, str]) -> None:
        if (offset := offsets.get(self._queue_name)) is not None and not self._stream:
            self._loop.call(self._acknowledge(offset), self._timeout_s, "acknowledging to RabbitMQ")

    def lag(self) -> int | None:
        return None if self._stream else self._loop.call(self._count(), self._timeout_s, "asking RabbitMQ")

    def pause(self) -> None:
        """Nothing to do: the broker sends no more than `prefetch` messages, and the connection is kept alive."""

    def close(self) -> None:
        _close(self._loop, self._connection)

    async def _open(self) -> None:
        connection = await self._connection.renew()
        with _translated(self._what):
            async with asyncio.timeout(self._timeout_s):
                self._channel, queue = await self._find_queue(connection)
                self._channel.close_callbacks.add(lambda *_: self._arrived.set())
                await self._channel.set_qos(prefetch_count=self._prefetch)
                arguments: dict[str, Any] = {}
                if self._stream:
                    begin = "first" if self._start == "earliest" else "next"
                    arguments["x-stream-offset"] = begin if self._offset is None else self._offset + 1
                # One reader of a queue: two would apply the versions of a document in any order.
                await queue.consume(self._receive, exclusive=not self._stream, arguments=arguments)

    async def _find_queue(self, connection: AbstractConnection) -> tuple[AbstractChannel, AbstractQueue]:
        channel = await connection.channel()
        if self._exchange_name is None:
            return channel, await channel.get_queue(self._queue_name, ensure=True)
        channel, exchange = await _find_exchange(connection, channel, self._exchange_name, create=True)
        kind: dict[str, Any] = {"x-queue-type": "stream"} if self._stream else {}
        queue = await channel.declare_queue(self._queue_name, durable=True, arguments=kind)
        await queue.bind(exchange, self._binding)
        return channel, queue

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        self._received.append(message)
        self._arrived.set()

    async def _read(self, count_max: int, wait_s: float) -> list[InMessage]:
        assert self._channel is not None
        if not self._received:
            self._arrived.clear()
            if not self._channel.is_closed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._arrived.wait()
        if not self._received and self._channel.is_closed:
            raise AttemptFailed("the connection to RabbitMQ was lost", unreachable=True)
        taken = [self._received.popleft() for _ in range(min(count_max, len(self._received)))]
        messages = [self._message(each) for each in taken]
        if self._stream and taken:
            with _translated(self._what):
                await taken[-1].ack(multiple=True)  # a stream keeps its messages: this only asks for more
        return messages

    def _message(self, message: AbstractIncomingMessage) -> InMessage:
        headers = {key: str(value) for key, value in message.headers.items() if isinstance(value, (str, bytes, int))}
        if self._stream:
            offset = str(message.headers["x-stream-offset"])
        else:
            offset = message.message_id or f"{message.delivery_tag}:{uuid.uuid4().hex}"
            self._unacknowledged.append((offset, message))
        return InMessage(self._queue_name, offset, message.body, headers=headers, redelivered=bool(message.redelivered))

    async def _acknowledge(self, offset: str) -> None:
        """Acknowledges all up to the first message with this offset (inclusive): one that was published twice has the
        same."""
        if not any(each == offset for each, _ in self._unacknowledged):
            return
        while self._unacknowledged:
            each, message = self._unacknowledged.popleft()
            if each == offset:
                with _translated(self._what):
                    await message.ack(multiple=True)
                return

    async def _count(self) -> int:
        """Messages that wait: at the broker, and here."""
        assert self._channel is not None
        with _translated(self._what):
            queue = await self._channel.declare_queue(self._queue_name, passive=True)
        return (queue.declaration_result.message_count or 0) + len(self._received)


def open_source(opening: Opening, offsets: Mapping[str, str]) -> SourceReader:
    reader = _RabbitReader(opening, offsets)
    try:
        reader.open()
    except BaseException:
        reader.close()
        raise
    return reader


async def _find_exchange(
    connection: AbstractConnection, channel: AbstractChannel, name: str, *, create: bool
) -> tuple[AbstractChannel, AbstractExchange]:
    """An exchange of any type, or with `create` a new topic exchange; and its channel, which may be another one: the
    answer that there is none closes a channel."""
    try:
        return channel, await channel.get_exchange(name, ensure=True)
    except amqp.ChannelNotFoundEntity:
        if not create:
            raise
    channel = await connection.channel(on_return_raises=True)
    return channel, await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC, durable=True)


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turns the client's errors into those of a transport."""
    try:
        yield
    except amqp.ChannelNotFoundEntity as error:
        raise VecError(
            Code.SETTINGS, f"RabbitMQ does not have {what} ({_reason(error)})", "declare it, or correct the URL"
        ) from error
    except ChannelAccessRefused as error:
        if "exclusive" in str(error):  # perhaps our own consumer, of a connection that the broker still believes in
            raise AttemptFailed(
                f"another consumer reads {what}",
                unreachable=True,
                hint="stop that consumer, or name another queue",
            ) from error
        raise VecError(
            Code.SETTINGS,
            f"RabbitMQ does not allow the use of {what} ({_reason(error)})",
            "give the user the permission: rabbitmqctl set_permissions",
        ) from error
    except (ChannelLockedResource, amqp.ChannelPreconditionFailed) as error:
        raise VecError(Code.SETTINGS, f"RabbitMQ cannot use {what} so ({_reason(error)})") from error
    except amqp.CONNECTION_EXCEPTIONS as error:
        raise AttemptFailed(f"the connection to RabbitMQ was lost ({_reason(error)})", unreachable=True) from error


def _reason(error: BaseException) -> str:
    """The cause in few words, of errors whose text is often a tuple or a representation."""
    texts = [each for each in error.args if isinstance(each, str) and each]
    return " ".join((texts[0] if texts else str(error) or type(error).__name__).split())[:300]


def _close(loop: LoopThread, connection: _Connection) -> None:
    with contextlib.suppress(Exception):  # the end of the process closes the socket too
        loop.call(connection.close(), 2.0, "closing the connection")
    loop.close()
