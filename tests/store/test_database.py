"""The store's file: what is refused, what one transaction is, and that the log replayed is the tables."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.support.history import replayed
from tests.support.waiting import until
from vecd import limits
from vecd.errors import VecError
from vecd.store import documents, events, libraries, retention
from vecd.store.catalogue import Library
from vecd.store.database import Database, check_sqlite
from vecd.store.documents import DocumentBatch, Entry
from vecd.store.schema import APPLICATION_ID, MIGRATIONS, PAGE_BYTES
from vecd.store.transaction import Commit, Transaction

PLAN = Library(0, "notes", 2, "cosine", "flat", "none", 1_000)


def unexpected(failure: VecError) -> None:
    raise AssertionError(failure)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "vec.db", lambda _: None, unexpected)
    made.open()
    yield made
    made.close()


def batch(*given: tuple[str, int] | str) -> DocumentBatch:
    """Documents as (id, number): one chunk a document, its text and vector made of the number. A bare id: a delete."""
    entries: list[Entry] = []
    texts: list[str | None] = []
    rows: list[list[int]] = []
    for index, each in enumerate(given):
        if isinstance(each, str):
            entries.append(Entry(index, each, delete=True))
            continue
        document_id, number = each
        chunks = number % 3 + 1
        entries.append(Entry(index, document_id, False, None, "{}", f"{number:032x}", len(texts), chunks))
        texts += [f"{document_id} {number} {position}" for position in range(chunks)]
        rows += [[number, position] for position in range(chunks)]
    return DocumentBatch(entries, texts, texts, np.array(rows, np.float32).reshape(len(rows), 2))


def write(database: Database, *given: tuple[str, int] | str) -> list[str]:
    def run(tx: Transaction) -> list[str]:
        outcomes = documents.write(tx, tx.catalogue.find("notes"), batch(*given))
        return [outcome.status for outcome in outcomes]

    return database.submit(run).result(30)


def log_of(database: Database) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with database.read_transaction() as db:
        after = 0
        while after < database.head:
            rows = events.read(db, after, 7)
            for row in rows:
                name = database.catalogue.by_id[row.library_id].name if row.library_id is not None else None
                found += [event for event in events.expand(row, name) if event["seq"] > after]
            after = rows[-1].last_seq
    return found


def tables_of(database: Database) -> dict[str, dict[str, int]]:
    with database.read_transaction() as db:
        return {
            name: {
                each.id: each.chunks
                for each in documents.page(db, library.library_id, database.moment.label, "", 10_000)
            }
            for name, library in database.catalogue.by_name.items()
        }


# --- opening ----------------------------------------------------------------------------------------------------------


def test_commits_do_not_wait_for_readers_each_time_after_pages_were_given_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup reads one state for minutes, and meanwhile the vacuum gives pages back."""
    monkeypatch.setattr("vecd.limits.CHECKPOINT_WAIT_MS", 200)  # 50 such waits take far longer than 50 commits

    def give_back(tx: Transaction) -> None:
        tx.db.execute("INSERT INTO job_pauses VALUES ('')")
        tx.gave_back = True

    def touch(tx: Transaction) -> None:
        tx.db.execute("UPDATE job_pauses SET kind = kind")

    with database.read_transaction() as db:
        assert db.execute("SELECT log_id FROM log").get == database.log_id
        database.submit(give_back).result()
        began = time.monotonic()
        for _ in range(50):
            database.submit(touch).result()
        assert time.monotonic() - began < 50 * limits.CHECKPOINT_WAIT_MS / 1_000 / 2


def test_a_disk_that_stays_full_is_logged_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database.submit(lambda tx: None).result()
    with monkeypatch.context() as full:
        full.setattr(database, "_reserve", tmp_path / "no folder" / "reserve")
        for _ in range(3):
            database._keep_reserve()
    told = [each.levelname for each in caplog.records if each.message == "no room for the whole reserve"]
    assert told.count("WARNING") == 1


