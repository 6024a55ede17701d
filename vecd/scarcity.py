"""What the system does not give: memory, threads, file descriptors. Whoever asked is answered, and the daemon goes on.

The threads of a pool start with the daemon, so that a limit that is too low is an error of the start, with a message,
and not of some request later.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .errors import Code, VecError

_ERRNOS = {errno.ENOMEM: "memory", errno.EAGAIN: "threads", errno.EMFILE: "files", errno.ENFILE: "files"}
#: What is scarce -> the shell's name of the limit.
_LIMITS = {"memory": "ulimit -v", "threads": "ulimit -u and -v", "files": "ulimit -n"}


def scarce(error: BaseException) -> VecError | None:
    """The error that says what the system did not give; None if that is not the cause of this one."""
    what = None
    if isinstance(error, MemoryError):
        what = "memory"
    elif isinstance(error, OSError):
        what = _ERRNOS.get(error.errno or 0)
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        what = "threads"
    elif isinstance(error, ImportError) and "failed to map segment" in str(error):
        what = "memory"
    if what is None:
        return None
    return VecError(
        Code.BUSY,
        f"the system gives the daemon no more {what}; this request was not done",
        f"try again when less is going on, or raise the daemon's limit ({_LIMITS[what]})",
    )


def pool(count: int, name: str, initializer: Callable[[], None] | None = None) -> ThreadPoolExecutor:
    """A pool of which all threads run. Raises VecError `busy` if the system does not give them."""
    made = ThreadPoolExecutor(count, name, initializer)
    all_run = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            made.submit(all_run.wait)
    except RuntimeError as error:
        all_run.abort()
        made.shutdown(wait=False)
        raise scarce(error) or error from error
    all_run.wait()  # no initializer may fail
    return made


def start(threads: list[threading.Thread]) -> None:
    """Starts them all. Raises VecError `busy` if the system does not give them."""
    for thread in threads:
        try:
            thread.start()
        except RuntimeError as error:
            raise scarce(error) or error from error
