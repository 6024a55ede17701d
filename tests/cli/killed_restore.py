"""`python -m tests.cli.killed_restore BACKUP STORE`: restores, killed before each call that changes a file, in turn.

Prints one JSON object: how often it was killed, and what there was then at the store's place. Each restore begins with
the folder as it was; after each kill a second restore must complete the work, and the old store must still be there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vecd.store.restore import restore

CALLS = ("link", "replace", "unlink", "fsync", "mkdir", "open")


def killed_before(number: int, backup: Path, store: Path) -> bool:
    """Restores in a child that kills itself before the call of that number; whether it got so far."""
    pid = os.fork()
    if pid == 0:
        left = [number]

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def do(*given: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*given, **named)

            return do

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        restore(backup, store, force=True)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def main() -> None:
    backup, store = map(Path, sys.argv[1:])
    saved = store.parent.with_name("saved")
    shutil.copytree(store.parent, saved)
    old, new = store.read_bytes(), backup.read_bytes()
    seen: list[str] = []
    while killed_before(len(seen) + 1, backup, store):
        there = store.read_bytes() if store.exists() else b""
        seen.append("old" if there == old else "new" if there == new else "other")
        assert old in [path.read_bytes() for path in store.parent.rglob("vec.db")], "the old store is lost"
        restore(backup, store, force=True)
        assert store.read_bytes() == new
        assert not list(store.parent.glob("*restoring*"))
        shutil.rmtree(store.parent)
        shutil.copytree(saved, store.parent)
    shutil.rmtree(saved)
    print(json.dumps({"kills": len(seen), "found": sorted(set(seen)), "now": store.read_bytes() == new}))


if __name__ == "__main__":
    main()