@pytest.mark.parametrize("version", ["3.7.0", "3.40.1", "3.51.0", "3.51.2", "3.6.23"])
def test_an_sqlite_that_can_corrupt_is_refused(version: str) -> None:
    with pytest.raises(VecError, match=f"SQLite {version}") as refusal:
        check_sqlite(version)
    assert "pip install" in (refusal.value.hint or "")


@pytest.mark.parametrize("version", ["3.51.3", "3.52.0", "3.100.0", "4.0"])
def test_a_sound_sqlite_is_taken(version: str) -> None:
    check_sqlite(version)


def test_a_commit_is_synced_to_a_write_ahead_log(database: Database) -> None:
    assert database._db.pragma("journal_mode") == "wal"
    assert database._db.pragma("synchronous") == 2  # FULL


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vec.db"
    foreign = apsw.Connection(str(path))
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    with pytest.raises(VecError, match="not a store of vecd"):
        Database(path, lambda _: None, unexpected).open()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vec.db"
    path.write_bytes(b"not a database at all, but long enough to look at" * 100)
    with pytest.raises(VecError, match="damaged") as refusal:
        Database(path, lambda _: None, unexpected).open()
    assert refusal.value.code == "storage_failed"


def test_a_file_of_a_newer_vecd_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vec.db"
    newer = apsw.Connection(str(path))
    newer.pragma("application_id", APPLICATION_ID)
    newer.pragma("user_version", len(MIGRATIONS) + 1)
    newer.close()
    with pytest.raises(VecError, match="newer version"):
        Database(path, lambda _: None, unexpected).open()


