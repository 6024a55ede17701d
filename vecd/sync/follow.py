"""Follows a folder: one run when it begins, then whatever changes, until it is to stop.

Every change that the kernel tells is handled when its path is quiet. The whole folder is scanned again now and then,
for what the kernel has not told, and all the time where it tells nothing (network file systems, a limit of watches).
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Final

from ..client import Client
from ..connectors import folder
from ..connectors.stopping import Stopping
from ..errors import Code, VecError
from ..files.ignore import IGNORE_FILES
from ..files.options import FileOptions
from .session import Session, Told
from .watching import QuietPaths, Watching, explain

#: How long a path must be quiet, beside the time in which watchfiles gathers; at most; and the longest wait for that.
_QUIET_S: Final = 0.02
_QUIET_S_MAX: Final = 2.0
_PATIENCE_S: Final = 10.0
#: How often the whole folder is scanned: at least this long after the last time, and at most a hundredth of the time.
_SCAN_S: Final = 60.0
_SCAN_SHARE: Final = 100
#: The same where changes are not told.
_POLL_S: Final = 2.0
_POLL_SHARE: Final = 10
#: From how many changed paths on the whole folder is scanned.
_PATHS_MAX: Final = 200
#: How often it is checked that the folder is still the one that is watched.
_LOOK_S: Final = 1.0


class Follower:
    """Follows the folder of a session."""

    def __init__(
        self,
        client: Client,
        session: Session,
        options: FileOptions,
        stop: Stopping,
        *,
        on_round: Callable[[Told, float], None],
        on_warning: Callable[[str], None],
        on_pending: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`on_round` is called with what each run did, and its seconds; `on_warning` when changes are not told;
        `on_pending` with the number of changed paths that wait."""
        self._client = client
        self._session = session
        self._options = options
        self._stop = stop
        self._on_round = on_round
        self._on_warning = on_warning
        self._on_pending = on_pending
        self._quiet = QuietPaths(_QUIET_S, _QUIET_S_MAX, _PATIENCE_S)
        self._identity = (0, 0)  # of the folder: device and inode
        self._scanned_s = 0.0  # how long the last scan took
        self._next_scan = 0.0
        self._watches = True

    def run(self, *, empty: bool = False) -> None:
        """Returns when it is to stop, or has to begin again with a new session: the folder or the library is another
        one. Raises VecError when it cannot go on: the folder is not there, or the connection is lost; then, too, a new
        session has to begin."""
        try:
            self._follow(empty)
        except VecError as error:
            if error.code != Code.LEASE_LOST:
                raise

    def _follow(self, empty: bool) -> None:
        self._identity = self._look()
        with Watching(self._session.root) as watching:
            self._scan(empty=empty)
            looked = time.monotonic()
            while not self._stop.is_set():
                self._wait(watching)
                if watching.failure is not None and self._watches:
                    self._watches = False
                    self._on_warning(explain(watching.failure))
                    self._next_scan = min(self._next_scan, time.monotonic() + _POLL_S)
                now = time.monotonic()
                if now - looked >= _LOOK_S:
                    looked = now
                    if self._look() != self._identity:
                        return  # another folder has its name: begin again
                due = self._quiet.take()
                if now >= self._next_scan and not self._session.current:
                    return
                if now >= self._next_scan or len(due) > _PATHS_MAX or any(map(_is_for_all, due)):
                    self._scan()
                elif due:
                    self._round(due)

    def _look(self) -> tuple[int, int]:
        try:
            about = os.stat(self._session.root)
        except OSError as error:
            shown = folder.shown_path(self._session.definition.url)
            raise VecError(
                Code.NOT_FOUND,
                f"{shown} is not there any more ({error.strerror})",
                "nothing was deleted; the sync continues when it is back",
                file=shown,
            ) from error
        return about.st_dev, about.st_ino

    def _wait(self, watching: Watching) -> None:
        """Until something has changed, or a path is quiet, or it is time to look."""
        bound_s = max(0.0, min(self._next_scan - time.monotonic(), _LOOK_S))
        if (quiet_s := self._quiet.wait_s()) is not None:
            bound_s = min(bound_s, quiet_s)
        poll = select.poll()
        for each in (self._stop, self._client, watching):
            poll.register(each, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(int(bound_s * 1000) + 1)}
        if self._client.fileno() in ready:
            self._client.pump()  # raises `connection_lost`, if it is
        if watching.fileno() in ready:
            self._quiet.add(watching.take())
            self._on_pending(len(self._quiet))

    def _scan(self, *, empty: bool = False) -> None:
        began = time.monotonic()
        made = self._session.plan(self._options, empty=empty)
        self._scanned_s = time.monotonic() - began
        told = self._session.run(made, self._options, keep=not made.empty or self._next_scan == 0)
        pause_s = max(_SCAN_S, _SCAN_SHARE * self._scanned_s)
        if not self._watches:
            pause_s = max(_POLL_S, _POLL_SHARE * self._scanned_s)
        self._next_scan = time.monotonic() + pause_s
        self._tell(told, began)

    def _round(self, due: list[bytes]) -> None:
        began = time.monotonic()
        self._look()  # a folder that was moved away takes no documents with it
        made = self._session.plan_paths(due, self._options)
        told = self._session.run(made, self._options, keep=not made.empty, scan=False)
        self._tell(told, began)

    def _tell(self, told: Told, began: float) -> None:
        self._on_pending(len(self._quiet))
        self._on_round(told, time.monotonic() - began)


def _is_for_all(path: bytes) -> bool:
    """Whether a change of this path concerns others."""
    return path == b"" or os.fsdecode(os.path.basename(path)) in IGNORE_FILES
