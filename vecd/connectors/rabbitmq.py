"""RabbitMQ, over AMQP 0-9-1: a relay publishes to an exchange, a source reads a queue or a stream.

A relay's message is persistent, its `message_id` is the event's cursor, and its routing key `<library>.<type>`, so that
queues select what they get with the patterns of a topic exchange. The messages of a batch are published without waiting
for each other's confirms. A batch that is sent again is there twice: consumers drop what has a `message_id` that they
know. A message that no queue is bound for is returned, and refused.

The client is aio-pika, on an event loop of its own. Connections are not its robust ones: those restore themselves in
the background, and hide from us what is confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import aio_pika
from aio_pika import exceptions as amqp
from aiormq.exceptions import ChannelAccessRefused, ChannelLockedResource

from ..delivery import AttemptFailed, DeliveryBatch, Refused
from ..errors import Code, VecError
from . import tls
from .loop_thread import LoopThread
from .messages import OutMessage
from .secrets import read_secret
from .transport import MessageSink, Opening

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange

#: RabbitMQ closes a connection after two of these intervals without a sign of life, and so does the client.
_HEARTBEAT_S: Final = 10
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
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

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        # RabbitMQ closes the channel for a message that is too large, and does not say for which. So the attempts after
        # a failed one publish one message at a time.
        together = len(batch.items) if batch.attempt == 1 else 1
        if refused := self._loop.call(self._deliver(batch.items, together), None, "publishing to RabbitMQ"):
            raise Refused(refused)

    def close(self) -> None:
        _close(self._loop, self._connection)

    async def _deliver(self, messages: Sequence[OutMessage], together: int) -> dict[int, str]:
        """Publishes all, `together` at a time, and waits for all confirms. Returns why messages were refused, by
        index."""
        refused: dict[int, str] = {}
        for start in range(0, len(messages), together):
            exchange = await self._open()
            group = messages[start : start + together]
            for index, outcome in enumerate(await self._publish(exchange, group), start):
                if isinstance(outcome, amqp.PublishError):
                    refused[index] = f"no queue is bound for the routing key {routing_key(messages[index])!r}"
                elif isinstance(outcome, amqp.ChannelPreconditionFailed):
                    if together > 1:
                        raise AttemptFailed(f"RabbitMQ refuses a message ({_reason(outcome)})", unreachable=True)
                    refused[index] = f"RabbitMQ refuses the message ({_reason(outcome)})"
                elif isinstance(outcome, amqp.DeliveryError):
                    raise AttemptFailed("RabbitMQ does not take the messages: a queue is full", unreachable=True)
                elif outcome is not None:
                    with _translated(f"the exchange {self._exchange_name!r}"):
                        raise outcome
        return refused

    async def _publish(self, exchange: AbstractExchange, messages: Sequence[OutMessage]) -> list[BaseException | None]:
        """Publishes in this order. Returns the exception, or None if it is confirmed, of each.

        Waits as long as confirms arrive: how long they all take depends on the broker's load.
        """
        tasks = [asyncio.create_task(self._publish_one(exchange, message)) for message in messages]
        waiting: set[asyncio.Task[None]] = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=self._timeout_s)
            if not done:
                for task in waiting:
                    task.cancel()
                raise AttemptFailed(f"RabbitMQ confirmed nothing for {self._timeout_s:g} s", unreachable=True)
        return [task.exception() for task in tasks]

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
                    self._exchange = await self._find_exchange(connection)
        return self._exchange

    async def _find_exchange(self, connection: AbstractConnection) -> AbstractExchange:
        self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        try:
            return await self._channel.get_exchange(self._exchange_name, ensure=True)
        except amqp.ChannelNotFoundEntity:
            if not self._create:
                raise
        self._channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        return await self._channel.declare_exchange(self._exchange_name, aio_pika.ExchangeType.TOPIC, durable=True)


def open_sink(opening: Opening) -> MessageSink:
    """Connects when the first batch is delivered."""
    return _RabbitSink(opening)


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
