"""Online backup: a copy of the store as of one commit, made in bounded steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apsw

from ..durable_files import create, sync_file
from ..errors import VecError
from . import events
from .database import FULL, Database, translated


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """The progress of a copy, in pages. `seq` is the head of the copied log."""

    done: int
    total: int
    seq: int


def copied(database: Database, path: Path, pages: int) -> Iterator[CopyProgress]:
    """Copies the store to a file, `pages` at a time. At the end of the iteration the file is complete and on disk. No
    part of `path` may be a symlink.

    The source connection holds a read transaction throughout. Without one, SQLite restarts a backup when another
    connection writes. Raises VecError `storage_failed`, `disk_full`.
    """
    path.unlink(missing_ok=True)
    os.close(create(path))
    try:
        with database.read_transaction() as source:
            seq = events.head(source)
            target = _opened(path)
            try:
                target.pragma("synchronous", "off")  # an incomplete copy is deleted
                with target.backup("main", source, "main") as backup:
                    while not backup.step(pages):
                        yield CopyProgress(backup.page_count - backup.remaining, backup.page_count, seq)
                _make_independent(target)
            except apsw.Error as error:  # about the copy; outside this block it would be reported as the store's
                full = target.system_errno in FULL and isinstance(error, (apsw.IOError, apsw.CantOpenError))
                raise translated(apsw.FullError() if full else error, path) from error
            finally:
                target.close()
        sync_file(path)
    except apsw.Error as error:
        path.unlink(missing_ok=True)
        raise translated(error, path) from error
    except (OSError, VecError):
        path.unlink(missing_ok=True)
        raise
    except GeneratorExit:
        path.unlink(missing_ok=True)
        raise
    yield CopyProgress(1, 1, seq)


def _opened(path: Path) -> apsw.Connection:
    """Opens the copy. Raises VecError about the copy, not about the store."""
    try:
        return apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    except apsw.Error as error:
        raise translated(error, path) from error


def _make_independent(db: apsw.Connection) -> None:
    """Makes the copy independent: it gets a log id of its own when it is opened, and jobs do not run twice."""
    db.pragma("journal_mode", "delete")  # one file
    db.pragma("journal_mode", "memory")  # an incomplete copy is deleted
    with db:
        db.execute("UPDATE log SET log_id = ''")
        db.execute("DELETE FROM jobs WHERE state IN ('pending', 'running')")
        for table in ("job_attempts", "job_lines", "job_drafts", "job_waits"):
            db.execute(
                f"DELETE FROM {table} WHERE job_id NOT IN"
                " (SELECT job_id FROM jobs UNION SELECT switch_job FROM libraries WHERE switch_job IS NOT NULL)"
            )
