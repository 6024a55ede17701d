"""The crash points: where the daemon is killed, and the library (points.c) that is preloaded to do it."""

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

#: A point -> how often the daemon comes to it in a second of the load, about. A kill is at the Nth time, N chosen
#: so that it falls somewhere in that second.
POINTS: Final = {
    "begin": 60,  # a transaction of the writer
    "commit.write": 200,  # a write to the write-ahead log, before
    "commit.torn": 200,  # the same, half done
    "commit.sync": 50,  # the commit is written and not synced: it stands if the machine does
    "commit.synced": 50,  # it is on disk; neither the index nor anybody else knows of it
    "apply": 50,  # the indexes are about to be told
    "applied": 50,  # they are, and the write is not answered
    "told": 50,  # so is the engine; the answers are on their way
    "answer": 100,  # before bytes go to a client
    "answered": 100,  # after
    "checkpoint.write": 100,  # the write-ahead log is copied back, a page at a time
    "checkpoint.sync": 3,
    "checkpoint.synced": 3,
    "shrink": 1,  # the store's file is cut
    "file.write": 30,  # a backup
    "file.sync": 8,  # an export, a backup, a snapshot of an index
    "file.synced": 8,
    "snapshot.write": 6,  # a part of an index's snapshot
    "rename": 4,  # the same, about to be put in place
    "renamed": 4,  # in place; nobody knows
    "unlink": 6,
    "unlinked": 6,
    "ack": 20,  # a consumer's, in its transaction
    "rebuilt": 2,  # the new index is about to be logged
    "trim": 3,
    "vacuum": 10,
    "switch": 1,  # a reembed puts the new chunks in place
    "switched": 1,
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


def moment(point: str, chance: random.Random) -> int:
    """At the how manieth time the daemon is killed there."""
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
        """The next daemon that comes there for the `count`th time from now on dies."""
        self.disarm()
        struct.pack_into("32s", self._map, 0, point.encode())
        struct.pack_into("@q", self._map, 32, count)

    def disarm(self) -> None:
        struct.pack_into("@q", self._map, 32, 0)

    @property
    def armed(self) -> bool:
        """Whether a point is armed and nobody has come there often enough."""
        return bool(struct.unpack_from("@q", self._map, 32)[0] > 0)

    def close(self) -> None:
        self._map.close()
