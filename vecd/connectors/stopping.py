"""A request to stop that can be waited for together with a connection to the daemon."""

from __future__ import annotations

import os
import select
import threading
import time

from ..client import Client


class Stopping:
    """A flag that is set once, from any thread or a signal handler. Implements vecd.delivery's Stop."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe()
        self._event = threading.Event()

    def set(self) -> None:
        if not self._event.is_set():
            self._event.set()
            os.write(self._write_end, b"x")

    def fileno(self) -> int:
        """For select and poll: readable when it is set."""
        return self._read_end

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, up to `timeout` seconds; returns `is_set()`."""
        if not self.is_set():
            poll = select.poll()
            poll.register(self._read_end, select.POLLIN)
            poll.poll(None if timeout is None else max(0, int(timeout * 1000) + 1))
        return self.is_set()

    def wait_with(self, client: Client, seconds: float | None) -> bool:
        """Waits until the daemon has sent something, and reads it; false if it is to stop, or after that time.

        Raises VecError `connection_lost`.
        """
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        poll.register(client, select.POLLIN)
        until = None if seconds is None else time.monotonic() + seconds
        while not self.is_set():
            left_s = None if until is None else until - time.monotonic()
            ready = poll.poll(None if left_s is None else max(0, int(left_s * 1000)))
            if any(fd != self._read_end for fd, _ in ready):
                client.pump()
                return True
            if left_s is not None and left_s <= 0:
                return False
        return False

    def close(self) -> None:
        """Nobody waits any more."""
        os.close(self._read_end)
        os.close(self._write_end)
