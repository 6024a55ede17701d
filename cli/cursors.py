"""Where a watch stores its cursor between two runs: nowhere, in a file, or in the daemon, as a consumer.

One interface for the three. A position is kept after the output before it was flushed, never sooner: an interrupted
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

#: How long a watch waits for a daemon that is being restarted, so that what was done is not repeated.
RESTART_S = 10.0

#: A cursor file has one line; a longer file is not one.
_CURSOR_FILE_BYTES_MAX = 4_096


class NoCursor:
    """Every run begins at the given position."""

    #: The consumer to watch as.
    consumer: str | None = None

    def start(self, given: str) -> str:
        """Where to begin, if `given` is what was asked for."""
        return given

    def keep(self, watch: Watch, cursor: str) -> None:
        """All up to there (inclusive) is done. Raises VecError."""

    def secure(self, watch: Watch) -> None:
        """Returns when what is kept is on disk. Raises VecError."""

    def resume(self, client: Client) -> None:
        """What was kept and may have been lost with the connection is kept through this one. Raises VecError."""

    def salvage(self) -> None:
        """The watch ends, its connection is lost: what was kept is kept if the daemon is back soon."""


class CursorFile(NoCursor):
    """A file with one line, the cursor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = ""  # what is in it

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
        """A file beside it, on disk, then in its place. Never half a cursor."""
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
    """A cursor that the daemon keeps, moved by acks."""

    def __init__(self, name: str, connect: Callable[[], Client]) -> None:
        """`connect` is for the ack of what was done while the daemon was restarted; it starts none."""
        self.consumer = self._name = name
        self._connect = connect
        self._kept = ""  # acknowledged, or on its way
        self._sure = ""
        self._gone: VecError | None = None  # why the last ack could not be sent

    def keep(self, watch: Watch, cursor: str) -> None:
        if cursor != self._kept:
            self._kept = cursor
            try:
                watch.ack(cursor)
            except VecError as error:
                if not error.disconnected:
                    raise
                self._gone = error  # `secure` raises it; without that, the watch itself meets the same

    def secure(self, watch: Watch) -> None:
        if self._sure == self._kept:
            return
        watch.settle()
        if self._gone is not None:
            raise self._gone
        self._sure = self._kept

    def resume(self, client: Client) -> None:
        if self._sure == self._kept:
            return
        try:
            client.ack(self._name, self._kept)
        except VecError as error:
            if error.code != Code.NOT_FOUND:  # a consumer that was deleted begins again where the watch does
                raise
        self._sure, self._gone = self._kept, None

    def salvage(self) -> None:
        if self._sure == self._kept:
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
            f"vec: {self._kept} was done, but consumer {self.consumer} was not moved there: it will see that again",
            file=sys.stderr,
        )
