"""Cursor storage of `vec watch`: none, a file, or a consumer in the daemon.

One interface for the three. A cursor is stored after the output before it was flushed, never sooner: an interrupted
watch repeats events and misses none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vecd.errors import Code, VecError

if TYPE_CHECKING:
    from vecd.client import Client
    from vecd.client.watch import Watch

#: How long a watch waits for a daemon that restarts, so that handled events are not repeated.
RESTART_S = 10.0

#: A cursor file has one line; a longer file is not one.
_CURSOR_FILE_BYTES_MAX = 4_096


class NoCursor:
    """Stores no cursor: every run begins at the given position."""

    #: The consumer to watch as.
    consumer: str | None = None

    def start(self, given: str) -> str:
        """Where to begin, if the user asked for `given`."""
        return given

    def keep(self, watch: Watch, cursor: str) -> None:
        """Stores a cursor: all up to it (inclusive) is handled. Raises VecError."""

    def secure(self, watch: Watch) -> None:
        """Returns when the stored cursor is durable. Raises VecError."""

    def resume(self, client: Client) -> None:
        """Stores again the cursor that the lost connection may not have stored. Raises VecError."""

    def salvage(self) -> None:
        """The watch ends without a connection: stores the cursor if the daemon is back soon."""


class CursorFile(NoCursor):
    """A file with one line, the cursor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = ""  # the content of the file

    def start(self, given: str) -> str:
        from vecd.durable_files import read_small

        try:
            self._kept = read_small(self._path, _CURSOR_FILE_BYTES_MAX).decode().strip()
            return self._kept or given
        except FileNotFoundError:
            return given
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise VecError(Code.INVALID_REQUEST, f"cannot read the cursor file {self._path} ({why})") from error

    def keep(self, watch: Watch, cursor: str) -> None:
        """Replaces the file atomically."""
        if cursor == self._kept:
            return
        from vecd.durable_files import replace

        path = self._path
        try:
            replace(path, f"{cursor}\n".encode())
        except OSError as error:
            raise VecError(Code.INVALID_REQUEST, f"cannot write the cursor file {path} ({error.strerror})") from error
        self._kept = cursor


class ConsumerCursor(NoCursor):
    """A cursor that the daemon stores, moved by acks."""

    def __init__(self, name: str, connect: Callable[[], Client]) -> None:
        """`connect`, which starts no daemon, is for an ack after the daemon has restarted."""
        self.consumer = self._name = name
        self._connect = connect
        self._kept = ""  # acked, or on its way
        self._acked = ""
        self._ack_error: VecError | None = None  # why the last ack could not be sent

    def keep(self, watch: Watch, cursor: str) -> None:
        if cursor != self._kept:
            self._kept = cursor
            try:
                watch.ack(cursor)
            except VecError as error:
                if not error.disconnected:
                    raise
                self._ack_error = error  # `secure` raises it; otherwise the watch meets the same error

    def secure(self, watch: Watch) -> None:
        if self._acked == self._kept:
            return
        watch.settle()
        if self._ack_error is not None:
            raise self._ack_error
        self._acked = self._kept

    def resume(self, client: Client) -> None:
        if self._acked == self._kept:
            return
        try:
            client.ack(self._name, self._kept)
        except VecError as error:
            if error.code != Code.NOT_FOUND:  # a deleted consumer is created again where the watch begins
                raise
        self._acked, self._ack_error = self._kept, None

    def salvage(self) -> None:
        if self._acked == self._kept:
            return
        deadline = time.monotonic() + RESTART_S
        while True:
            try:
                with self._connect() as client:
                    self.resume(client)
                return
            except VecError as error:
                if time.monotonic() > deadline or not error.retryable:
                    break
            time.sleep(0.1)
        print(
            f"vec: events up to {self._kept} were handled, but the ack of consumer {self.consumer} was lost:"
            " they will be repeated",
            file=sys.stderr,
        )
