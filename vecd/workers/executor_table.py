"""The frameworks whose workers embed for the daemon. A new one is one file and one entry here.

Standard library only, so that settings can be checked without loading a framework.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final, Protocol

from ..errors import Code, VecError

#: The queue that workers read, in every framework.
QUEUE: Final = "vecd"


class Sender(Protocol):
    """A connection that sends requests. Used by one thread; every call returns within about CALL_S, or raises an
    exception of its library, after which it is closed and opened again."""

    def send(self, message_id: str, message: bytes, texts: int, limit_s: float, expires_s: float) -> None:
        """Sends a request for a worker. A worker stops after `limit_s` of work; a request that no worker has begun
        within `expires_s` is dropped."""

    def close(self) -> None:
        """May raise."""


class Receiver(Protocol):
    """A connection that receives the answers of one daemon. Used by one thread, as Sender is."""

    def receive(self) -> list[bytes]:
        """The answers that have come; waits for one, for a second at most."""

    def close(self) -> None:
        """May raise."""


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework: `module` has `open_sender(url, answers)` and `open_receiver(url, answers)`, where `answers` is the
    name of the queue for the answers. Both block for about CALL_S at most."""

    what: str  # for people
    schemes: tuple[str, ...]  # of the broker's URL
    extra: str  # of pip install 'vecd[…]'
    requires: tuple[str, ...]  # modules that the extra brings
    module: str

    def connect(self) -> tuple[Callable[[str, str], Sender], Callable[[str, str], Receiver]]:
        """Loads the framework. Raises VecError `invalid_settings` if it is not installed."""
        if not all(map(find_spec, self.requires)):
            raise VecError(
                Code.SETTINGS,
                f"jobs.executor is {self.extra!r}, and {self.what} is not installed",
                f"pip install 'vecd[{self.extra}]'",
            )
        module = import_module(self.module)
        return module.open_sender, module.open_receiver


_REDIS, _AMQP = ("redis", "rediss"), ("amqp", "amqps")

#: The value of the setting jobs.executor -> framework; `local` has none.
FRAMEWORKS: Final[dict[str, Framework]] = {
    "celery": Framework("Celery", _REDIS + _AMQP, "celery", ("celery", "redis"), "vecd.workers.executor_celery"),
    "rq": Framework("RQ", _REDIS, "rq", ("rq", "redis"), "vecd.workers.executor_rq"),
    "dramatiq": Framework(
        "Dramatiq", _REDIS + _AMQP, "dramatiq", ("dramatiq", "pika", "redis"), "vecd.workers.executor_dramatiq"
    ),
}
