"""What the tests of vec watch share: what it prints, where the log ends, how many watchers there are."""

from __future__ import annotations

from typing import Any

from tests.support.instance import Instance, ndjson
from tests.support.waiting import until
from vecd.client.discovery import connect_socket

EVENT = ["seq", "cursor", "type", "library", "time", "data"]


def put(instance: Instance, library: str, lines: list[dict[str, Any]]) -> None:
    instance.vec("ingest", "-l", library, stdin=ndjson(lines))


def past(instance: Instance, *arguments: str, status: int = 0) -> list[Any]:
    """What `vec watch --no-follow` prints."""
    return instance.objects("watch", "--no-follow", *arguments, status=status)


def head(instance: Instance) -> str:
    """The cursor of the log's head."""
    with instance.connect() as client:
        return f"{client.log}:{client.status()['seq']}"


def watching(instance: Instance, count: int) -> None:
    """Waits until so many watchers stand."""

    def stand() -> bool:
        if (sock := connect_socket(instance.settings)) is None:
            return False  # the daemon is being started
        sock.close()
        with instance.connect() as client:
            return bool(client.status()["watchers"] == count)

    until(stand, f"{count} watchers")
