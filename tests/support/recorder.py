"""A watcher as a separate program: `python -m tests.support.recorder FILE FIELDS [HOLD]`.

It appends each message to FILE as a line of JSON, and resumes where FILE ends, so it can be killed and restarted.
FIELDS are those of the op `watch`, as JSON. HOLD is a consumer that acknowledges what is in the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vecd.client import Client, connect
from vecd.errors import VecError

from .watch_history import Frame, Subscription

#: Errors while the daemon restarts.
_AWAY = ("no_daemon", "connection_lost", "shutting_down")


def main(path: Path, fields: dict[str, Any], hold: str | None) -> None:
    lines = path.read_bytes() if path.exists() else b""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.truncate(lines.rfind(b"\n") + 1)  # a kill may have left a partial line
        file.seek(0, os.SEEK_END)

        def note(line: dict[str, Any]) -> None:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()

        place = reached(path)
        while True:
            with contextlib.suppress(FileNotFoundError), _away(), connect(spawn=False) as client:
                note({"start": place})
                for cursor, line in _lines(client, place, fields):
                    note(line)
                    place = cursor
                    if hold:
                        client.request("ack", consumer=hold, cursor=f"{client.log}:{place}")
            time.sleep(0.01)  # until the next attempt to connect


@contextlib.contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except VecError as error:
        if error.code not in _AWAY:
            raise


def _lines(client: Client, place: int, fields: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The cursor after each message, and its line in the file."""
    try:
        for reply in client.pages("watch", **{"from": f"{client.log}:{place}", **fields}):
            if reply.kind != "items":
                return
            cursor = seq_of(reply.extra["cursor"])
            yield cursor, {"cursor": cursor, "events": reply.body}
    except VecError as error:
        if error.code != "compacted":
            raise
        oldest = seq_of(error.details["oldest"])
        yield oldest, {"compacted": oldest}


def read(path: Path) -> list[Subscription]:
    """The subscriptions that the file records."""
    subscriptions: list[Subscription] = []
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        record = json.loads(line)
        if "start" in record:
            subscriptions.append(Subscription(record["start"]))
        elif "compacted" in record:
            subscriptions[-1].compacted = record["compacted"]
        else:
            subscriptions[-1].frames.append(Frame(record["events"], record["cursor"]))
    return subscriptions


def reached(path: Path) -> int:
    """The seq after which the recorder resumes: that of the last complete line."""
    lines = (path.read_bytes() if path.exists() else b"").rsplit(b"\n", 2)
    if len(lines) < 2 or not lines[-2]:
        return 0
    ((_, seq),) = [each for each in json.loads(lines[-2]).items() if each[0] != "events"]
    return int(seq)


def seq_of(cursor: str) -> int:
    return int(cursor.split(":")[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
