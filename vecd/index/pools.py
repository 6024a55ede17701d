"""Thread pools that all LiveIndexes of a process share."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Executor
from dataclasses import dataclass

from .. import limits
from ..resources import pool
from . import native


@dataclass(frozen=True, slots=True)
class Pools:
    """The shared thread pools."""

    strands: Executor  # turns of LiveIndexes
    loaders: Executor
    builders: Executor  # builds, merges and saves

    def close(self) -> None:
        """Cancels waiting tasks, and waits for running ones."""
        for each in (self.builders, self.loaders, self.strands):
            each.shutdown(cancel_futures=True)


def make_pools() -> Pools:
    """Makes the pools, and configures the memory allocator of the process."""
    native.map_large_blocks()

    def lower_priority() -> None:
        if sys.platform == "linux":  # on other systems it would apply to the whole process
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), limits.JOBS_NICE)

    return Pools(
        pool(limits.INDEX_THREADS, "vecd-index"),
        pool(limits.INDEX_THREADS, "vecd-load"),
        pool(1, "vecd-build", lower_priority),
    )
