"""Which paths of a folder have changed, as the kernel tells it, and when they are quiet.

watchfiles (the Rust crate notify) watches on a thread. What it misses, because its queue has overflowed or a folder was
filled before it was watched, the next scan of the whole folder finds.

It ends with an error at the first change of a name that is not UTF-8, also in a folder of which no file is taken. Then
it is started again, and the folder is scanned; if that happens again and again, it is given up. No error of the thread
is lost: `failure` has it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

log = logging.getLogger("vecd.sync")

#: How long watchfiles gathers changes, and the pause without one that ends this. It wakes up once a step.
_GATHER_MS: Final = 200
_STEP_MS: Final = 50
#: How long the thread takes to see that it is to stop.
_STOP_MS: Final = 500
#: How often it is started again within that time before it is given up: each start walks through all folders.
_STARTS_MAX: Final = 5
_STARTS_S: Final = 60.0


class Watching:
    """Watches a folder and all folders in it, on a thread. `with` it. Readable when `take` has something."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._changed: set[bytes] = set()
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stop = threading.Event()
        #: Why it does not watch (any more); None: it does.
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sync-watch", daemon=True)
        self._started = threading.Event()

    def __enter__(self) -> Watching:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        os.close(self._read_end)
        os.close(self._write_end)

    def fileno(self) -> int:
        return self._read_end

    def take(self) -> set[bytes]:
        """The paths that have changed since the last call, relative to the folder; b"" is the folder itself."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read_end, 4_096)
        with self._lock:
            changed, self._changed = self._changed, set()
        return changed

    def _run(self) -> None:
        starts: deque[float] = deque(maxlen=_STARTS_MAX)  # when it was started
        try:
            while not self._stop.is_set():
                starts.append(time.monotonic())
                try:
                    self._watch(again=len(starts) > 1)
                except OSError:
                    raise
                except Exception as error:
                    if len(starts) == _STARTS_MAX and time.monotonic() - starts[0] < _STARTS_S:
                        raise
                    log.info("the watch of a folder is started again", extra={"folder": self._root, "why": str(error)})
        except Exception as error:
            self.failure = error
            self._put([self._root])
        finally:
            self._started.set()

    def _watch(self, *, again: bool) -> None:
        """Watches until it is to stop. With `again`, all may have changed since the last watch. Raises what watchfiles
        raises."""
        from watchfiles import watch

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs every change
        watched = watch(
            self._root, watch_filter=None, debounce=_GATHER_MS, step=_STEP_MS, stop_event=self._stop,
            rust_timeout=_STOP_MS, yield_on_timeout=True, raise_interrupt=False, ignore_permission_denied=True,
        )  # fmt: skip
        for changes in watched:
            self._started.set()
            if again:
                again = False
                self._put([self._root])
            if changes:
                self._put(path for _, path in changes)

    def _put(self, paths: Iterable[str]) -> None:
        found = {os.fsencode(path)[len(os.fsencode(self._root)) :].lstrip(b"/") for path in paths}
        with self._lock:
            self._changed |= found
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_end, b"x")


def explain(error: Exception) -> str:
    """Why a folder cannot be watched, and what to do."""
    if not isinstance(error, OSError):
        return (
            f"watching the folder has failed again and again, so changes are found more slowly ({error}); a file whose"
            " name is not UTF-8 does that when it changes: rename it, then pause and resume the sync"
        )
    if error.errno == errno.ENOSPC:
        return (
            "the limit of watched folders (inotify) is reached, so changes are found more slowly; to raise it: sudo"
            " sysctl fs.inotify.max_user_watches=1048576"
        )
    if error.errno == errno.EMFILE:
        return (
            "the limit of inotify instances is reached, so changes are found more slowly; to raise it: sudo sysctl"
            " fs.inotify.max_user_instances=1024"
        )
    return f"the folder cannot be watched, so changes are found more slowly ({error})"


class QuietPaths:
    """Changed paths, and which of them are quiet by now. A path that goes on changing has to be quiet for longer each
    time, so that a log, or a slow writer, does not cost a document a second."""

    def __init__(self, quiet_s: float, quiet_s_max: float, patience_s: float) -> None:
        """`patience_s` is after how long a path counts as quiet that never is."""
        self._quiet_s, self._quiet_s_max, self._patience_s = quiet_s, quiet_s_max, patience_s
        self._waiting: dict[bytes, tuple[float, float]] = {}  # path -> its first change, and its last
        self._taken: dict[bytes, tuple[float, float]] = {}  # path -> when it was taken last, and how quiet it had to be

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, paths: Iterable[bytes], now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        for path in paths:
            first, _ = self._waiting.get(path, (now, now))
            self._waiting[path] = first, now

    def take(self, now: float | None = None) -> list[bytes]:
        """Those that are quiet."""
        now = time.monotonic() if now is None else now
        due = [path for path in self._waiting if self._due_at(path) <= now]
        for path in due:
            del self._waiting[path]
            self._taken[path] = now, self._wanted_s(path, now)
        if len(self._taken) > 10_000:
            self._taken = {path: taken for path, taken in self._taken.items() if now - taken[0] < 4 * self._quiet_s_max}
        return due

    def wait_s(self, now: float | None = None) -> float | None:
        """Until the next one is quiet; None: there is none."""
        now = time.monotonic() if now is None else now
        return min((max(0.0, self._due_at(path) - now) for path in self._waiting), default=None)

    def _due_at(self, path: bytes) -> float:
        first, last = self._waiting[path]
        return min(last + self._wanted_s(path, last), first + self._patience_s)

    def _wanted_s(self, path: bytes, changed_at: float) -> float:
        """How quiet it has to be."""
        if (taken := self._taken.get(path)) is None:
            return self._quiet_s
        at, wanted_s = taken
        if changed_at - at > 4 * wanted_s + 1:  # it was quiet since
            return self._quiet_s
        return min(2 * wanted_s, self._quiet_s_max)
