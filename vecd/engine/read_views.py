"""Read views: multi-version reads, so that an answer that takes several transactions is of one state; and listings of
documents.

Rows of documents and chunks never change, except that a removal sets `removed_seq`. So the state at a seq can be read
at any later time, until the vacuum deletes what was removed after it. A ReadView names such a state, and while it is
open the vacuum stops before it. Everything that reads documents in more than one transaction opens a view first and
reads all from it: a request for as long as it is answered, an export job for as long as it writes.

Rules:
- A view begins at the published head, so it has all that was acknowledged before. A filter's selection is made after
  the view is opened and may be of a later seq; what matches there was not removed before it, so the view keeps it too.
- The vacuum asks `floor` on the writer's thread. What it deletes was removed up to the horizon, which is never beyond
  the head at which a view that is opened meanwhile begins. So the vacuum either sees a
  view, or deletes nothing that the view needs.
- A view has a time limit. Beyond it the vacuum no longer stops before it; if the vacuum then passes it, the view is
  expired, and its next read raises. A reader checks after each read, so it never returns rows with gaps.

A `Listing` is the documents of one view by id, a page at a time. It belongs to one reader at a time.
"""

from __future__ import annotations

import contextlib
import heapq
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import orjson

from .. import limits
from ..errors import Code, VecError
from ..filters import attributes
from ..filters.expressions import Filter
from ..store import documents as store
from ..store import events
from ..store.catalogue import Catalogue
from ..store.database import Database
from ..store.documents import Document
from ..store.transaction import Moment, Transaction

if TYPE_CHECKING:
    import apsw


@dataclass(slots=True, eq=False)
class ReadView:
    """The state at one seq, kept readable while the view is open. Any thread."""

    moment: Moment
    ends_s: float  # by time.monotonic(): until then the vacuum stops before it
    expired: bool = False

    @property
    def seq(self) -> int:
        return self.moment.seq

    @property
    def catalogue(self) -> Catalogue:
        return self.moment.catalogue

    def check(self) -> None:
        """Raises VecError `busy` if rows of the view may be missing from what was read before this call."""
        if self.expired:
            raise VecError(
                Code.BUSY,
                f"the state at seq {self.seq}, which this answer shows, is no longer kept: it took too long to read",
                "send the request again",
                seq=self.seq,
            )


class ReadViews:
    """The views that are open."""

    def __init__(self, database: Database, on_release: Callable[[], None]) -> None:
        """`on_release` is called, on any thread, when the view is closed that the vacuum stopped before."""
        self._database = database
        self._on_release = on_release
        self._lock = threading.Lock()  # guards what follows
        self._open: set[ReadView] = set()
        self._stopped_at: int | None = None  # where the vacuum stopped before a view

    @contextlib.contextmanager
    def open(self, limit_s: float = limits.READ_VIEW_S) -> Iterator[ReadView]:
        """A view of the state at the head, open until the block ends."""
        with self._lock:
            view = self._add(self._database.moment, limit_s)
        with self._closing(view):
            yield view

    @contextlib.contextmanager
    def reopen(self, seq: int, label: int, limit_s: float = limits.READ_VIEW_S) -> Iterator[ReadView | None]:
        """The view of a state that an earlier run of the daemon may have read; None if it is before the log's horizon.
        `label` is the last label that existed then. The catalogue is the present one. Blocks."""

        def work(tx: Transaction) -> ReadView | None:
            if tx.horizon > seq:
                return None
            with self._lock:
                return self._add(Moment(seq, label, tx.catalogue), limit_s)

        # On the writer no trim and no vacuum comes between the question and the answer.
        view = self._database.submit(work).result()
        if view is None:
            yield None
            return
        with self._closing(view):
            yield view

    def vacuum_limit(self, horizon: int) -> int:
        """Up to which seq (inclusive) the vacuum may delete what was removed. On the writer's thread."""
        now_s = time.monotonic()
        with self._lock:
            floor = min([horizon, *(view.seq for view in self._open if now_s < view.ends_s)])
            for view in self._open:
                view.expired = view.expired or view.seq < floor
            self._stopped_at = floor if floor < horizon else None
        return floor

    def _add(self, moment: Moment, limit_s: float) -> ReadView:
        view = ReadView(moment, time.monotonic() + limit_s)
        self._open.add(view)
        return view

    @contextlib.contextmanager
    def _closing(self, view: ReadView) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                self._open.remove(view)
                at = self._stopped_at
                released = at is not None and all(each.seq > at for each in self._open)
                if released:
                    self._stopped_at = None
            if released:
                self._on_release()


