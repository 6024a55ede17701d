"""Command that restores a backup: `python -m vecd.restore FILE [--force]`.

`vec restore` runs it, because the command line has no database code. Holds the lock on the data folder, so that no
daemon runs. Prints one JSON object: the result, or `{"error": …}` in the wire format of errors.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from .data_lock import open_lock
from .errors import Code, VecError
from .settings import Settings, load, private_folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m vecd.restore", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    try:
        settings = load()
        with _locked(settings):
            from .store.restore import restore

            done = restore(arguments.file, settings.store, force=arguments.force)
    except VecError as error:
        print(json.dumps({"error": error.to_wire()}))
        sys.exit(1)
    print(json.dumps({"path": str(settings.store), "from": str(arguments.file), **asdict(done)}, default=str))


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[None]:
    """Holds the lock on the data folder. Raises VecError `busy` if a daemon holds it."""
    private_folder(settings.data)
    with open(open_lock(settings.lock), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise VecError(
                Code.BUSY, f"a daemon uses the data folder {settings.data}", "stop it first: vec daemon stop"
            ) from error
        yield


if __name__ == "__main__":
    main()
