"""Dramatiq, as the daemon uses it: a message of Dramatiq for each of ours. On Redis the answer comes through a list of
its own (executor_redis.py), on RabbitMQ through a queue that the server deletes when the daemon is gone. Workers need
no result backend.

Dramatiq's messages are msgpack here, so that texts and vectors travel as bytes.
"""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
import msgpack
import pika
from dramatiq.broker import Broker
from dramatiq.encoder import Encoder

from .. import limits
from .executor_redis import RedisReceiver, connection
from .executor_table import QUEUE, Receiver, Sender

#: The name of the actor, which daemon and workers share.
ACTOR = "vecd.embed"

#: How long Dramatiq keeps a message that no actor took, for people who look for the reason.
_DEAD_MS = 3_600_000


class _Msgpack(Encoder):  # type: ignore[misc]
    """Messages of Dramatiq as msgpack."""

    def encode(self, data: dict[str, Any]) -> bytes:
        packed: bytes = msgpack.packb(data)
        return packed

    def decode(self, data: bytes) -> dict[str, Any]:
        fields: dict[str, Any] = msgpack.unpackb(data)
        return fields


dramatiq.set_encoder(_Msgpack())
logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs each step of a connection; ours says what failed


def broker(url: str, middleware: list[Any]) -> Broker:
    """The broker, for the daemon and for its workers."""
    if url.startswith("redis"):
        from dramatiq.brokers.redis import RedisBroker

        return RedisBroker(client=connection(url), middleware=middleware, dead_message_ttl=_DEAD_MS)
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    return RabbitmqBroker(url=_bounded(url), middleware=middleware, confirm_delivery=True)


def _bounded(url: str) -> str:
    """The URL, with bounds for each call."""
    seconds = f"{limits.EXECUTOR_CALL_S:g}"
    options = f"socket_timeout={seconds}&blocked_connection_timeout={seconds}&stack_timeout={seconds}"
    return f"{url}{'&' if '?' in url else '?'}{options}&connection_attempts=1&heartbeat=30"


class _Sender:
    def __init__(self, url: str, answers: str) -> None:
        self._broker = broker(url, [])
        self._broker.declare_queue(QUEUE)

    def send(self, message_id: str, message: bytes, texts: int, limit_s: float, expires_s: float) -> None:
        options = {"time_limit": int(1e3 * limit_s), "max_age": int(1e3 * expires_s), "max_retries": 0}
        self._broker.enqueue(dramatiq.Message(QUEUE, ACTOR, (message,), {}, options, message_id=message_id))

    def close(self) -> None:
        self._broker.close()


class _AmqpReceiver:
    def __init__(self, url: str, answers: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(_bounded(url)))
        channel = self._connection.channel()
        expires_ms = int(1e3 * limits.EXECUTOR_ANSWER_EXPIRES_S)
        # The server deletes it when nobody has read it for a while.
        channel.queue_declare(answers, durable=True, arguments={"x-expires": expires_ms})
        self._messages = channel.consume(answers, auto_ack=True, inactivity_timeout=1)

    def receive(self) -> list[bytes]:
        _, _, body = next(self._messages)
        return [] if body is None else [body]

    def close(self) -> None:
        self._connection.close()


def open_sender(url: str, answers: str) -> Sender:
    return _Sender(url, answers)


def open_receiver(url: str, answers: str) -> Receiver:
    return RedisReceiver(url, answers) if url.startswith("redis") else _AmqpReceiver(url, answers)
