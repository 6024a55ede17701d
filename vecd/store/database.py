"""The SQLite database: one writer thread with group commit, one read connection per thread.

Rules:
- One thread writes. It commits the queued writes of all senders, in fair order (write_queue.py), as one transaction,
  and completes their futures when the transaction is on disk (WAL, synchronous=FULL). Each write runs in a savepoint,
  so one that fails does not affect the others.
- After the commit the writer thread calls `on_commit`, then advances `head` and `catalogue`, then calls `on_published`,
  and only then completes the futures. So a reader that reads up to `head` finds everything applied.
- If storage fails, no write is acknowledged. A full disk, or another program's lock, fails the transaction, and the
  daemon continues. Any other I/O error has an unknown outcome (SQLite may hide a row now and show it after reopening),
  so the writer calls `on_fatal` and stops. The same holds for checkpoints, so the writer runs them itself.
- On a full disk it must still be possible to free space. The file is allocated before the commit that makes it grow, so
  a checkpoint never needs space, and the write-ahead log can be restarted and its space reused. A reserve file beside
  the store is deleted, in parts, for writes that free something (deletes, cancels, trims) if there is no other space.
  Such a write may run twice: it is repeated after a rollback.
- The write-ahead log grows while a reader holds an old snapshot. Without such a reader it is truncated to WAL_PAGES, at
  most WAL_LOOK_S after the last write.
- Files that are removed, replaced, overwritten or truncated while the daemon has them open are a fatal error
  (file_identity.py). If only the write-ahead log was removed, its contents are first copied into the store.
- Read connections see committed data only.

Knows nothing of event loops: results are delivered through concurrent.futures.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw
import orjson

from .. import limits
from ..errors import Code, VecError
from . import events, file_identity
from .catalogue import Catalogue, read_catalogue
from .schema import PAGE_BYTES, migrate
from .transaction import Commit, Moment, Transaction
from .write_queue import WriteQueue

#: SQLite errors caused by the environment. Others, such as a violated constraint, are bugs, and are logged as such.
_ENVIRONMENT_ERRORS = (
    apsw.BusyError, apsw.LockedError, apsw.CantOpenError, apsw.NoMemError, apsw.ReadOnlyError, apsw.PermissionsError,
    apsw.ProtocolError,
)  # fmt: skip

T = TypeVar("T")
log = logging.getLogger("vecd.store")

#: errno values that mean that there is no space for a write.
FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

#: SQLite 3.7.0 to 3.51.2 can corrupt a WAL file when a checkpoint races with a writer (fixed in 3.51.3).
SQLITE_VERSION_MIN = (3, 51, 3)


@dataclass(slots=True)
class _Write:
    run: Callable[[Transaction], Any]
    rows: int
    future: Future[Any]
    frees: bool = False
    result: Any = None
    error: BaseException | None = None


class Database:
    """The store's database. `open`, then `submit` writes and read in a `snapshot`, then `close`."""

    def __init__(
        self,
        path: Path,
        on_commit: Callable[[Commit], None],
        on_fatal: Callable[[VecError], None],
        on_published: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._on_commit = on_commit
        self._on_fatal = on_fatal
        self._on_published = on_published
        self._queue: WriteQueue[_Write] = WriteQueue(limits.TRANSACTION_ROWS_MAX)
        self._thread = threading.Thread(target=self._write_forever, name="vecd-writer", daemon=True)
        self._readers = threading.local()
        self._open_readers: list[apsw.Connection] = []
        self._lock = threading.Lock()  # guards _open_readers, _closed and the order of _queue's end mark
        self._closed = False
        self._failed: VecError | None = None
        self.log_id = ""
        self.head = 0  # the last committed seq
        self.head_time_us = 0
        self.horizon = 0  # the last seq that was trimmed away
        self._label = 0
        self._reserve = path.with_name("reserve")
        self._reserve_at = 0.0  # when to try to restore it next
        self._short = False  # the last try found too little space for all of it
        self._db: apsw.Connection
        self._page_bytes = PAGE_BYTES
        self._fd = -1  # of the file, to allocate its growth
        self._wal_pages = 0  # in the write-ahead log after the last commit
        self._checkpoint_at = limits.WAL_PAGES
        self._giving_back = False  # the last commit freed pages at the file's end, and more may follow
        self._shrink_due = False  # pages were freed, and the file is not truncated yet
        self._erase_due = False  # the write-ahead log holds deleted data, and must be emptied
        self._shrink_at = 0.0  # when to try either next: readers prevented it
        self.tight = False  # the disk was full, and the reserve is not restored yet
        self._identity = file_identity.FileIdentity(path)
        self.catalogue: Catalogue
        self.moment: Moment  # head, label and catalogue of one commit; replaced as a whole

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or creates the file and starts the writer. Raises VecError `storage_failed`."""
        check_sqlite()
        file_identity.refuse_loss(self.path)
        try:
            while True:
                try:
                    self._open()
                    break
                except apsw.Error as error:
                    # The write-ahead log and its index need space before anything can be read.
                    if not self._is_full(error) or not self._give_up_reserve():
                        raise
                self.tight = True
                self._disconnect()
        except apsw.Error as error:
            raise self._translated(error) from error
        self._identity.open()
        try:
            file_identity.mark(self.path, self.log_id)
        except OSError as error:
            log.warning("the store's marker is not written", extra={"error": str(error)})
        self._thread.start()

    def _open(self) -> None:
        self._db = self._connect(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        self._db.pragma("cache_size", -limits.WRITER_CACHE_KIB)
        if not self._db.pragma("page_count"):
            self._db.pragma("page_size", PAGE_BYTES)
            self._db.pragma("auto_vacuum", "incremental")  # so that a vacuum can truncate the file
        if (mode := self._db.pragma("journal_mode", "wal")) != "wal":
            raise VecError(
                Code.STORAGE_FAILED,
                f"{self.path} cannot use a write-ahead log (SQLite says {mode!r})",
                "if it is on a network file system, move VEC_HOME to a local disk",
            )
        self._db.pragma("synchronous", "full")
        self._db.pragma("secure_delete", 1)  # overwrites deleted data in the file's free space, too
        self._db.pragma("temp_store", "memory")  # above all the rollback data of savepoints
        # SQLite's automatic checkpoints ignore their result, and a failed fsync of the file must be noticed.
        self._db.set_wal_hook(self._note_wal)
        migrate(self._db, str(self.path))
        self._page_bytes = int(self._db.pragma("page_size"))
        self._db.pragma("journal_size_limit", limits.WAL_PAGES * self._page_bytes)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        row = self._db.execute("SELECT log_id, seq, label, time_us, horizon FROM log").get
        self.log_id, self.head, self._label, self.head_time_us, self.horizon = row
        self.catalogue = read_catalogue(self._db)
        self.moment = Moment(self.head, self._label, self.catalogue)

    def _disconnect(self) -> None:
        for connection in (*self._open_readers, *([self._db] if hasattr(self, "_db") else [])):
            with contextlib.suppress(apsw.Error):  # closing after a storage failure may fail again
                connection.close()
        # Only now: closing any descriptor of a file drops all POSIX locks that the process holds on it.
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Completes the queued writes, checkpoints, and closes every connection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.end()
        self._thread.join()
        try:
            self._check_files()
        except VecError as error:  # SQLite's close would checkpoint into, and remove, files that are not ours
            log.critical("the store is not closed", extra={"error": error.message})
            self._on_fatal(error)
            return
        self._disconnect()
        self._identity.close()
        if self._failed is None:
            self._keep_reserve()  # the write-ahead log has freed space; the next start needs some

    # --- writing ----------------------------------------------------------------------------------------------------

    def submit(
        self, run: Callable[[Transaction], T], rows: int = 1, frees: bool = False, sender: Hashable = None
    ) -> Future[T]:
        """Queues a write. The writes of one sender run in the order they were submitted; senders share the writer
        fairly. The default sender is the calling thread.

        The future completes when the write's transaction is on disk. It raises what `run` raised, or VecError
        `storage_failed`, `disk_full`, `busy` or `shutting_down`. `rows` is the approximate size of the write. A write
        that `frees` space may use the reserve when the disk is full. `run` may be called twice, the second time after
        a rollback.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._failed is not None:
                future.set_exception(self._failed)
            elif self._closed:
                future.set_exception(VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later"))
            else:
                self._queue.put(sender or threading.get_ident(), _Write(run, rows, future, frees))
        return future

    def emptying_wal(self, tx: Transaction) -> int:
        """A write that has the write-ahead log checkpointed and emptied after its commit, even a short log. Only that
        removes deleted data from the log, and truncates the file. Returns 0, the number of rows written."""
        self._erase_due = True
        return 0

    def _write_forever(self) -> None:
        while (group := self._next()) is not None:
            # From here on a future cannot be cancelled; writes that were cancelled before are skipped.
            group = [write for write in group if write.future.set_running_or_notify_cancel()]
            if self._try(group):
                return

    def _next(self) -> list[_Write] | None:
        """The writes of the next transaction; None at the end of the queue, or after a fatal error. While the queue is
        empty, checks the files and maintains their space."""
        while (group := self._queue.take(self._idle_s())) is not None and not group:
            try:
                self._check_files()
                if self._wal_is_long() or self._is_cleanup_due():
                    self._checkpoint(self._emptying_mode())
            except BaseException as error:
                if self._fail([], error):
                    return None
            if self.tight:
                self._keep_reserve()
        return group

    def _idle_s(self) -> float:
        """How long to wait for a write before the files are checked and their space is maintained."""
        if self._wal_is_long() or self._is_cleanup_due():
            return min(limits.WAL_LOOK_S, limits.STORE_LOOK_S)
        return limits.STORE_LOOK_S

    def _try(self, group: list[_Write]) -> bool:
        """Commits a group, or fails its futures. True if storage failed for good."""
        restarted = False
        while group:
            try:
                self._commit(group)
                break
            except BaseException as error:
                if not self._is_full(error):
                    return self._fail(group, error)
                full = error
            self.tight = True
            self._roll_back()
            for write in group:
                write.result = write.error = None
            try:
                if not restarted and self._restart_wal():
                    restarted = True
                    continue
            except BaseException as error:
                return self._fail(group, error)
            self._fail([write for write in group if not write.frees], full)
            group = [write for write in group if write.frees]
            if group and not self._give_up_reserve():
                return self._fail(group, full)
        try:
            self._checkpoint()
        except BaseException as error:
            return self._fail([], error)
        if time.monotonic() >= self._reserve_at:
            self._keep_reserve()
        return False

    def _restart_wal(self) -> bool:
        """Checkpoints and restarts the write-ahead log, so that the next commit reuses its space. Returns whether there
        is space to reuse."""
        if not self._wal_pages:
            return False
        self._checkpoint(apsw.SQLITE_CHECKPOINT_RESTART)
        return not self._wal_pages

    def _is_full(self, error: BaseException) -> bool:
        """Whether an error means that the disk is full. A failed fsync does not count: its data may be lost."""
        if isinstance(error, apsw.FullError):
            return True
        if isinstance(error, (apsw.IOError, apsw.CantOpenError)) and hasattr(self, "_db"):
            lost = getattr(error, "extendedresult", 0) in (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)
            return not lost and self._db.system_errno in FULL
        return False

    def _keep_reserve(self) -> None:
        """Restores the reserve, as far as there is space."""
        self._reserve_at = time.monotonic() + limits.RESERVE_LOOK_S
        try:
            with open(self._reserve, "ab", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                while size < limits.RESERVE_BYTES:
                    piece = min(limits.RESERVE_PIECE_BYTES, limits.RESERVE_BYTES - size)
                    size += file.write(os.urandom(piece))  # random, against file systems that compress
                    if size >= limits.RESERVE_BYTES:
                        os.fsync(file.fileno())
            self.tight = self._short = False
        except OSError as error:
            # A warning once only: this is repeated every few seconds, and the log may be on the same disk.
            log.log(
                logging.DEBUG if self._short else logging.WARNING,
                "no room for the whole reserve",
                extra={"error": str(error)},
            )
            self._short = True

    def _give_up_reserve(self) -> bool:
        """Frees a part of the reserve; returns whether there was any. The freed space goes to the write-ahead log,
        which keeps it: so each part is what one transaction may need."""
        self._reserve_at = time.monotonic() + limits.RESERVE_LOOK_S
        try:
            left = self._reserve.stat().st_size - limits.RESERVE_GIVEN_BYTES
            if left > 0:
                os.truncate(self._reserve, left)
            else:
                self._reserve.unlink()
        except OSError:
            return False
        log.warning("the disk is full: a part of the reserve is given up", extra={"bytes_left": max(0, left)})
        return True

    def _commit(self, group: list[_Write]) -> None:
        """One transaction: each write in its savepoint, the counters, the commit; then the callbacks, then the
        futures."""
        db = self._db
        now_us = self.now_us()
        tx = Transaction(db, now_us, self.head, self._label, self.catalogue, self.horizon)
        db.execute("BEGIN IMMEDIATE")
        for write in group:
            self._run(tx, write)
        if tx.seq != self.head:
            if now_us < self.head_time_us:
                events.note_clock_back(db, self.head, now_us)
            db.execute("UPDATE log SET seq = ?, label = ?, time_us = ?", (tx.seq, tx.label, tx.time_us))
            self.head_time_us = now_us
        self._allocate()
        db.execute("COMMIT")
        self._shrink_due = self._shrink_due or tx.gave_back
        self._giving_back = tx.gave_back
        self._check_files()
        self._on_commit(Commit(tx.seq, tx.catalogue, tx.changes, tx.jobs))
        self._label = tx.label
        self.catalogue = tx.catalogue  # before the head, so that a reader of the head finds its libraries
        self.horizon = tx.horizon
        self.moment = Moment(tx.seq, tx.label, tx.catalogue)
        self.head = tx.seq
        self._on_published()
        for write in group:
            if write.error is not None:
                write.future.set_exception(write.error)
            else:
                write.future.set_result(write.result)

    def now_us(self) -> int:
        """Microseconds since the epoch, at least the last event's time. If the machine's clock has been set back by
        more than CLOCK_BACK_S, it was ahead before, and the log's times follow it back."""
        wall_us = time.time_ns() // 1000
        return wall_us if self.head_time_us - wall_us > limits.CLOCK_BACK_S * 1e6 else max(wall_us, self.head_time_us)

    def _run(self, tx: Transaction, write: _Write) -> None:
        seq, label, catalogue, horizon = tx.seq, tx.label, tx.catalogue, tx.horizon
        changes, jobs = len(tx.changes), len(tx.jobs)
        tx.db.execute("SAVEPOINT write")
        try:
            write.result = write.run(tx)
            tx.db.execute("RELEASE write")
        except (apsw.IOError, apsw.FullError, apsw.CorruptError, apsw.NotADBError):
            raise
        except Exception as error:
            tx.db.execute("ROLLBACK TO write; RELEASE write")
            tx.seq, tx.label, tx.catalogue, tx.horizon = seq, label, catalogue, horizon
            del tx.changes[changes:]
            del tx.jobs[jobs:]
            write.error = translated(error, self.path) if isinstance(error, _ENVIRONMENT_ERRORS) else error

    def _note_wal(self, _: apsw.Connection, __: str, pages: int) -> int:
        if pages < self._wal_pages:
            self._checkpoint_at = limits.WAL_PAGES  # SQLite has restarted the log
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _allocate(self) -> None:
        """Allocates the file's growth before the commit, so that the later checkpoint cannot find the disk full. Raises
        apsw.FullError."""
        wanted = int(self._db.pragma("page_count")) * self._page_bytes
        size = os.fstat(self._fd).st_size
        for ahead in (limits.ALLOCATED_AHEAD_BYTES, 0):
            if wanted <= size:
                return
            try:
                _extend(self._fd, size, wanted + ahead)
                return
            except OSError as error:
                full = error
                if error.errno not in FULL:
                    raise
        raise apsw.FullError(f"the file cannot grow: {full.strerror}")

    def _wal_is_long(self) -> bool:
        """Whether the write-ahead log is longer than its kept size."""
        return self._wal_pages > limits.WAL_PAGES

    def _is_cleanup_due(self) -> bool:
        """Whether the file must be truncated, or the log emptied, as soon as no reader prevents it."""
        return self._shrink_due or self._erase_due

    def _emptying_mode(self) -> int:
        """The mode of a checkpoint that empties the log. On a full disk the log keeps its space from other programs."""
        return apsw.SQLITE_CHECKPOINT_RESTART if self.tight else apsw.SQLITE_CHECKPOINT_TRUNCATE

    def _checkpoint(self, mode: int | None = None) -> None:
        """Copies a long write-ahead log back into the file. The log cannot restart while a reader uses it; if it is
        overdue, this waits for readers. With a `mode`, checkpoints a log of any length."""
        overdue = self._wal_pages >= limits.WAL_PAGES_OVERDUE
        if mode is None:
            if self._is_cleanup_due() and not self._giving_back and time.monotonic() >= self._shrink_at:
                mode = self._emptying_mode()
            elif self._wal_pages < self._checkpoint_at:
                return
            elif overdue:
                mode = apsw.SQLITE_CHECKPOINT_RESTART
            else:
                mode = apsw.SQLITE_CHECKPOINT_PASSIVE
        self._db.set_busy_timeout(limits.CHECKPOINT_WAIT_MS)
        try:
            pages, copied = self._db.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            self._shrink_at = time.monotonic() + limits.SHRINK_LOOK_S  # each try delays a commit
            log.debug("checkpoint held up by readers", extra={"wal_pages": self._wal_pages})
        except apsw.Error as error:
            if not self._is_full(error):
                raise
            log.warning("no room for a checkpoint", extra={"wal_pages": self._wal_pages})
        else:
            if mode != apsw.SQLITE_CHECKPOINT_PASSIVE:
                self._wal_pages = 0  # all pages are copied and no reader uses the log: the next commit restarts it
                self._checkpoint_at = limits.WAL_PAGES
                self._shrink_due = False
                self._erase_due = self._erase_due and mode != apsw.SQLITE_CHECKPOINT_TRUNCATE
                if self._erase_due:
                    self._shrink_at = time.monotonic() + limits.SHRINK_LOOK_S
                return
            self._shrink_due = self._shrink_due and pages != copied
        finally:
            self._db.set_busy_timeout(limits.LOCK_WAIT_MS)
        between = limits.WAL_PAGES_BETWEEN if overdue else limits.WAL_PAGES // 2  # not at every commit
        self._checkpoint_at = self._wal_pages + between

    def _check_files(self) -> None:
        """Raises VecError `storage_failed` if the store's files are not the ones that were opened. What only a removed
        write-ahead log holds is saved before."""
        try:
            self._identity.check()
        except VecError as error:
            if self._failed is None and self._identity.only_log_is_removed:
                raise self._rescue() from error
            raise

    def _rescue(self) -> VecError:
        """Copies the write-ahead log, whose name is gone, into the store. The error that says so."""
        what = f"the write-ahead log of the store {self.path} was removed while vecd had it open"
        hint = "put the file back, or restore a backup: vec restore FILE"
        try:
            pages, copied = self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_FULL)
        except apsw.Error as error:
            return VecError(Code.STORAGE_FAILED, f"{what}, and what it held could not be saved ({error})", hint)
        if copied < pages:
            return VecError(
                Code.STORAGE_FAILED, f"{what}, and only {copied:,} of its {pages:,} pages could be saved", hint
            )
        return VecError(
            Code.STORAGE_FAILED,
            f"{what}; all that it held has been saved in the store ({pages:,} pages), and nothing more is written",
            "start vecd again",
        )

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._db.execute("ROLLBACK")

    def _fail(self, group: list[_Write], error: BaseException) -> bool:
        """Rolls back and fails the group's futures. Returns True if the failure is fatal: any but a full disk or a
        lock."""
        reported = self._translated(error) if isinstance(error, apsw.Error) else error
        self._roll_back()
        if isinstance(error, apsw.IOError):
            try:
                self._check_files()
            except VecError as cause:
                reported = cause
        fatal = not (isinstance(reported, VecError) and reported.code in (Code.DISK_FULL, Code.BUSY))
        if fatal:
            failure = (
                reported
                if isinstance(reported, VecError)
                else VecError(Code.STORAGE_FAILED, f"the writer died: {reported!r}")
            )
            log.critical("storage failed", exc_info=error, extra={"error": failure.message})
            with self._lock:
                self._failed = failure
            group += [write for write in self._queue.drain() if write.future.set_running_or_notify_cancel()]
            self._on_fatal(failure)
            reported = failure
        for write in group:
            if not write.future.done():
                write.future.set_exception(reported)
        return fatal

    def _translated(self, error: apsw.Error) -> VecError:
        return translated(apsw.FullError() if self._is_full(error) else error, self.path)

    # --- reading ----------------------------------------------------------------------------------------------------

    def reader(self) -> apsw.Connection:
        """This thread's read connection."""
        connection: apsw.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._connect(apsw.SQLITE_OPEN_READONLY)
            connection.pragma("cache_size", -limits.READER_CACHE_KIB)
            self._readers.connection = connection
            with self._lock:
                self._open_readers.append(connection)
        return connection

    @contextlib.contextmanager
    def read_transaction(self) -> Iterator[apsw.Connection]:
        """This thread's read connection inside a read transaction: all reads see the state after one commit.

        Raises VecError `storage_failed`, or `damaged` for data that cannot be decoded.
        """
        try:
            db = self.reader()
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")
        except apsw.Error as error:
            raise translated(error, self.path) from error
        except (UnicodeDecodeError, orjson.JSONDecodeError) as error:  # the data was valid when it was written
            raise VecError(
                Code.DAMAGED,
                f"something in the store {self.path} cannot be read ({error})",
                "run vec verify for details; restore a backup",
            ) from error

    def _connect(self, flags: int) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=flags, statementcachesize=200)
        connection.set_busy_timeout(limits.LOCK_WAIT_MS)
        return connection


def _extend(fd: int, size: int, wanted: int) -> None:
    """Extends a file from `size` to `wanted` bytes, and allocates them on the disk. Raises OSError."""
    if sys.platform != "darwin":
        try:
            os.posix_fallocate(fd, size, wanted - size)
            return
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
                raise
    zeros = memoryview(bytes(wanted - size))
    while size < wanted:
        size += os.pwrite(fd, zeros[size - wanted :], size)


def check_sqlite(version: str | None = None) -> None:
    """Raises VecError `storage_failed` for a version of SQLite that can corrupt a write-ahead log."""
    found = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in found.split(".")) < SQLITE_VERSION_MIN:
        raise VecError(
            Code.STORAGE_FAILED,
            f"apsw contains SQLite {found}, in which a race condition can corrupt the write-ahead log",
            f"install an apsw with SQLite {'.'.join(map(str, SQLITE_VERSION_MIN))} or later: pip install -U apsw",
        )


def translated(error: apsw.Error, path: Path) -> VecError:
    """The VecError for an error of SQLite."""
    if isinstance(error, apsw.FullError):
        return VecError(
            Code.DISK_FULL,
            f"no space left for {path}; nothing was written",
            "free some space, then try again; vec delete and vec trim --keep-count 0 --wait work on a full disk",
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return VecError(Code.BUSY, f"another program holds a lock on {path}; nothing was written", "try again")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return VecError(Code.STORAGE_FAILED, f"the store {path} is damaged ({error})", "restore it from a backup")
    if isinstance(error, apsw.NoMemError):
        return VecError(Code.BUSY, f"not enough memory for {path}; nothing was written", "try again later")
    if isinstance(error, apsw.CantOpenError):
        if _out_of_descriptors():
            return VecError(
                Code.BUSY,
                f"no file descriptor is left for {path}; nothing was written",
                "try again later, with fewer connections; or raise the limit (ulimit -n)",
            )
        return VecError(
            Code.STORAGE_FAILED, f"cannot open {path} or a file beside it", "check that it exists and is readable"
        )
    return VecError(Code.STORAGE_FAILED, f"the store {path} failed: {type(error).__name__}: {error}")


def _out_of_descriptors() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
