"""Restore: replaces the store by a backup, while no daemon runs. The caller holds the lock on the data folder.

The backup is copied beside the store under another name, checked there and synced. Then the old store is moved to a
new folder, and the copy is renamed to its name. A crash leaves the old store, the new one, or none; in the last case
no daemon starts, and a second restore continues. Only unfinished copies of earlier restores are deleted.

The old store's write-ahead log, index snapshots and job input are moved with it. Beside another store, its write-ahead
log would corrupt that store.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import shutil
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from .. import limits
from ..durable_files import file_id, rename, sync_file, sync_folder
from ..errors import Code, VecError
from .database import check_sqlite, translated
from .schema import APPLICATION_ID, MIGRATIONS

_GZIP: Final = b"\x1f\x8b"
_SQLITE: Final = b"SQLite format 3\0"
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Restored:
    """The restored store: its size, the head of its log, its counts, and the folder that holds the old store, None if
    there was none."""

    bytes: int
    seq: int
    libraries: int
    documents: int
    replaced: Path | None


def restore(backup: Path, store: Path, *, force: bool) -> Restored:
    """Replaces the store by a backup, gzipped or not; a store that is not empty only with `force`.

    Raises VecError: `not_found`, `invalid_request` or `damaged` for a file that cannot be restored, `exists` for a
    store that is not empty, `disk_full`, `storage_failed`.
    """
    check_sqlite()
    _check_place(backup, store)
    what = _held(store)
    if what and not force:
        raise VecError(
            Code.EXISTS,
            f"a store {store} already exists; it {what}",
            "use --force to replace it; the old store is kept in another folder",
        )
    made = store.with_name(store.name + ".restoring")
    old = file_id(store)
    try:
        _copy(backup, made)
        seq, libraries, documents = _check(made, backup)
        replaced = _put_in_place(made, store)
    except OSError as error:
        raise VecError(
            Code.DISK_FULL if error.errno in _NO_SPACE else Code.STORAGE_FAILED,
            f"cannot restore {backup} to {store} ({error.strerror or error})",
            _left(store, old),
        ) from error
    finally:
        for each in _with_companions(made):
            with contextlib.suppress(OSError):  # the next restore removes it
                each.unlink()
    return Restored(store.stat().st_size, seq, libraries, documents, replaced)


def _left(store: Path, old: tuple[int, int] | None) -> str | None:
    """A hint where the old store is after a failed restore; None if there was none."""
    if old is None:
        return None
    now = file_id(store)
    if now is None:
        return f"the old store is below {store.parent}; run the same restore again to continue"
    return "the old store is as it was" if now == old else f"the backup is in place, the old store below {store.parent}"


def _with_companions(path: Path) -> tuple[Path, ...]:
    """A store's file, and the files that SQLite keeps beside it."""
    return path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))


def _check_place(backup: Path, store: Path) -> None:
    """Checks that need not read the backup. Raises VecError `not_found`, `invalid_request`."""
    if not backup.exists():
        raise VecError(Code.NOT_FOUND, f"file {backup} does not exist")
    if not backup.is_file():
        raise VecError(Code.INVALID_REQUEST, f"{backup} is not a regular file")
    if store.exists() and backup.samefile(store):
        raise VecError(Code.INVALID_REQUEST, f"{backup} is the store itself")
    log = backup.with_name(backup.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{backup} is not a backup: its last writes are in {log}",
            "make backups with vec backup; or stop the daemon that uses the file",
        )


def _held(store: Path) -> str:
    """What the existing store holds, as a phrase that follows "it"; empty for one that never held anything. This
    checkpoints its write-ahead log."""
    if not store.exists() or not store.stat().st_size:
        return ""
    try:
        db = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            seq, libraries, documents = _counted(db)
        finally:
            db.close()
    except apsw.Error:
        return "cannot be read"
    held = f"{documents:,} document{'s' * (documents != 1)} in {libraries:,} librar{'y' if libraries == 1 else 'ies'}"
    return f"holds {held}" if seq else ""


def _counted(db: apsw.Connection) -> tuple[int, int, int]:
    """The log's head, and the numbers of libraries and documents."""
    counted: tuple[int, int, int] = db.execute(
        "SELECT (SELECT seq FROM log), count(*), coalesce(sum(documents), 0) FROM libraries WHERE deleted_seq IS NULL"
    ).get
    return counted


def _copy(backup: Path, made: Path) -> None:
    """Copies or unpacks the backup. Raises OSError, or VecError `damaged`."""
    for each in _with_companions(made):
        each.unlink(missing_ok=True)
    with open(backup, "rb") as file, open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        packed = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        try:
            shutil.copyfileobj(gzip.GzipFile(fileobj=file) if packed else file, copy, limits.MIB)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise VecError(Code.DAMAGED, f"{backup} is damaged: {error}", "use another backup") from error


def _check(made: Path, backup: Path) -> tuple[int, int, int]:
    """Checks and syncs the copy; returns its counts. Raises VecError, or OSError."""
    with open(made, "rb") as file:
        if file.read(len(_SQLITE)) != _SQLITE:
            raise VecError(Code.INVALID_REQUEST, f"{backup} is not a backup of vec", "make backups with vec backup")
    try:
        db = apsw.Connection(str(made), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            if db.pragma("application_id") != APPLICATION_ID:
                raise VecError(Code.INVALID_REQUEST, f"{backup} is an SQLite file, but not a backup of vec")
            if (version := int(db.pragma("user_version"))) > len(MIGRATIONS):
                raise VecError(
                    Code.INVALID_REQUEST,
                    f"{backup} has schema {version}, but this version of vec supports schemas up to {len(MIGRATIONS)}",
                    "it was made by a newer version: upgrade vec",
                )
            if (found := db.execute("PRAGMA quick_check(1)").get) != "ok":
                raise VecError(Code.DAMAGED, f"{backup} is damaged: {found}", "use another backup")
            counted = _counted(db)
        finally:
            db.close()
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
        raise VecError(Code.DAMAGED, f"{backup} is damaged: {error}", "use another backup") from error
    except apsw.Error as error:
        raise translated(error, made) from error
    sync_file(made)
    return counted


def _put_in_place(made: Path, store: Path) -> Path | None:
    """Renames the copy to the store's name; returns the folder that holds the old store, if any. Raises OSError."""
    _, *companions = _with_companions(store)
    left = [each for each in companions if each.exists()]
    old = [each for each in (store, *left) if each.exists() and each.stat().st_size]
    derived = [each for each in (store.parent / "indexes", store.parent / "spool") if each.exists()]
    aside = _new_folder(store.parent) if old else None
    if aside is not None and store in old and not left:
        _link(store, aside / store.name)  # a link, so that a store exists at any time
    elif aside is not None:  # the log could not be checkpointed; no daemon may start with only one of the files
        for each in old:
            os.replace(each, aside / each.name)
    for each in left:
        each.unlink(missing_ok=True)  # empty ones; the others have been moved
    rename(made, store)
    for each in derived:
        if aside is None:
            aside = _new_folder(store.parent)
        os.replace(each, aside / each.name)
    if aside is not None:
        sync_folder(aside)
    sync_folder(store.parent)
    return aside


def _link(path: Path, to: Path) -> None:
    """Creates a hard link; on a file system without them, renames the file. Raises OSError."""
    try:
        os.link(path, to)
    except OSError:
        os.replace(path, to)


def _new_folder(parent: Path) -> Path:
    name = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for number in range(1, 1_000):
        with contextlib.suppress(FileExistsError):
            folder = parent / (name if number == 1 else f"{name}-{number}")
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(parent / name))
