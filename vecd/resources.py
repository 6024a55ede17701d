"""Exhausted memory, threads or file descriptors become errors of one request, and the daemon goes on.

The threads of a pool start with the daemon, so that a limit that is too low is an error of the start, with a message,
and not of some request later.
"""

from __future__ import annotations

import ctypes
import errno
import resource
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from . import limits
from .errors import Code, VecError

_STACK_BYTES = 2 << 20
_M_ARENA_MAX = -8  # malloc.h

_ERRNOS = {errno.ENOMEM: "memory", errno.EAGAIN: "threads", errno.EMFILE: "files", errno.ENFILE: "files"}
#: What Python and Rust's rayon say when the system refuses a thread.
_NO_THREAD = ("start new thread", "ThreadPoolBuildError")
#: The resource -> the shell command that shows its limit.
_LIMITS = {"memory": "ulimit -v", "threads": "ulimit -u and -v", "files": "ulimit -n"}


def exhausted(error: BaseException) -> VecError | None:
    """The error that says which resource is exhausted; None if that is not the cause of this one."""
    what = None
    if isinstance(error, MemoryError):
        what = "memory"
    elif isinstance(error, OSError):
        what = _ERRNOS.get(error.errno or 0)
    elif isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_THREAD):
        what = "threads"
    elif isinstance(error, ImportError) and "failed to map segment" in str(error):
        what = "memory"
    if what is None:
        return None
    return VecError(
        Code.BUSY,
        f"the daemon cannot get more {what} from the system; the request was not executed",
        f"try again later, or raise the daemon's limit ({_LIMITS[what]})",
    )


def save_address_space() -> None:
    """Under a limit of address space: a thread reserves 8 MiB for its stack and 64 MiB for its memory otherwise, hardly
    any of which it uses. Raises VecError `invalid_settings` if there is too little even so: native libraries crash when
    they are loaded into too little."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if sys.platform != "linux" or limit == resource.RLIM_INFINITY:
        return
    if limit < limits.ADDRESS_SPACE_BYTES_MIN:
        raise VecError(
            Code.SETTINGS,
            f"the daemon may use {limit >> 20} MiB of address space and needs {limits.ADDRESS_SPACE_BYTES_MIN >> 20}",
            "raise the limit (ulimit -v)",
        )
    threading.stack_size(_STACK_BYTES)
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def own_descriptors(workers: int) -> int:
    """File descriptors that a daemon with `workers` job threads needs beside its connections."""
    return limits.OWN_DESCRIPTORS + limits.WORKER_DESCRIPTORS * max(0, workers - limits.WORKERS)


def check_descriptors(count: int, workers: int) -> None:
    """Raises VecError `invalid_settings` if a daemon that may open `count` files cannot serve a connection."""
    needed = own_descriptors(workers)
    if count <= needed:
        fewer = ", or use fewer workers (VEC_WORKERS)" if workers > limits.WORKERS else ""
        raise VecError(
            Code.SETTINGS,
            f"the daemon may open {count} files and needs {needed}, and one for each connection",
            f"raise the limit (ulimit -n){fewer}",
        )


def pool(count: int, name: str, initializer: Callable[[], None] | None = None) -> ThreadPoolExecutor:
    """A pool, all threads of which run. Raises VecError `busy` if the system refuses them."""
    made = ThreadPoolExecutor(count, name, initializer)
    all_run = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            made.submit(all_run.wait)
    except RuntimeError as error:
        all_run.abort()
        made.shutdown(wait=False)
        raise exhausted(error) or error from error
    all_run.wait()  # no initializer may fail
    return made


def start(threads: list[threading.Thread]) -> None:
    """Starts all threads. Raises VecError `busy` if the system refuses them."""
    for thread in threads:
        try:
            thread.start()
        except RuntimeError as error:
            raise exhausted(error) or error from error
