"""--exec: a command for each batch of events, one at a time, tried again when it fails, and set aside in the end.

The cursor moves when the command ended with 0, or when the batch is on disk among the dead letters. So each event is
handled at least once. A command that cannot be run at all says nothing about the batch: the watch ends before it.
"""

from __future__ import annotations

import datetime
import errno
import fcntl
import os
import random
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vecd.data_lock import shown
from vecd.durable_files import open_regular, sync_folder
from vecd.errors import Code, VecError

from .batches import Batch, Batches, Signals
from .feed import Events
from .output import plural

if TYPE_CHECKING:
    from vecd.client.subscription import Message

    from .following import Following

#: The wait before a second try, on average twice as long before each further one.
_RETRY_S = 1.0
_RETRY_S_MAX = 60.0

#: What a shell's exit status says of a command that it could not run.
_CANNOT_RUN = {126: "it cannot be executed", 127: "it was not found"}


class DeadLetters:
    """A file of batches that were given up, a line each. Only a regular file, or a symlink to one, keeps them."""

    def __init__(self, path: Path) -> None:
        """Raises VecError `invalid_request` for a path that is something else."""
        self.path = path
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
        except FileNotFoundError:
            pass  # it is made when a batch is given up
        except OSError as error:
            raise self._failed(error) from error

    def add(self, command: str, status: int, attempts: int, cursor: str, lines: Sequence[bytes]) -> None:
        """When it returns, the batch is on disk. Raises VecError if it cannot be."""
        from .output import load_orjson

        shown = os.fsencode(command).decode("utf-8", "backslashreplace")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        about = {"time": now, "command": shown, "status": status, "attempts": attempts, "cursor": cursor}
        events = b",".join(line.rstrip(b"\n") for line in lines)
        line = load_orjson().dumps(about)[:-1] + b',"events":[' + events + b"]}\n"
        try:
            fd = open_regular(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with open(fd, "ab", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # others may have the same file
                left = memoryview(line)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> VecError:
        return VecError(
            Code.INVALID_REQUEST,
            f"cannot write the dead letters to {shown(self.path)} ({error.strerror})",
            "the cursor stays before the batch; name another file with --dead-letter",
        )


class Handler:
    """Runs the command. `signal_got` after `run` is what ended it, if a signal did."""

    def __init__(
        self,
        command: str,
        form: Events,
        *,
        events_max: int,
        tries_max: int,
        dead_letters: DeadLetters,
        stops: bool,
    ) -> None:
        self._command = command
        self._form = form
        self._events_max = events_max
        self._tries_max = tries_max
        self._dead_letters = dead_letters
        self._stops = stops
        self._retry_s = _retry_s()
        self._signals = Signals()
        self.given_up = 0  # batches
        self.signal_got: int | None = None

    @property
    def signals(self) -> Signals:
        """Readable when a signal ends the run."""
        return self._signals

    def run(self, feed: Following, messages: Iterator[Message]) -> None:
        """Handles all that comes. Raises VecError `handler_failed` when it stops at a batch that fails, and others."""
        with self._signals:
            for batch in Batches(feed, messages, self._events_max, self._signals):
                if not self._handle(batch):
                    break
                feed.keep(batch.cursor, len(batch.events))
                feed.secure()
        self.signal_got = self._signals.got

    def _handle(self, batch: Batch) -> bool:
        """False if a signal came before the batch was done."""
        lines = self._form.lines(batch.events)
        done = not lines or self._try(lines, batch.cursor)
        if done and self._form.end is not None:
            raise self._form.end
        return done

    def _try(self, lines: Sequence[bytes], cursor: str) -> bool:
        """Runs the command until the lines are handled or given up; false if a signal came before that."""
        for attempt in range(1, self._tries_max + 1):
            status = self._run(lines, cursor, attempt)
            if status == 0:
                return True
            if (why := _CANNOT_RUN.get(status)) is not None:
                raise VecError(
                    Code.HANDLER_FAILED,
                    f"the command cannot be run: {why} (exit status {status} of {self._command!r:.200})",
                    "the cursor stays before the batch; correct the command, and start again",
                )
            if self._signals.got is not None:
                return False
            told = f"vec: the command failed with status {status} (try {attempt} of {self._tries_max})"
            if attempt < self._tries_max:
                # Full jitter: those who failed together do not come back together.
                wait_s = random.uniform(0, min(_RETRY_S_MAX, self._retry_s * 2 ** (attempt - 1)))
                print(f"{told}; again in {wait_s:.1f} s", file=sys.stderr, flush=True)
                self._signals.sleep(wait_s)
                if self._signals.got is not None:
                    return False
        self._give_up(lines, cursor, status)
        return True

    def _give_up(self, lines: Sequence[bytes], cursor: str, status: int) -> None:
        tries = plural(self._tries_max, "time")
        what = f"the command failed {tries} with {plural(len(lines), 'event')}, last with status {status}"
        if self._stops:
            raise VecError(Code.HANDLER_FAILED, what, "the cursor stays before them; mend the command and begin again")
        self._dead_letters.add(self._command, status, self._tries_max, cursor, lines)
        self.given_up += 1
        print(f"vec: {what}; they are in {shown(self._dead_letters.path)}", file=sys.stderr, flush=True)

    def _run(self, lines: Sequence[bytes], cursor: str, attempt: int) -> int:
        """The command's exit status, as a shell tells it."""
        environment = {"VEC_CURSOR": cursor, "VEC_EVENTS": str(len(lines)), "VEC_ATTEMPT": str(attempt)}
        try:
            # In a process group of its own: a Ctrl-C at the terminal is ours, and lets the command finish.
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
            process.communicate(b"".join(lines))  # one that reads nothing of it is judged by its exit status
        finally:
            self._signals.group = None
        status = process.returncode
        return status if status >= 0 else 128 - status


def _retry_s() -> float:
    given = os.environ.get("VEC_RETRY_S", "")
    try:
        return float(given or _RETRY_S)
    except ValueError:
        raise VecError(Code.SETTINGS, f"VEC_RETRY_S must be a number of seconds, not {given!r:.40}") from None
