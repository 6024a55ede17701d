"""The threads that all LiveIndexes of a process share."""

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
    """The threads that all LiveIndexes share: strands, and those for what is done aside."""

    strands: Executor
    loaders: Executor
    builders: Executor

    def close(self) -> None:
        """What is aside is given up, what is on a strand is finished."""
        for each in (self.builders, self.loaders, self.strands):
            each.shutdown(cancel_futures=True)


def make_pools() -> Pools:
    """For the whole process, which is told how to hold memory."""
    native.keep_large_memory_apart()

    def behind_the_others() -> None:
        if sys.platform == "linux":  # a thread's own priority; elsewhere it would be the whole process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), limits.JOBS_NICE)

    return Pools(
        pool(limits.INDEX_THREADS, "vecd-index"),
        pool(limits.INDEX_THREADS, "vecd-load"),
        pool(1, "vecd-build", behind_the_others),
    )
