"""Native code below Python: faiss (imported on first use), its number of threads, and the allocator's settings."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import numpy.typing as npt

from .. import limits

#: The cores that we may run on.
CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def faiss() -> Any:
    """The module."""
    import faiss

    return faiss


def threads_for(queries: int) -> AbstractContextManager[None]:
    """As many cores as it takes to answer so many queries soonest."""
    if queries == 1:
        return nullcontext()  # faiss spreads queries over the cores, and one query over none
    return threads(1 if queries < limits.SEARCHES_SHARED else CORES)


def one_core() -> None:
    """Has this thread use one core in faiss."""
    faiss().omp_set_num_threads(1)


_told = threading.local()


def one_core_once() -> None:
    """As `one_core`, the first time that a thread calls it. (A pool's initializer would load faiss at the start.)"""
    if not getattr(_told, "one_core", False):
        one_core()
        _told.one_core = True


@contextmanager
def threads(count: int) -> Iterator[None]:
    """faiss on so many cores inside; it remembers the number for each calling thread."""
    before = faiss().omp_get_max_threads()
    faiss().omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss().omp_set_num_threads(before)


_LIBC: Final[Any] = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_M_MMAP_THRESHOLD: Final = -3
_MADV_DONTNEED, _MADV_HUGEPAGE, _MADV_COLLAPSE = 4, 14, 25
_PAGE_BYTES: Final = 4096


def huge_pages(array: npt.NDArray[Any]) -> None:
    """Asks the kernel to hold the array in huge pages, now. A walk through a graph jumps about in its vectors, and with
    small pages most jumps miss the processor's table of addresses: 0.38 ms a search among 200,000 x 256 becomes 0.28.
    Where it cannot be done, nothing happens."""
    start = -(-array.ctypes.data // _PAGE_BYTES) * _PAGE_BYTES
    size = array.ctypes.data + array.nbytes - start
    if _LIBC is not None and size > 0:
        for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
            _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def forget(array: npt.NDArray[Any]) -> None:
    """Lets the system have the pages that lie in the array as a whole; what is read there next is zeros, or what it
    held. The array stays allocated."""
    start = -(-array.ctypes.data // _PAGE_BYTES) * _PAGE_BYTES
    size = (array.ctypes.data + array.nbytes) // _PAGE_BYTES * _PAGE_BYTES - start
    if _LIBC is not None and size > 0:
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)


def give_memory_back() -> None:
    """Has the allocator return what is free to the system."""
    if _LIBC is not None and hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def keep_large_memory_apart() -> None:
    """Has the allocator map whatever is large by itself, so that it goes back to the system when it is freed. Left
    alone, glibc stops doing so for blocks of the size of the first that was freed."""
    if _LIBC is not None and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_THRESHOLD, limits.ALLOCATED_APART_BYTES)
