"""The figures of `vec status`: what the daemon is and what it holds."""

from __future__ import annotations

import os
import resource
import sys
import time
from typing import Any

from .. import __version__
from ..feed import positions
from ..feed.positions import Position
from . import libraries
from .engine import Engine

_STARTED = time.monotonic()


def status(engine: Engine) -> dict[str, Any]:
    """Everything but what only the transport knows (connections, requests in flight)."""
    return {
        "version": __version__,
        "pid": os.getpid(),
        "socket": str(engine.settings.socket),
        "data": str(engine.settings.data),
        "log": engine.database.log_id,
        "seq": engine.database.head,
        "oldest": positions.cursor(engine.database, Position(engine.database.horizon)),
        "uptime_s": round(time.monotonic() - _STARTED, 3),
        "memory_bytes": _resident_bytes(),
        "watchers": len(engine.feed.watches.active),
        "libraries": [libraries.show(engine, library) for library in libraries.all_libraries(engine)],
    }


def _resident_bytes() -> int:
    """Resident size now; where /proc is missing (macOS), the most it ever was."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
