"""Read views: the state at one seq, page by page, whatever is written and vacuumed between two pages."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vecd.engine.documents import delete_unchanged
from vecd.engine.read_views import AllDocuments, MatchingDocuments, ReadViews
from vecd.errors import VecError
from vecd.filters import expressions
from vecd.store import documents, libraries, retention
from vecd.store.catalogue import Library
from vecd.store.database import Database
from vecd.store.documents import Document, DocumentBatch, Entry
from vecd.store.transaction import Transaction

#: An id, and the number that its metadata, its digest and its chunks are made of; None: it is deleted.
Write = tuple[str, int | None]


def unexpected(failure: VecError) -> None:
    raise AssertionError(failure)


class Store:
    """A database with the libraries `notes` and `others`, and its read views."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(folder / "vec.db", lambda _: None, unexpected)
        self.database.open()
        self.released = 0
        self.views = ReadViews(self.database, self._release)
        for name in ("notes", "others"):
            plan = Library(0, name, 2, "cosine", "flat", "none", 1_000)
            self.database.submit(partial(libraries.create, wanted=plan)).result()
        self.library = self.database.catalogue.find("notes")

    def _release(self) -> None:
        self.released += 1

    def write(self, writes: list[Write], library: str = "notes", again: bool = False) -> None:
        entries = [
            Entry(
                index, each, number is None, None, f'{{"n":{number}}}', f"{number or 0:032x}", index, number is not None
            )
            for index, (each, number) in enumerate(writes)
        ]
        batch = DocumentBatch(
            entries, [None] * len(writes), [None] * len(writes), np.ones((len(writes), 2), np.float32)
        )
        self.database.submit(lambda tx: documents.write(tx, tx.catalogue.find(library), batch, again)).result()

    def trim(self) -> None:
        """Trims all, and deletes what nobody needs."""
        self.database.submit(lambda tx: retention.trim(tx, tx.seq)).result()
        while self.database.submit(self._vacuum).result():
            pass

    def _vacuum(self, tx: Transaction) -> int:
        return retention.vacuum(tx, 10, self.views.vacuum_limit(tx.horizon))

    def page(self, listing: AllDocuments | MatchingDocuments, count: int = 2) -> list[Document]:
        with self.database.read_transaction() as db:
            return listing.page(db, count)

    def rest(self, listing: AllDocuments | MatchingDocuments, count: int = 2) -> dict[str, int]:
        """Id and number of what is still to come, which must come by id."""
        found = [each for page in iter(lambda: self.page(listing, count), []) for each in page]
        assert [each.id for each in found] == sorted({each.id for each in found})
        return {each.id: each.metadata["n"] for each in found}


@contextlib.contextmanager
def stored() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        try:
            yield store
        finally:
            store.database.close()


@pytest.fixture
def store() -> Iterator[Store]:
    with stored() as made:
        yield made


WRITES = st.lists(st.tuples(st.sampled_from("abcdefgéz😀"), st.none() | st.integers(0, 3)), max_size=12)
STEPS = st.lists(st.tuples(WRITES, st.booleans(), st.integers(1, 4)), max_size=6)


def apply(state: dict[str, int], writes: list[Write]) -> None:
    for each, number in writes:
        if number is None:
            state.pop(each, None)
        else:
            state[each] = number


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=WRITES, steps=STEPS, resumed=st.booleans())
def test_a_listing_is_the_state_at_its_seq_whatever_happens_between_two_pages(
    first: list[Write], steps: list[tuple[list[Write], bool, int]], resumed: bool
) -> None:
    with stored() as store:
        store.write(first)
        state: dict[str, int] = {}
        apply(state, first)
        with store.views.open() as view:
            listings: dict[str, AllDocuments | MatchingDocuments] = {
                "all": AllDocuments(view, store.library.library_id),
                "some": MatchingDocuments(AllDocuments(view, store.library.library_id), expressions.parse(("n >= 2",))),
            }
            found: dict[str, dict[str, int]] = {"all": {}, "some": {}}
            after = ""
            for writes, trims, count in steps:
                store.write(writes)
                store.write(writes, "others")
                if trims:
                    store.trim()
                for name, listing in listings.items():
                    page = store.page(listing, count)
                    assert len(page) <= count
                    found[name] |= {each.id: each.metadata["n"] for each in page}
                    after = page[-1].id if page and name == "all" else after
                if resumed:
                    listings["all"] = AllDocuments(view, store.library.library_id, after)
            for name, listing in listings.items():
                found[name] |= store.rest(listing)
        assert found["all"] == state
        assert found["some"] == {each: number for each, number in state.items() if number >= 2}
        assert list(found["all"]) == sorted(state, key=str.encode)


