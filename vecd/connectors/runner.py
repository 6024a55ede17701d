"""What relays and sources at work have in common: they begin again after any error, with growing pauses, until they are
to stop, and keep their status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from .. import backoff
from ..client import Client
from ..delivery import AttemptFailed
from ..errors import Code, VecError
from .definition import Definition
from .status import Status
from .stopping import Stopping

log = logging.getLogger("vecd.connectors")

#: Pauses while the broker is away.
RETRY_S: Final = 0.2
RETRY_S_MAX: Final = 15.0
#: Pauses after an error of the configuration, or of the connection to the daemon.
_AGAIN_S, _AGAIN_S_MAX = 0.5, 30.0

Connect = Callable[[], Client]


class Runner:
    """Runs one generation of a connector. Use once, on one thread."""

    def __init__(self, definition: Definition, connect: Connect, status: Status, stop: Stopping) -> None:
        self._definition = definition
        self._status = status
        self._stop = stop
        self._connect = connect
        self._failures = 0  # in a row

    def run(self) -> None:
        """Returns when `stop` is set."""
        while not self._stop.is_set():
            try:
                self._run()
            except AttemptFailed as failure:
                if not self._stop.is_set():
                    self._failures += 1
                    pause_s = backoff.pause_s(self._failures, RETRY_S, RETRY_S_MAX)
                    self.retrying(failure, self._failures, pause_s)
                    self._stop.wait(pause_s)
            except VecError as error:
                self._failed(self._explained(error))
            except Exception as error:
                log.error("a connector failed", exc_info=error, extra=self._about)
                bug = f"a bug in the {self._definition.direction}: {type(error).__name__}: {error}"
                self._failed(VecError(Code.INTERNAL, bug, "see the daemon's log, and report this bug"))

    def retry(self) -> None:
        """Somebody has asked for another attempt at dead letters. Called on another thread."""
        raise NotImplementedError

    def _run(self) -> None:
        """Runs until `stop` is set, or until an error: AttemptFailed if the broker is away, or VecError."""
        raise NotImplementedError

    def progressed(self) -> None:
        """Something was delivered: the next failure is the first."""
        self._failures = 0

    def _explained(self, error: VecError) -> VecError:
        """The error in words for this kind of connector."""
        return error

    def _failed(self, error: VecError) -> None:
        """Keeps the error, and pauses."""
        if self._stop.is_set():
            return
        self._failures += 1
        self._status.failed("retrying" if error.retryable else "failing", error)
        pause_s = backoff.pause_s(self._failures, _AGAIN_S, _AGAIN_S_MAX) / 2 + _AGAIN_S / 2
        log.warning(
            "a connector begins again", extra={**self._about, "error": str(error), "pause_s": round(pause_s, 3)}
        )
        self._stop.wait(pause_s)

    def retrying(self, failure: AttemptFailed, attempt: int, pause_s: float) -> None:
        """An attempt failed; the next one follows after `pause_s`."""
        again = f"attempt {attempt:,}; the next one follows"
        self._status.failed("retrying", VecError(Code.BUSY, failure.reason, again, **failure.details))
        log.warning(
            "a connector's attempt failed",
            extra={**self._about, "reason": failure.reason, "attempt": attempt, "pause_s": round(pause_s, 3)},
        )

    @property
    def name(self) -> str:
        return self._definition.name

    @property
    def _about(self) -> dict[str, str]:
        return {self._definition.direction: self._definition.name}
