"""What the tests build in their own process, they build as the daemon does: native threads with nothing to do sleep.

Spinning for one another at a low priority, beside programs that keep the cores busy, they take ten times as long.
"""

from __future__ import annotations

import os

from vecd.daemon import NATIVE_THREADS

os.environ.update(NATIVE_THREADS)  # before numpy and faiss are loaded
