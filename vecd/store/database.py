"""One SQLite file: the writer thread with group commit, and read connections.

Rules:
- One thread writes. It takes whatever work is waiting, from all connections, as one transaction, and answers when the
  transaction is on disk (WAL, synchronous=FULL). Each piece of work runs in a savepoint, so that one that fails takes
  nothing with it.
- After the commit, and before anybody is answered, `on_commit` is told, in commit order, on the writer thread; then
  `head` and `catalogue` move, and `on_published` is told. So whoever reads up to `head` finds everything applied.
- If storage fails, nobody is answered OK. A full disk, or another program's lock, fails the transaction and the daemon
  goes on; any other I/O error cannot be undone (SQLite may hide a row now and show it after reopening), so `on_fatal`
  is told and the writer takes nothing more. That holds for checkpoints too, which is why the writer makes them itself.
- A full disk must not keep anybody from making room: a file beside the store is held in reserve, and given up for work
  that frees something (deletes, cancels) when there is no space for it otherwise.
- Files that were removed, replaced or overwritten under the daemon are such an error: presence.py.
- Readers use connections of their own, one a thread; they see committed data only.

Knows nothing of event loops: work is answered through concurrent.futures.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw
import orjson

from .. import limits
from ..errors import Code, VecError
from . import presence
from .catalogue import Catalogue, read_catalogue
from .schema import PAGE_BYTES, migrate
from .transaction import Commit, Moment, Transaction

#: Errors of SQLite that say something about the machine. Others, such as a constraint that does not hold, are bugs, and
#: are logged as such.
_NO_BUGS = (
    apsw.BusyError, apsw.LockedError, apsw.CantOpenError, apsw.NoMemError, apsw.ReadOnlyError, apsw.PermissionsError,
    apsw.ProtocolError,
)  # fmt: skip

T = TypeVar("T")
log = logging.getLogger("vecd.store")

#: SQLite 3.7.0 to 3.51.2 can corrupt a WAL file when a checkpoint races with a writer (fixed in 3.51.3).
SQLITE_SOUND = (3, 51, 3)


@dataclass(slots=True)
class _Work:
    run: Callable[[Transaction], Any]
    rows: int
    future: Future[Any]
    frees: bool = False
    result: Any = None
    error: BaseException | None = None


class Database:
    """The store's file. `open` it, `submit` writes, `read`, `close` it."""

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
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_forever, name="vecd-writer", daemon=True)
        self._readers = threading.local()
        self._open_readers: list[apsw.Connection] = []
        self._lock = threading.Lock()  # guards _open_readers, _closed and the order of _waiting's end mark
        self._closed = False
        self._failed: VecError | None = None
        self.log_id = ""
        self.head = 0  # the last committed seq
        self.head_time_us = 0
        self.horizon = 0  # the last seq that was trimmed away
        self._label = 0
        self._reserve = path.with_name("reserve")
        self._reserve_at = 0.0  # when to look for room for it again
        self._wal_pages = 0  # in the write-ahead log after the last commit
        self._checkpoint_at = limits.WAL_PAGES
        self._empty_wal = False  # at the next checkpoint
        self._presence = presence.Presence(path)
        self.catalogue: Catalogue
        self.moment: Moment  # head, label and catalogue of one commit; replaced as a whole

    # --- life -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or makes the file and starts the writer. Raises VecError `storage_failed`."""
        check_sqlite()
        presence.refuse_loss(self.path)
        try:
            self._db = self._connect(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, limits.WRITER_CACHE_KIB)
            self._db.pragma("page_size", PAGE_BYTES)
            self._db.pragma("auto_vacuum", "incremental")  # of a new file; so that a trim can give space back
            if (mode := self._db.pragma("journal_mode", "wal")) != "wal":
                raise VecError(
                    Code.STORAGE_FAILED,
                    f"{self.path} cannot use a write-ahead log (SQLite says {mode!r})",
                    "is it on a network file system? Put VEC_HOME on a local disk",
                )
            self._db.pragma("synchronous", "full")
            self._db.pragma("secure_delete", 1)  # what the vacuum deletes is gone from the file's free space, too
            # SQLite's own checkpoints throw their result away, and a failed fsync of the file must not go unnoticed.
            self._db.set_wal_hook(self._note_wal)
            migrate(self._db, str(self.path))
            row = self._db.execute("SELECT log_id, seq, label, time_us, horizon FROM log").get
            self.log_id, self.head, self._label, self.head_time_us, self.horizon = row
            self.catalogue = read_catalogue(self._db)
            self.moment = Moment(self.head, self._label, self.catalogue)
        except apsw.Error as error:
            raise translated(error, self.path) from error
        self._presence.open()
        try:
            presence.mark(self.path, self.log_id)
        except OSError as error:
            log.warning("the store's marker is not written", extra={"error": str(error)})
        self._thread.start()

    def close(self) -> None:
        """Finishes the waiting writes, copies the write-ahead log back, closes every connection."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._waiting.put(None)
        self._thread.join()
        try:
            self._presence.check()
        except VecError as error:  # closing would copy the log back into, and remove, files that are not ours
            log.critical("the store is not closed", extra={"error": error.message})
            return
        for connection in (*self._open_readers, self._db):
            with contextlib.suppress(apsw.Error):  # closing after a storage failure may fail again
                connection.close()
        self._presence.close()

    # --- writing ----------------------------------------------------------------------------------------------------

    def submit(self, run: Callable[[Transaction], T], rows: int = 1, frees: bool = False) -> Future[T]:
        """Queues work for the writer; works of one caller run in the order they were submitted.

        The future is done when the work's transaction is on disk; it raises what the work raised, or VecError
        `storage_failed`, `disk_full`, `busy` or `shutting_down`. `rows` is about how much it writes; work
        that `frees` something may use the reserve when the disk is full.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._failed is not None:
                future.set_exception(self._failed)
            elif self._closed:
                future.set_exception(VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later"))
            else:
                self._waiting.put(_Work(run, rows, future, frees))
        return future

    def copy_back(self) -> Future[None]:
        """Has the write-ahead log copied back into the file, and emptied, behind the next commit, and not when it is
        long: only then does the file shrink by what was given back, and what was deleted is gone from the log."""

        def soon(_: Transaction) -> None:
            self._checkpoint_at = 0
            self._empty_wal = True

        return self.submit(soon)

    def _write_forever(self) -> None:
        ended = False
        while not ended:
            try:
                first = self._waiting.get(timeout=limits.STORE_LOOK_S)
            except queue.Empty:
                if self._lost():
                    return
                continue
            if first is None:
                return
            group, rows = [first], first.rows
            while rows < limits.TRANSACTION_ROWS_MAX and not ended:
                try:
                    work = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if work is None:
                    ended = True
                else:
                    group.append(work)
                    rows += work.rows
            # From here on a future cannot be cancelled; one that was before is not worked on.
            group = [work for work in group if work.future.set_running_or_notify_cancel()]
            if self._try(group):
                return

    def _lost(self) -> bool:
        """Whether the files are gone, though nobody writes. True if storage failed for good."""
        try:
            self._presence.check()
        except VecError as error:
            return self._fail([], error)
        return False

    def _try(self, group: list[_Work]) -> bool:
        """Commits a group, or tells it why not. True if storage failed for good."""
        try:
            self._commit(group)
            self._checkpoint()
        except apsw.FullError as error:
            freeing = [work for work in group if work.frees and not work.future.done()]
            if not freeing or not self._give_up_reserve():
                return self._fail(group, error)
            failed = self._fail([work for work in group if not work.frees], error)
            for work in freeing:
                work.result = work.error = None
            return failed or self._try(freeing)
        except BaseException as error:
            return self._fail(group, error)
        if time.monotonic() >= self._reserve_at:
            self._keep_reserve()
        return False

    def _keep_reserve(self) -> None:
        """Makes the reserve if it is not there and there is room for it."""
        self._reserve_at = time.monotonic() + limits.RESERVE_LOOK_S
        if self._reserve.exists():
            return
        try:
            with open(self._reserve, "xb") as file:
                for _ in range(limits.RESERVE_BYTES // limits.MIB):
                    file.write(os.urandom(limits.MIB))  # a file system that packs must not save on it
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.warning("no room for the reserve", extra={"error": str(error)})
            with contextlib.suppress(OSError):
                self._reserve.unlink(missing_ok=True)

    def _give_up_reserve(self) -> bool:
        """Whether there was one."""
        self._reserve_at = time.monotonic() + limits.RESERVE_LOOK_S
        try:
            self._reserve.unlink()
        except OSError:
            return False
        log.warning("the disk is full: the reserve is given up")
        return True

    def _commit(self, group: list[_Work]) -> None:
        """One transaction: every work in its savepoint, the counters, the commit; then the news, then the answers."""
        db = self._db
        now_us = self.now_us()
        tx = Transaction(db, now_us, self.head, self._label, self.catalogue, self.horizon)
        db.execute("BEGIN IMMEDIATE")
        for work in group:
            self._run(tx, work)
        if tx.seq != self.head:
            db.execute("UPDATE log SET seq = ?, label = ?, time_us = ?", (tx.seq, tx.label, tx.time_us))
            self.head_time_us = now_us
        db.execute("COMMIT")
        self._presence.check()
        self._on_commit(Commit(tx.seq, tx.catalogue, tx.changes, tx.jobs))
        self._label = tx.label
        self.catalogue = tx.catalogue  # before the head: whoever sees the head finds its libraries
        self.horizon = tx.horizon
        self.moment = Moment(tx.seq, tx.label, tx.catalogue)
        self.head = tx.seq
        self._on_published()
        for work in group:
            if work.error is not None:
                work.future.set_exception(work.error)
            else:
                work.future.set_result(work.result)

    def now_us(self) -> int:
        """Microseconds since the epoch; never before an event's time, whatever becomes of the machine's clock."""
        return max(time.time_ns() // 1000, self.head_time_us)

    def _run(self, tx: Transaction, work: _Work) -> None:
        seq, label, catalogue, horizon = tx.seq, tx.label, tx.catalogue, tx.horizon
        changes, jobs = len(tx.changes), len(tx.jobs)
        tx.db.execute("SAVEPOINT work")
        try:
            work.result = work.run(tx)
            tx.db.execute("RELEASE work")
        except (apsw.IOError, apsw.FullError, apsw.CorruptError, apsw.NotADBError):
            raise
        except Exception as error:
            tx.db.execute("ROLLBACK TO work; RELEASE work")
            tx.seq, tx.label, tx.catalogue, tx.horizon = seq, label, catalogue, horizon
            del tx.changes[changes:]
            del tx.jobs[jobs:]
            work.error = translated(error, self.path) if isinstance(error, _NO_BUGS) else error

    def _note_wal(self, _: apsw.Connection, __: str, pages: int) -> int:
        if pages < self._wal_pages:
            self._checkpoint_at = limits.WAL_PAGES  # it has begun anew
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _checkpoint(self) -> None:
        """Copies a long write-ahead log back into the file. While somebody reads, it cannot begin anew; when it has
        become much too long, the readers are waited for."""
        if self._wal_pages < self._checkpoint_at:
            return
        overdue = self._wal_pages >= 4 * limits.WAL_PAGES
        mode = apsw.SQLITE_CHECKPOINT_RESTART if overdue else apsw.SQLITE_CHECKPOINT_PASSIVE
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if self._empty_wal else mode
        self._db.set_busy_timeout(limits.CHECKPOINT_WAIT_MS)
        try:
            self._db.wal_checkpoint(mode=mode)
            self._empty_wal = False
        except apsw.BusyError:
            log.debug("checkpoint held up by readers", extra={"wal_pages": self._wal_pages})
        finally:
            self._db.set_busy_timeout(limits.LOCK_WAIT_MS)
        self._checkpoint_at = self._wal_pages + limits.WAL_PAGES // 2  # not at every commit

    def _fail(self, group: list[_Work], error: BaseException) -> bool:
        """The transaction did not happen. True if storage failed for good: anything but a full disk or a lock."""
        told = translated(error, self.path) if isinstance(error, apsw.Error) else error
        if self._db.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._db.execute("ROLLBACK")
        fatal = not (isinstance(told, VecError) and told.code in (Code.DISK_FULL, Code.BUSY))
        if fatal:
            failure = (
                told if isinstance(told, VecError) else VecError(Code.STORAGE_FAILED, f"the writer died: {told!r}")
            )
            log.critical("storage failed", exc_info=error, extra={"error": failure.message})
            with self._lock:
                self._failed = failure
            with contextlib.suppress(queue.Empty):
                while (work := self._waiting.get_nowait()) is not None:
                    if work.future.set_running_or_notify_cancel():
                        group.append(work)
            self._on_fatal(failure)
        for work in group:
            if not work.future.done():
                work.future.set_exception(told)
        return fatal

    # --- reading ----------------------------------------------------------------------------------------------------

    def reader(self) -> apsw.Connection:
        """This thread's read connection."""
        connection: apsw.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = self._connect(apsw.SQLITE_OPEN_READONLY, limits.READER_CACHE_KIB)
            self._readers.connection = connection
            with self._lock:
                self._open_readers.append(connection)
        return connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[apsw.Connection]:
        """This thread's read connection inside one read transaction: everything read is as of one commit.

        Raises VecError `storage_failed`, or `damaged` for what cannot be decoded.
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
        except (UnicodeDecodeError, orjson.JSONDecodeError) as error:  # of what was valid when it was written
            raise VecError(
                Code.DAMAGED,
                f"something in the store {self.path} cannot be read ({error})",
                "vec verify says what; restore a backup",
            ) from error

    def _connect(self, flags: int, cache_kib: int) -> apsw.Connection:
        connection = apsw.Connection(str(self.path), flags=flags, statementcachesize=200)
        connection.set_busy_timeout(limits.LOCK_WAIT_MS)
        connection.pragma("cache_size", -cache_kib)
        return connection


def check_sqlite(version: str | None = None) -> None:
    """Raises VecError `storage_failed` for an SQLite that can corrupt a write-ahead log."""
    found = version or apsw.sqlite_lib_version()
    if tuple(int(part) for part in found.split(".")) < SQLITE_SOUND:
        raise VecError(
            Code.STORAGE_FAILED,
            f"this apsw carries SQLite {found}, whose write-ahead log can be corrupted by a race",
            f"install an apsw with SQLite {'.'.join(map(str, SQLITE_SOUND))} or later: pip install -U apsw",
        )


def translated(error: apsw.Error, path: Path) -> VecError:
    """What SQLite says, as people are told it."""
    if isinstance(error, apsw.FullError):
        return VecError(
            Code.DISK_FULL, f"no space left for {path}; nothing of this was written", "free some space, then try again"
        )
    if isinstance(error, (apsw.BusyError, apsw.LockedError)):
        return VecError(Code.BUSY, f"another program holds a lock on {path}; nothing of this was written", "try again")
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return VecError(Code.STORAGE_FAILED, f"the store {path} is damaged ({error})", "restore it from a backup")
    if isinstance(error, apsw.NoMemError):
        return VecError(Code.BUSY, f"not enough memory for {path}; nothing of this was written", "try again later")
    if isinstance(error, apsw.CantOpenError):
        if _out_of_descriptors():
            return VecError(
                Code.BUSY,
                f"no file descriptor is left for {path}; nothing of this was written",
                "try again later, with fewer connections; or raise the limit (ulimit -n)",
            )
        return VecError(Code.STORAGE_FAILED, f"cannot open {path} or a file beside it", "is it there, and readable?")
    return VecError(Code.STORAGE_FAILED, f"the store {path} failed: {type(error).__name__}: {error}")


def _out_of_descriptors() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    return False
