"""Answers through Redis: a list for each daemon, which expires if nobody reads it. All frameworks use it on Redis, so
that an answer reaches the daemon at once: their own results would have to be polled for."""

from __future__ import annotations

import redis

from .. import limits


def connection(url: str) -> redis.Redis:
    """A client whose calls return within about EXECUTOR_CALL_S."""
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=limits.EXECUTOR_CALL_S,
        socket_timeout=limits.EXECUTOR_CALL_S,
        socket_keepalive=True,
        health_check_interval=30,
    )


def answer(client: redis.Redis, answers: str, data: bytes) -> None:
    """Called by a worker."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.rpush(answers, data)
        pipeline.expire(answers, int(limits.EXECUTOR_ANSWER_EXPIRES_S))
        pipeline.execute()


class RedisReceiver:
    """Receiver (executor_table.py)."""

    def __init__(self, url: str, answers: str) -> None:
        self._client = connection(url)
        self._answers = answers
        self._client.ping()

    def receive(self) -> list[bytes]:
        found = self._client.blpop([self._answers], timeout=1)
        if found is None:
            return []
        more = self._client.lpop(self._answers, limits.EXECUTOR_SENT_MAX)
        return [found[1], *(more or [])]

    def close(self) -> None:
        self._client.close()
