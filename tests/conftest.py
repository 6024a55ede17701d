"""What holds for all tests: native threads as in the daemon, and temporary folders in memory.

Native threads: idle threads of the libraries sleep. If they spin at a low priority beside programs that keep the cores
busy, the tests take ten times as long.

Temporary folders: every VEC_HOME lies in a file system in memory if there is one with enough space, so that an fsync
costs nothing. The promises about fsync and power loss have tests of their own, which replay the system calls. For
folders on a disk, set VEC_TEST_TMPDIR.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from vecd.daemon import NATIVE_THREADS

os.environ.update(NATIVE_THREADS)  # before numpy and faiss are loaded

_MEMORY = Path("/dev/shm")
#: Containers often have 64 MiB there, which is too little for several stores at once.
_FREE_BYTES_MIN = 2 << 30


def _use_memory() -> None:
    chosen = os.environ.get("VEC_TEST_TMPDIR")
    if chosen is None:
        if not os.access(_MEMORY, os.W_OK | os.X_OK) or shutil.disk_usage(_MEMORY).free < _FREE_BYTES_MIN:
            return
        chosen = str(_MEMORY)
    os.environ["TMPDIR"] = chosen
    tempfile.tempdir = chosen


_use_memory()
