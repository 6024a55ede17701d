"""`vecd` with a clock that tests move: `python -m tests.feed.clocked`.

The file that VEC_TEST_CLOCK names holds by how many seconds the clock is ahead.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from vecd.daemon import main

_real_ns = time.time_ns
_ahead = Path(os.environ["VEC_TEST_CLOCK"])


def _time_ns() -> int:
    return _real_ns() + int(float(_ahead.read_text()) * 1e9)


time.time_ns = _time_ns
time.time = lambda: _time_ns() / 1e9

if __name__ == "__main__":
    main()
