"""What running relays and sources have in common: they try again after any error, with growing pauses, until they are
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
#: After an error of the configuration, or of the connection to the daemon, a pause has at least this.
_AGAIN_S: Final = 0.25

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
                    self.retrying(failure, pause_s)
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
        pause_s = _AGAIN_S + backoff.pause_s(self._failures, _AGAIN_S, RETRY_S_MAX - _AGAIN_S)
        self._status.failed("retrying" if error.retryable else "failing", error, pause_s)
        self._stop.wait(pause_s)

    def retrying(self, failure: AttemptFailed, pause_s: float) -> None:
        """An attempt failed; the next one follows after `pause_s`. The failure's detail `hint` is the remedy, if it has
        one that fits better than that for a server that is away."""
        details = dict(failure.details)
        hint = details.pop("hint", None) or (
            f"start the server, or correct its address (remove the {self._definition.direction} and add it again); "
            "the next attempt follows by itself"
        )
        self._status.failed("retrying", VecError(Code.BUSY, failure.reason, hint, **details), pause_s)

    @property
    def name(self) -> str:
        return self._definition.name

    @property
    def _about(self) -> dict[str, str]:
        return {self._definition.direction: self._definition.name}
