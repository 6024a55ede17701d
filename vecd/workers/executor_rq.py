"""RQ, as the daemon uses it: a job for each message, whose answer comes through a list of its own (executor_redis.py).

The daemon loads no pickle: RQ keeps the results of jobs as pickles, and these jobs have none.
"""

from __future__ import annotations

import math

from rq import Queue

from .executor_redis import RedisReceiver, connection
from .executor_table import QUEUE, Receiver, Sender

#: How long RQ keeps a failed job, for people who look for the reason.
_FAILED_S = 3_600


class _Sender:
    def __init__(self, url: str, answers: str) -> None:
        self._client = connection(url)
        self._queue = Queue(QUEUE, connection=self._client)
        self._answers = answers

    def send(self, message_id: str, message: bytes, texts: int, limit_s: float, expires_s: float) -> None:
        self._queue.enqueue_call(
            "vecd.workers.rq.embed",
            args=(message,),
            timeout=math.ceil(limit_s),
            ttl=math.ceil(expires_s),
            result_ttl=0,
            failure_ttl=_FAILED_S,
            description=f"embed {texts} texts",  # otherwise the arguments
        )

    def close(self) -> None:
        self._client.close()


def open_sender(url: str, answers: str) -> Sender:
    return _Sender(url, answers)


def open_receiver(url: str, answers: str) -> Receiver:
    return RedisReceiver(url, answers)
