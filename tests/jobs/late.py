"""`vecd` whose indexes hear of each commit some time after it is on disk: `python -m tests.jobs.late`."""

from __future__ import annotations

import time

from vecd.daemon import main
from vecd.engine.indexes import Indexes
from vecd.store.transaction import Commit

_apply = Indexes.apply


def _late(self: Indexes, commit: Commit) -> None:
    time.sleep(0.05)
    _apply(self, commit)


if __name__ == "__main__":
    Indexes.apply = _late  # type: ignore[method-assign]
    main()
