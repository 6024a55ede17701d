"""Access to native code: faiss (imported on first use, and untyped, because its stubs are incomplete), the number of
cores that it uses, and the memory allocator."""

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

#: The number of cores that the process may use.
CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def faiss() -> Any:
    """The module."""
    import faiss

    return faiss


def threads_for(queries: int) -> AbstractContextManager[None]:
    """The number of cores in faiss that answers this number of queries fastest."""
    if queries == 1:
        return nullcontext()  # faiss parallelizes over queries only
    return threads(1 if queries < limits.SEARCHES_SHARED else CORES)


def one_core() -> None:
    """Makes this thread use one core in faiss."""
    faiss().omp_set_num_threads(1)


_thread = threading.local()


def one_core_once() -> None:
    """As `one_core`, at the first call of a thread. (The initializer of a pool would load faiss at the start.)"""
    if not getattr(_thread, "one_core", False):
        one_core()
        _thread.one_core = True


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside the block, faiss uses this number of cores on this thread."""
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
    """Asks the kernel to move the array to huge pages now. A graph search accesses vectors at random, and with small
    pages most accesses miss the TLB: a search of 200,000 x 256 takes 0.28 ms instead of 0.38. Best effort."""
    start = -(-array.ctypes.data // _PAGE_BYTES) * _PAGE_BYTES
    size = array.ctypes.data + array.nbytes - start
    if _LIBC is not None and size > 0:
        for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
            _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), advice)


def discard_pages(array: npt.NDArray[Any]) -> None:
    """Returns the memory pages that lie entirely in the array to the system; they read as zeros, or as before. The
    array stays allocated."""
    start = -(-array.ctypes.data // _PAGE_BYTES) * _PAGE_BYTES
    size = (array.ctypes.data + array.nbytes) // _PAGE_BYTES * _PAGE_BYTES - start
    if _LIBC is not None and size > 0:
        _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)


def trim_heap() -> None:
    """Makes the allocator return free memory to the system."""
    if _LIBC is not None and hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def map_large_blocks() -> None:
    """Makes the allocator map large blocks separately, so that they return to the system when they are freed. By
    default glibc stops this for blocks of the size of the first one that was freed."""
    if _LIBC is not None and hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_MMAP_THRESHOLD, limits.ALLOCATED_APART_BYTES)
