"""Copies the store to a file, as of one moment, in bounded steps."""

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
    """How far a copy is, in pages; `seq` is the head of the log that it holds."""

    done: int
    total: int
    seq: int


def copied(database: Database, path: Path, pages: int) -> Iterator[CopyProgress]:
    """Copies the store to a file, `pages` at a time; when it ends, the file is whole and on disk. No part of `path` may
    be a symlink.

    The source's read transaction is open all the while, so no write of others makes SQLite begin anew (which a backup
    on a connection that is not reading does). Raises VecError `storage_failed`, `disk_full`.
    """
    path.unlink(missing_ok=True)
    os.close(create(path))
    try:
        with database.read_transaction() as source:
            seq = events.head(source)
            target = _opened(path)
            try:
                target.pragma("synchronous", "off")  # what is not whole is thrown away
                with target.backup("main", source, "main") as backup:
                    while not backup.step(pages):
                        yield CopyProgress(backup.page_count - backup.remaining, backup.page_count, seq)
                _make_its_own(target)
            except apsw.Error as error:  # of the copy; beyond this block it would be taken for one of the store
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
    """Raises VecError about the copy, and not about the store."""
    try:
        return apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW)
    except apsw.Error as error:
        raise translated(error, path) from error


def _make_its_own(db: apsw.Connection) -> None:
    """The copy's log is not the original's, and its jobs are not to be done twice."""
    db.pragma("journal_mode", "delete")  # one file
    db.pragma("journal_mode", "memory")  # what is not whole is thrown away
    with db:
        db.execute("UPDATE log SET log_id = ''")
        db.execute("DELETE FROM jobs WHERE state IN ('pending', 'running')")
        for table in ("job_attempts", "job_lines", "job_drafts", "job_waits"):
            db.execute(f"DELETE FROM {table} WHERE job_id NOT IN (SELECT job_id FROM jobs)")
