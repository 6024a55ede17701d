"""Celery, as the daemon uses it: a task for each message. On Redis the answer comes through a list of its own
(executor_redis.py), on RabbitMQ through a queue that the server deletes when the daemon is gone. Workers need no result
backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kombu
from celery import Celery

from .. import limits
from .executor_redis import RedisReceiver
from .executor_table import QUEUE, Receiver, Sender

#: The name of the task, which daemon and workers share.
TASK = "vecd.embed"

#: How long a broker on Redis waits for a worker's acknowledgement before it gives a message to another one. Much longer
#: than any batch: the daemon does not wait for it.
_VISIBILITY_S = 3_600


def application(url: str) -> Celery:
    """The application, for the daemon and for its workers."""
    app = Celery("vecd", broker=url, set_as_current=False)
    redis = url.startswith("redis")
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="msgpack",
        accept_content=["msgpack"],
        task_ignore_result=True,
        # A message is acknowledged when its answer is sent, so a worker that is stopped loses none. One whose process
        # was killed is not tried again: it may have killed it.
        task_acks_late=True,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=limits.EXECUTOR_CALL_S,
        broker_heartbeat=10,
        broker_transport_options={"visibility_timeout": _VISIBILITY_S, "socket_keepalive": True}
        if redis
        else {"confirm_publish": True},
    )
    return app


class _Sender:
    def __init__(self, url: str, answers: str) -> None:
        self._app = application(url)
        options = {**self._app.conf.broker_transport_options, **_bounds(url)}
        self._app.conf.broker_transport_options = options
        self._connection = self._app.connection_for_write()
        self._connection.ensure_connection(max_retries=1, timeout=limits.EXECUTOR_CALL_S)

    def send(self, message_id: str, message: bytes, texts: int, limit_s: float, expires_s: float) -> None:
        self._app.send_task(
            TASK,
            args=(message,),
            task_id=message_id,
            time_limit=limit_s,
            expires=expires_s,
            retry=False,
            connection=self._connection,
            argsrepr=f"<{texts} texts>",  # otherwise the arguments
        )

    def close(self) -> None:
        self._connection.release()
        self._app.close()


class _AmqpReceiver:
    def __init__(self, url: str, answers: str) -> None:
        self._connection = kombu.Connection(
            url, connect_timeout=limits.EXECUTOR_CALL_S, heartbeat=10, transport_options=_bounds(url)
        )
        self._connection.ensure_connection(max_retries=1, timeout=limits.EXECUTOR_CALL_S)
        self._received: list[bytes] = []
        channel = self._connection.channel()
        consumer = kombu.Consumer(channel, [answer_queue(answers)], no_ack=True, on_message=self._on_message)
        consumer.consume()

    def _on_message(self, message: Any) -> None:
        body = message.body
        self._received.append(body if isinstance(body, bytes) else bytes(body))

    def receive(self) -> list[bytes]:
        try:
            self._connection.drain_events(timeout=1)
        except TimeoutError:
            self._connection.heartbeat_check()
        received, self._received = self._received, []
        return received

    def close(self) -> None:
        self._connection.release()


def answer_queue(answers: str) -> kombu.Queue:
    """The queue of a daemon's answers, on RabbitMQ; the server deletes it when nobody has read it for a while."""
    return kombu.Queue(
        answers, exchange="", routing_key=answers, durable=True, expires=limits.EXECUTOR_ANSWER_EXPIRES_S
    )


def amqp_answer(app: Celery) -> Callable[[str, bytes], None]:
    """Sends answers, in a worker."""

    def send(answers: str, data: bytes) -> None:
        with app.producer_or_acquire() as producer:
            producer.publish(
                data, routing_key=answers, exchange="", delivery_mode="transient", retry=True,
                content_type="application/octet-stream", content_encoding="binary",
                retry_policy={"max_retries": 3, "interval_start": 0.1, "interval_step": 0.5},
            )  # fmt: skip

    return send


def _bounds(url: str) -> dict[str, Any]:
    """How long the daemon's calls may take."""
    if url.startswith("redis"):
        return {"socket_timeout": limits.EXECUTOR_CALL_S, "socket_connect_timeout": limits.EXECUTOR_CALL_S}
    return {"read_timeout": limits.EXECUTOR_CALL_S, "write_timeout": limits.EXECUTOR_CALL_S}


def open_sender(url: str, answers: str) -> Sender:
    return _Sender(url, answers)


def open_receiver(url: str, answers: str) -> Receiver:
    return RedisReceiver(url, answers) if url.startswith("redis") else _AmqpReceiver(url, answers)