def test_a_deleted_library_can_be_read_to_the_end_of_the_view(store: Store) -> None:
    store.write([("a", 1), ("b", 2), ("c", 3)])
    with store.views.open() as view:
        listing = AllDocuments(view, store.library.library_id)
        assert [each.id for each in store.page(listing)] == ["a", "b"]
        store.database.submit(lambda tx: libraries.delete(tx, "notes")).result()
        store.trim()
        assert store.rest(listing) == {"c": 3}
        assert view.catalogue.find("notes").documents == 3


def test_the_vacuum_goes_on_when_the_view_that_it_stopped_before_is_closed(store: Store) -> None:
    store.write([("a", 1)])
    with store.views.open():
        store.write([("a", 2)])
        with store.views.open():
            store.trim()
        assert store.released == 0
        assert versions(store) == 2
    assert store.released == 1
    store.trim()
    assert versions(store) == 1
    with store.views.open():
        pass
    assert store.released == 1


def test_a_view_beyond_its_time_holds_nothing_back_and_says_so(store: Store) -> None:
    store.write([("a", 1), ("b", 1)])
    with store.views.open(0.0) as late, store.views.open() as view:
        late_listing, listing = (AllDocuments(each, store.library.library_id) for each in (late, view))
        store.write([("b", 2)])
        store.trim()
        assert store.page(late_listing, 1)[0].id == "a"  # the other view, as old as this one, kept its rows
        assert store.rest(listing) == {"a": 1, "b": 1}
    with store.views.open(0.0) as late:
        listing = AllDocuments(late, store.library.library_id)
        store.write([("a", 3)])
        store.trim()
        with pytest.raises(VecError, match=f"at seq {late.seq}, .* took too long") as refusal:
            store.page(listing)
        assert refusal.value.code == "busy"


def test_a_moment_is_opened_again_unless_the_log_was_trimmed_past_it(store: Store) -> None:
    store.write([("a", 1), ("b", 1)])
    seq, label, _ = store.database.moment
    store.write([("a", 2), ("c", 2)])
    with store.views.reopen(seq, label) as view:
        assert view is not None
        store.trim()
        assert store.rest(AllDocuments(view, store.library.library_id)) == {"a": 1, "b": 1}
    with store.views.reopen(seq, label) as view:
        assert view is None


def test_a_delete_of_what_was_found_goes_by_content_and_not_by_label(store: Store) -> None:
    """A reembed writes all documents again, each with a new label and the same content."""
    store.write([("a", 1), ("b", 1), ("c", 1), ("d", 1)])
    with store.database.read_transaction() as db:
        found = documents.versions(db, [each.label for each in documents.get(db, 1, [*"abcd"]) if each is not None])
    store.write([("a", 1), ("b", 1), ("c", 1), ("d", 1)], again=True)
    store.write([("b", 2), ("c", None)])
    store.write([("c", 1)])
    assert store.database.submit(lambda tx: delete_unchanged(store.library, found, tx)[0]).result() == 3
    with store.database.read_transaction() as db:
        assert [each and each.metadata for each in documents.get(db, 1, [*"abcd"])] == [None, {"n": 2}, None, None]
    store.database.submit(lambda tx: libraries.delete(tx, "notes")).result()
    with pytest.raises(VecError, match="has been deleted"):
        store.database.submit(lambda tx: delete_unchanged(store.library, found, tx)).result()


def versions(store: Store) -> int:
    """How many versions of documents are in the store."""
    with store.database.read_transaction() as db:
        return int(db.execute("SELECT count(*) FROM documents").get)
