"""Deferred SIGTERM and SIGINT: a block of work notes the signal, and ends where it can."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import Self


class Signals:
    """Use as a context manager. Its `is_set` and `wait` are those of a `vecd.delivery.Stop`."""

    def __init__(self) -> None:
        self.got: int | None = None
        self.group: int | None = None  # the process group of a running command: it gets a second signal
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._take) for number in (signal.SIGTERM, signal.SIGINT)}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def fileno(self) -> int:
        """Readable once a signal has arrived."""
        return self._read

    def is_set(self) -> bool:
        """Whether a signal has arrived."""
        return self.got is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for a signal, up to `timeout` seconds; returns `is_set()`."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        poll.poll(None if timeout is None else int(timeout * 1000))
        return self.is_set()

    def _take(self, number: int, frame: object) -> None:
        if self.got is not None and self.group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, number)
        self.got = self.got or number
