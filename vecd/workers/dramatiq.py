"""What `dramatiq vecd.workers.dramatiq` runs: the task of a message that a daemon has sent (executor_dramatiq.py). The
broker is the one that vecd's own settings name."""

from __future__ import annotations

import logging

import dramatiq
import pika.exceptions
from dramatiq.middleware import AgeLimit, ShutdownNotifications, TimeLimit, TimeLimitExceeded

from . import messages, tasks
from .executor_dramatiq import ACTOR, broker
from .executor_redis import answer, connection
from .executor_settings import of_worker
from .executor_table import QUEUE

log = logging.getLogger("vecd.workers")

_url = of_worker("dramatiq").broker_url()
_redis = connection(_url) if _url.startswith("redis") else None
_broker = broker(_url, [AgeLimit(), TimeLimit(), ShutdownNotifications()])
dramatiq.set_broker(_broker)


def embed(message: bytes) -> None:
    try:
        answers, data = messages.request(message).answers, tasks.embed(message)
    except TimeLimitExceeded:
        log.warning("a batch took longer than the daemon waits")
        return
    if _redis is not None:
        answer(_redis, answers, data)
    else:
        _publish(answers, data)


def _publish(answers: str, data: bytes) -> None:
    """On this thread's connection, which the server may have closed since the last message."""
    try:
        _broker.channel.basic_publish("", answers, data)
    except (pika.exceptions.AMQPError, OSError):
        del _broker.connection
        _broker.channel.basic_publish("", answers, data)


dramatiq.actor(embed, actor_name=ACTOR, queue_name=QUEUE, broker=_broker)