class Listing(Protocol):
    """Documents of one view, by id."""

    seq: int  # the state is that at this seq
    label: int  # with the seq, what ReadViews.reopen wants

    def page(self, db: apsw.Connection, count: int) -> list[Document]:
        """The next `count` documents at most, without their chunks; none: that was all. Blocks. Raises VecError
        `busy`."""


class AllDocuments:
    """All documents of a library in a view.

    A page is read from the index of the living, and the few that were removed since the view began are merged in. Each
    removal is read once: `_removed` is a heap of (id, label) of those that are still to come, no more than the library
    held.
    """

    def __init__(self, view: ReadView, library_id: int, after: str = "") -> None:
        """Those behind the id `after` (exclusive); no id is empty."""
        self.seq, self.label = view.seq, view.moment.label
        self._view = view
        self._library_id = library_id
        self._after = after
        self._removed: list[tuple[str, int]] = []
        self._removed_upto = view.seq  # removals up to here (inclusive) have been read

    def page(self, db: apsw.Connection, count: int) -> list[Document]:
        living = store.page(db, self._library_id, self.label, self._after, count)
        head = events.head(db)
        if head > self._removed_upto:
            for each in store.removed(db, self._library_id, self.label, self._removed_upto, self._after):
                heapq.heappush(self._removed, each)
            self._removed_upto = head
        found = self._merged(db, living, count) if self._removed else living
        self._view.check()
        if found:
            self._after = found[-1].id
        return found

    def _merged(self, db: apsw.Connection, living: list[Document], count: int) -> list[Document]:
        """The first `count` of the living and the removed together. (Strings compare as their bytes in UTF-8 do.)"""
        labels: list[int] = []
        while self._removed and len(labels) < count:
            if len(living) == count and self._removed[0][0] > living[-1].id:
                break
            labels.append(heapq.heappop(self._removed)[1])
        gone = store.at(db, labels)
        found = sorted(living + gone, key=lambda document: document.id)
        for each in found[count:]:
            if each.label in labels:
                heapq.heappush(self._removed, (each.id, each.label))
        return found[:count]


class MatchingDocuments:
    """The documents of AllDocuments that match a filter; for a state older than the library's attributes."""

    def __init__(self, inner: AllDocuments, where: Filter) -> None:
        self.seq, self.label = inner.seq, inner.label
        self._inner = inner
        self._where = where
        self._fields = {field for each in where for field in each.fields}

    def page(self, db: apsw.Connection, count: int) -> list[Document]:
        while found := self._inner.page(db, count):
            rows = (
                attributes.DocumentRow(
                    each.label, each.chunks, each.id, each.title, orjson.dumps(each.metadata).decode()
                )
                for each in found
            )
            passing = attributes.DocumentSet(self._fields, rows).passing(self._where)
            if kept := [each for each, passes in zip(found, passing, strict=True) if passes]:
                return kept
        return []


class DocumentsByLabel:
    """Documents given by their labels."""

    def __init__(self, view: ReadView, seq: int, label: int, labels: list[int]) -> None:
        """`labels` in the order of their ids; they were alive at `seq`, which is not before the view's."""
        self.seq, self.label = seq, label
        self._view = view
        self._labels = labels
        self._next = 0

    def page(self, db: apsw.Connection, count: int) -> list[Document]:
        found = store.at(db, self._labels[self._next : self._next + count])
        self._view.check()
        self._next += count
        return found