def test_the_log_id_and_the_counters_outlive_the_process(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    for _ in range(3):
        database = Database(tmp_path / "vec.db", lambda _: None, unexpected)
        database.open()
        if not database.catalogue.by_name:
            database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
        assert write(database, ("a", len(seen))) == ["added" if not seen else "updated"]
        seen.append((database.log_id, database.head, database._label))
        database.close()
    assert len({log_id for log_id, _, _ in seen}) == 1
    assert seen == sorted(seen)
    assert len({head for _, head, _ in seen}) == 3


def test_a_connection_that_cannot_be_opened_is_no_bug(database: Database, tmp_path: Path) -> None:
    def read() -> str:
        try:
            with database.read_transaction():
                return "read"
        except VecError as error:
            return error.code

    def within(limit: int | None) -> str:
        """What a reader's new connection meets when the process may have that many descriptors."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft if limit is None else limit, hard))
        try:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(read).result(30)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert within(None) == "read"
    free = os.dup(0)  # the lowest number that is free
    os.close(free)
    assert within(free) == "busy"
    (tmp_path / "vec.db").rename(tmp_path / "moved")
    assert within(None) == "storage_failed"
    (tmp_path / "moved").rename(tmp_path / "vec.db")
    assert within(None) == "read"


def test_an_error_of_sqlite_that_is_no_bug_is_told_as_what_it_is(database: Database) -> None:
    def run(tx: Transaction) -> None:
        apsw.Connection(str(database.path / "nowhere"))

    with pytest.raises(VecError) as failure:
        database.submit(run).result(30)
    assert failure.value.code == "storage_failed"
    with pytest.raises(apsw.ConstraintError):  # a bug, whose traceback is logged
        database.submit(lambda tx: tx.db.execute("INSERT INTO log SELECT * FROM log")).result(30)
    assert database.submit(lambda tx: "goes on").result(30) == "goes on"


# --- one transaction --------------------------------------------------------------------------------------------------


def test_waiting_writes_share_a_transaction_and_one_that_fails_takes_nothing_with_it(tmp_path: Path) -> None:
    commits: list[Commit] = []
    database = Database(tmp_path / "vec.db", commits.append, unexpected)
    database.open()
    try:
        database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
        hold = threading.Event()
        started = threading.Event()

        def wait(tx: Transaction) -> None:
            started.set()
            assert hold.wait(30)

        def fail(tx: Transaction) -> None:
            documents.write(tx, tx.catalogue.find("notes"), batch(("lost", 1)))
            raise RuntimeError("a bug in one of them")

        first = database.submit(wait)
        assert started.wait(30)
        before = len(commits)
        good = [
            database.submit(
                lambda tx, n=n: documents.write(tx, tx.catalogue.find("notes"), batch((f"d{n}", n)))  # type: ignore[misc]
            )
            for n in range(5)
        ]
        bad = database.submit(fail)
        more = database.submit(lambda tx: documents.write(tx, tx.catalogue.find("notes"), batch(("more", 1))))
        hold.set()
        first.result(30)
        for future in (*good, more):
            assert [outcome.status for outcome in future.result(30)] == ["added"]
        with pytest.raises(RuntimeError, match="a bug"):
            bad.result(30)
        assert len(commits) - before <= 2, "they were not taken together"
        assert set(tables_of(database)["notes"]) == {"d0", "d1", "d2", "d3", "d4", "more"}
        assert replayed(log_of(database)) == tables_of(database)
    finally:
        database.close()


def test_the_news_of_a_commit_comes_before_anybody_is_answered(tmp_path: Path) -> None:
    heard: list[int] = []
    database = Database(tmp_path / "vec.db", lambda commit: heard.append(commit.seq), unexpected)
    database.open()
    try:
        database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
        for number in range(50):
            write(database, (f"d{number}", number))
            assert heard[-1] == database.head
    finally:
        database.close()


def test_after_close_writes_are_refused_as_shutting_down(tmp_path: Path) -> None:
    database = Database(tmp_path / "vec.db", lambda _: None, unexpected)
    database.open()
    database.close()
    with pytest.raises(VecError) as refusal:
        database.submit(lambda tx: None).result(30)
    assert refusal.value.code == "shutting_down"


def test_the_vectors_of_a_library_are_read_in_the_order_of_their_labels(database: Database) -> None:
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    numbers = np.random.default_rng(5).permutation(6_000).tolist()
    for start in range(0, 6_000, 1_000):
        write(database, *((f"{number}", number) for number in numbers[start : start + 1_000]))
    write(database, *(f"{number}" for number in range(0, 6_000, 7)))
    with database.read_transaction() as db:
        pages = list(
            documents.vectors(db, documents.living(db, database.catalogue.find("notes").library_id), lambda *_: None)
        )
        labels = np.concatenate([page[0] for page in pages])
        rows = np.frombuffer(b"".join(page[1] for page in pages), "<f4").reshape(-1, 2)
        assert (np.diff(labels) > 0).all()
        texts = documents.chunk_rows(db, labels.tolist(), lambda *_: None)
    assert len(labels) == database.catalogue.find("notes").chunks
    for label, row in zip(labels.tolist(), rows.tolist(), strict=True):
        document_id, position, _, text, *_ = texts[label]
        assert row == [float(document_id), position]
        assert text == f"{document_id} {document_id} {position}"


def test_a_time_in_the_log_is_found_by_halving(database: Database) -> None:
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    times: list[tuple[int, int]] = [(0, database.head_time_us)]
    for number in range(40):
        before = database.head
        write(database, (f"d{number}", number))
        times.append((before, database.head_time_us))
    with database.read_transaction() as db:
        for before, at in times:
            assert events.seq_at(db, at) <= before
            assert events.seq_at(db, at + 1) >= before
        assert events.seq_at(db, 0) == 0
        assert events.seq_at(db, times[-1][1] + 1) == database.head


def test_rows_that_are_trimmed_and_not_deleted_yet_mislead_no_search_by_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is a day ahead for one write. The trim removes its mark, and the vacuum has not removed its row."""
    hour_us = 3_600_000_000
    real_us = database.now_us
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    for document_id, ahead in (("before", 0), ("ahead", 24 * hour_us), ("after", 0)):
        monkeypatch.setattr(database, "now_us", lambda ahead=ahead: real_us() + ahead)
        write(database, (document_id, 1))
    horizon = database.head
    monkeypatch.setattr(database, "now_us", lambda: real_us() + 2 * hour_us)
    write(database, ("later", 1))
    database.submit(lambda tx: retention.trim(tx, horizon)).result(30)
    with database.read_transaction() as db:
        now_us = real_us() + 4 * hour_us
        assert events.seq_at(db, now_us - hour_us, now_us) == database.head
        assert events.seq_at(db, now_us - 3 * hour_us, now_us) == horizon
        assert events.seq_at(db, 0, now_us) == horizon


# --- against a dict ---------------------------------------------------------------------------------------------------


class StoreAgainstADict(RuleBasedStateMachine):
    """Batches, libraries made and deleted, the file closed and opened, in any order."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "vec.db"
        self.there: dict[str, int] | None = None
        self._open()

    def _open(self) -> None:
        self.database = Database(self._path, lambda _: None, unexpected)
        self.database.open()

    @precondition(lambda self: self.there is None)
    @rule()
    def create(self) -> None:
        self.database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
        self.there = {}

    @precondition(lambda self: self.there is not None)
    @rule()
    def drop(self) -> None:
        self.database.submit(lambda tx: libraries.delete(tx, "notes")).result(30)
        self.there = None

    @precondition(lambda self: self.there is not None)
    @rule(
        given=st.lists(
            st.one_of(
                st.tuples(st.sampled_from("abcdef"), st.integers(0, 4)),
                st.sampled_from("abcdef"),
            ),
            max_size=12,
        )
    )
    def write(self, given: list[tuple[str, int] | str]) -> None:
        assert self.there is not None
        wanted = []
        for each in given:
            if isinstance(each, str):
                wanted.append("deleted" if self.there.pop(each, None) is not None else "unchanged")
                continue
            document_id, number = each
            before = self.there.get(document_id)
            wanted.append("added" if before is None else "unchanged" if before == number else "updated")
            self.there[document_id] = number
        assert write(self.database, *given) == wanted

    @rule()
    def reopen(self) -> None:
        self.database.close()
        self._open()

    @rule()
    def look(self) -> None:
        wanted = {} if self.there is None else {"notes": {key: n % 3 + 1 for key, n in self.there.items()}}
        assert tables_of(self.database) == wanted
        assert replayed(log_of(self.database)) == wanted
        if self.there is not None:
            library = self.database.catalogue.find("notes")
            assert library.documents == len(self.there)
            assert library.chunks == sum(wanted["notes"].values())
            with self.database.read_transaction() as db:
                found = documents.get(db, library.library_id, [*sorted(self.there), "never"])
                assert found.pop() is None
                there = [document for document in found if document is not None]
                assert [document.id for document in there] == sorted(self.there)
                documents.fill(db, there, vectors=True)
                for document in there:
                    number = self.there[document.id]
                    assert document.texts == [f"{document.id} {number} {p}" for p in range(number % 3 + 1)]
                    rows = np.array([[number, p] for p in range(number % 3 + 1)], "<f4")
                    assert document.vectors == [row.tobytes() for row in rows]

    def teardown(self) -> None:
        try:
            self.look()
        finally:
            self.database.close()
            self._folder.cleanup()


TestStoreAgainstADict = StoreAgainstADict.TestCase
TestStoreAgainstADict.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


# --- the write-ahead log ----------------------------------------------------------------------------------------------


def test_a_log_that_grew_beside_a_reader_is_cut_back_when_nothing_is_written_any_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecd.limits.WAL_LOOK_S", 0.01)
    monkeypatch.setattr("vecd.limits.WAL_PAGES", 20)
    wal = database.path.with_name("vec.db-wal")
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    reader = apsw.Connection(str(database.path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM documents").get == 0
    for number in range(100):
        write(database, (f"d{number}", number))
    assert wal.stat().st_size > 100 * PAGE_BYTES
    reader.execute("COMMIT")
    until(lambda: wal.stat().st_size <= 20 * PAGE_BYTES, "a shorter log")
    reader.close()
    write(database, ("later", 1))
    assert tables_of(database)["notes"]["later"]


def test_a_checkpoint_needs_no_space(database: Database) -> None:
    database.submit(lambda tx: libraries.create(tx, PLAN)).result(30)
    for start in range(0, 2_000, 100):
        write(database, *((f"d{number}", number) for number in range(start, start + 100)))
        assert database._db.pragma("page_count") * PAGE_BYTES <= database.path.stat().st_size
