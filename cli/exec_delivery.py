"""`vec watch --exec`: delivers a watch to a shell command, with the delivery loop of vecd.delivery.

The command runs once for each batch. If the command cannot be run, that is no fault of the batch: the watch ends, and
its cursor stays before the batch.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vecd.client import Message
from vecd.delivery import AttemptFailed, DeadLetterFile, Delivery, DeliveryBatch, DeliveryOptions, Observer
from vecd.durable_files import printable_path
from vecd.errors import Code, VecError

from .event_lines import EventLines
from .output import plural
from .signals import Signals

if TYPE_CHECKING:
    from pathlib import Path

    from .reconnecting import ReconnectingWatch

#: Exit statuses of a shell for a command that it could not run.
_CANNOT_RUN = {126: "it cannot be executed", 127: "it was not found"}


class ExecDelivery:
    """Delivers events to a command. After `run`, `signal_got` is the signal that ended it, or None."""

    def __init__(
        self, command: str, form: EventLines, *, events_max: int, attempts_max: int, dead_letters: Path, stops: bool
    ) -> None:
        """With `stops`, the watch ends at a batch that fails, and writes no dead letters. Raises VecError if the file
        cannot hold dead letters, or VEC_RETRY_S is invalid."""
        self._form = form
        self._options = DeliveryOptions(
            events_max=events_max, attempts_max=attempts_max, retry_s=_retry_s(DeliveryOptions().retry_s)
        )
        self._dead_letters = DeadLetterFile(dead_letters)
        self._stops = stops
        self._signals = Signals()
        self._command = _Command(command, self._signals)
        self.given_up = 0  # batches
        self.signal_got: int | None = None

    @property
    def signals(self) -> Signals:
        """Readable when a signal ends the run."""
        return self._signals

    def run(self, following: ReconnectingWatch, messages: Iterator[Message]) -> None:
        """Handles all messages. Raises VecError `handler_failed` when it stops at a batch that fails, and others."""
        delivery = Delivery(
            _WatchSource(following, messages, self._form),
            self._command,
            self._options,
            encode=self._form.lines,
            stop=self._signals,
            dead_letters=None if self._stops else self._dead_letters,
            observer=_Report(self._options, self._dead_letters),
        )
        with self._signals:
            delivery.run()
        self.given_up = delivery.given_up
        self.signal_got = self._signals.got


class _WatchSource:
    """A watch as the source of a delivery."""

    def __init__(self, following: ReconnectingWatch, messages: Iterator[Message], form: EventLines) -> None:
        self._following = following
        self._messages = messages
        self._form = form
        self.ended = False

    @property
    def committed(self) -> str:
        return self._following.done

    @property
    def rewinds(self) -> int:
        return self._following.restarts

    def read(self, wait_s: float | None) -> Message | None:
        if self.ended or (wait_s is not None and not self._following.wait(wait_s)):
            return None
        message = next(self._messages, None)
        if message is None:
            self.ended = True
            return Message([], self._following.watch.cursor)
        return message

    def commit(self, cursor: str, events: int) -> None:
        if self._form.end is not None:
            raise self._form.end
        self._following.keep(cursor, events)
        self._following.secure()


class _Command:
    """The sink: a shell command, with the lines on its stdin."""

    def __init__(self, command: str, signals: Signals) -> None:
        self._command = command
        self._signals = signals

    def deliver(self, batch: DeliveryBatch[bytes]) -> None:
        status = self._run(batch)
        if status == 0:
            return
        if (why := _CANNOT_RUN.get(status)) is not None:
            raise VecError(
                Code.HANDLER_FAILED,
                f"the command cannot be run: {why} (exit status {status} of {self._command!r:.200})",
                "the cursor stays before the batch; correct the command and start again",
            )
        shown = printable_path(self._command)
        raise AttemptFailed(f"the command failed with status {status}", command=shown, status=status)

    def _run(self, batch: DeliveryBatch[bytes]) -> int:
        """The command's exit status, as a shell reports it."""
        environment = {
            "VEC_CURSOR": batch.cursor,
            "VEC_EVENTS": str(len(batch.items)),
            "VEC_ATTEMPT": str(batch.attempt),
        }
        try:
            # In a separate process group, so that a Ctrl-C at the terminal does not reach the command.
            process = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                stdin=subprocess.PIPE,
                env={**os.environ, **environment},
                process_group=0,
            )
        except OSError as error:
            raise VecError(Code.HANDLER_FAILED, f"the command cannot be run ({error.strerror})") from error
        self._signals.group = process.pid
        try:
            process.communicate(b"".join(batch.items))  # it need not read its input
        finally:
            self._signals.group = None
        status = process.returncode
        return status if status >= 0 else 128 - status


class _Report(Observer[bytes]):
    """Reports failures on stderr."""

    def __init__(self, options: DeliveryOptions, dead_letters: DeadLetterFile) -> None:
        self._attempts_max = options.attempts_max
        self._dead_letters = dead_letters

    def retrying(self, batch: DeliveryBatch[bytes], failure: AttemptFailed, pause_s: float) -> None:
        _say(f"{failure.reason} (attempt {batch.attempt} of {self._attempts_max}); retry in {pause_s:.1f} s")

    def gave_up(self, batch: DeliveryBatch[bytes], failure: AttemptFailed) -> None:
        tried = f"{plural(batch.attempt, 'attempt')}, {plural(len(batch.items), 'event')}"
        _say(f"{failure.reason} ({tried}); the events are in {printable_path(self._dead_letters.path)}")


def _say(line: str) -> None:
    print(f"vec: {line}", file=sys.stderr, flush=True)


def _retry_s(default: float) -> float:
    given = os.environ.get("VEC_RETRY_S") or str(default)
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise VecError(Code.SETTINGS, f"VEC_RETRY_S must be a number of seconds from 0 up, not {given!r:.40}")
    return seconds
