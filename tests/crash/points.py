"""The crash points at which the daemon is killed, and the preloaded library (points.c) that kills it."""

from __future__ import annotations

import mmap
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Whether this machine can preload the library.
AVAILABLE: Final = sys.platform == "linux" and shutil.which("cc") is not None

#: Point -> approximate number of times that the daemon reaches it per second under load. The daemon is killed at the
#: Nth time, with N random within that second.
POINTS: Final = {
    "begin": 60,  # before a transaction of the writer
    "commit.write": 200,  # before a write to the write-ahead log
    "commit.torn": 200,  # in the middle of it
    "commit.sync": 50,  # the commit is written, but not synced: it survives unless the machine crashes
    "commit.synced": 50,  # the commit is on disk, but not applied to the indexes
    "apply": 50,  # before it is applied to the indexes
    "applied": 50,  # it is applied, but not answered
    "published": 50,  # all of the engine has applied it; the answers are being sent
    "answer": 100,  # before bytes are sent to a client
    "answered": 100,  # after
    "checkpoint.write": 100,  # a checkpoint copies pages of the write-ahead log
    "checkpoint.sync": 3,
    "checkpoint.synced": 3,
    "shrink": 1,  # the store's file is truncated
    "file.write": 30,  # a backup
    "file.sync": 8,  # an export, a backup, a snapshot of an index
    "file.synced": 8,
    "snapshot.write": 6,  # a part of an index's snapshot
    "rename": 4,  # before the snapshot gets its final name
    "renamed": 4,  # after
    "unlink": 6,
    "unlinked": 6,
    "ack": 20,  # of a consumer, in its transaction
    "rebuilt": 2,  # before a new index is logged
    "trim": 3,
    "vacuum": 10,
    "switch": 4,  # a reembed replaces chunks
    "switched": 4,
    "job.insert": 5,
    "job.claim": 5,
    "job.checkpoint": 20,
    "job.finish": 5,
    "job.recover": 1,  # at the next start
}


def build(folder: Path) -> Path:
    """Compiles the library; returns its path."""
    built = folder / "points.so"
    source = Path(__file__).with_name("points.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", built, source, "-ldl"], check=True)
    return built


def kill_count(point: str, chance: random.Random) -> int:
    """The number of times that the daemon reaches the point until it is killed there."""
    return chance.randint(1, POINTS[point])


class Control:
    """Arms the daemons whose VEC_CRASH names this file. The layout is that of points.c."""

    _LAYOUT = struct.Struct("@32sq")

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(self._LAYOUT.size))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), self._LAYOUT.size)

    def arm(self, point: str, count: int) -> None:
        """Kills the daemon that reaches the point for the `count`th time from now on."""
        self.disarm()
        struct.pack_into("32s", self._map, 0, point.encode())
        struct.pack_into("@q", self._map, 32, count)

    def disarm(self) -> None:
        struct.pack_into("@q", self._map, 32, 0)

    @property
    def armed(self) -> bool:
        """Whether a point is armed that has not killed a daemon yet."""
        return bool(struct.unpack_from("@q", self._map, 32)[0] > 0)

    def close(self) -> None:
        self._map.close()
