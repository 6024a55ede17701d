"""What a sync knows of the files of its folder: written in the transaction of their documents, so it always describes
what the library has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import apsw
import orjson

from .transaction import Transaction


class SyncFile(NamedTuple):
    """A file as it was when it was read."""

    path: bytes  # relative to the folder
    stamp: bytes  # compared by the sync only; empty: the file has to be read to see whether it has changed
    digest: bytes
    ids: Sequence[str]  # of its documents
    reason: str | None  # why it has none; None: it has


class SyncRun(NamedTuple):
    """The last time that a sync was complete."""

    ended_us: int
    summary: dict[str, Any]


def page(db: apsw.Connection, name: str, library_id: int, after: bytes, count_max: int) -> list[SyncFile]:
    """The files of a sync behind the path `after` (exclusive), by path. A library of that name that was deleted since
    had other documents: its files are not among them. Those of library 0 have none."""
    rows = db.execute(
        "SELECT path, stamp, digest, ids, reason FROM sync_files WHERE name = ? AND path > ? AND library_id IN (0, ?)"
        " ORDER BY path LIMIT ?",
        (name, after, library_id, count_max),
    )
    return [SyncFile(path, stamp, digest, orjson.loads(ids), reason) for path, stamp, digest, ids, reason in rows]


def put(tx: Transaction, name: str, library_id: int, files: Iterable[SyncFile]) -> None:
    """Adds files, or replaces what was known of them."""
    tx.db.executemany(
        "INSERT OR REPLACE INTO sync_files (name, path, library_id, stamp, digest, ids, reason)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (name, each.path, library_id, each.stamp, each.digest, orjson.dumps(each.ids).decode(), each.reason)
            for each in files
        ],
    )


def remove(tx: Transaction, name: str, paths: Iterable[bytes]) -> None:
    tx.db.executemany("DELETE FROM sync_files WHERE name = ? AND path = ?", [(name, each) for each in paths])


def clear(tx: Transaction, name: str) -> None:
    """Deletes all that is known of a sync's files and runs."""
    tx.db.execute("DELETE FROM sync_files WHERE name = ?", (name,))
    tx.db.execute("DELETE FROM sync_runs WHERE name = ?", (name,))


def rename(tx: Transaction, name: str, new_name: str) -> None:
    """Gives what is known of one sync to another, which has no files."""
    tx.db.execute("UPDATE sync_files SET name = ? WHERE name = ?", (new_name, name))
    tx.db.execute("UPDATE sync_runs SET name = ? WHERE name = ?", (new_name, name))


def count(db: apsw.Connection, name: str, library_id: int) -> dict[str | None, int]:
    """How many files there are, as `page` has them, by the reason why they have no documents; None for those that
    have."""
    return dict(
        db.execute(
            "SELECT reason, count(*) FROM sync_files WHERE name = ? AND library_id IN (0, ?) GROUP BY reason",
            (name, library_id),
        )
    )


def set_run(tx: Transaction, name: str, summary: Mapping[str, Any]) -> None:
    tx.db.execute(
        "INSERT OR REPLACE INTO sync_runs (name, ended_us, summary) VALUES (?, ?, ?)",
        (name, tx.time_us, orjson.dumps(summary).decode()),
    )


def run(db: apsw.Connection, name: str) -> SyncRun | None:
    """None if it was never complete."""
    row = db.execute("SELECT ended_us, summary FROM sync_runs WHERE name = ?", (name,)).get
    return None if row is None else SyncRun(row[0], orjson.loads(row[1]))
