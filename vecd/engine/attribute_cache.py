"""What a filter lets through: the libraries' Attributes, loaded when a filter first needs them, told of every commit.

They are told before the indexes are, so a selection that is made on an index's strand knows every document whose
vectors are there.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import limits
from ..errors import Code, VecError
from ..filters import language
from ..filters.attributes import Attributes, DocumentSelection, Row
from ..filters.language import Field, Filter
from ..store import documents, events
from ..store.catalogue import Library
from ..store.database import Database
from ..store.transaction import Commit

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("vecd.filters")


async def parse(engine: Engine, expressions: list[str]) -> Filter:
    """The filter that all of these expressions make together; empty: none. Raises VecError `invalid_filter`."""
    texts = tuple(expressions)
    if sum(map(len, texts)) <= limits.FILTER_CHARS_AT_ONCE:
        return language.parse(texts)
    return await engine.read(language.parse, texts)


class AttributeCache:
    """Attributes by library id."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._attributes: dict[int, Attributes] = {}
        self._users: dict[int, int] = {}  # by library id: those who hold its Attributes just now
        self._dropped: set[int] = set()
        self._lock = threading.Lock()  # guards the three

    @contextlib.contextmanager
    def hold(self, library: Library, where: Filter) -> Iterator[Attributes]:
        """The library's Attributes, told of every commit at least until the block ends; once they are loaded, the
        filter's columns stay until then. Raises VecError `not_found`."""
        library_id = library.library_id
        with self._lock:
            if library_id in self._dropped:
                raise VecError(Code.NOT_FOUND, f"library {library.name!r} has just been deleted", library=library.name)
            attributes = self._attributes.setdefault(library_id, Attributes())
            self._users[library_id] = self._users.get(library_id, 0) + 1
        try:
            with attributes.pinned(_fields(where)):
                yield attributes
        finally:
            with self._lock:
                self._users[library_id] -= 1
                if not self._users[library_id]:
                    del self._users[library_id]

    @staticmethod
    def lacks(attributes: Attributes, where: Filter) -> bool:
        """Whether the filter needs fields that are not in memory."""
        return not attributes.has(_fields(where))

    def load(self, library: Library, attributes: Attributes, where: Filter) -> DocumentSelection:
        """What the filter lets through as of now. Within `hold` of the same filter. Blocks."""

        def read() -> tuple[int, Iterator[Row]]:
            return events.head(db), map(Row._make, documents.fields(db, library.library_id))

        if self.lacks(attributes, where):
            with self._database.snapshot() as db:
                attributes.load(_fields(where), read)
            log.info("attributes loaded", extra={"library": library.name, "fields": len(attributes.fields)})
        return attributes.select(where)

    def apply(self, commit: Commit) -> None:
        """Leaves a commit's changes at the Attributes that there are, a library's together: nobody sees half a commit.
        On the writer's thread, in commit order."""
        left: dict[int, tuple[Attributes, list[Row], list[int]]] = {}
        with self._lock:
            for change in commit.changes:
                attributes = self._attributes.get(change.library_id)
                if change.dropped:
                    self._attributes.pop(change.library_id, None)
                    self._dropped.add(change.library_id)
                    left.pop(change.library_id, None)
                elif attributes is not None:
                    if attributes.worn and change.library_id not in self._users:
                        del self._attributes[change.library_id]
                        continue
                    _, rows, removed = left.setdefault(change.library_id, (attributes, [], []))
                    rows += (
                        Row(label, chunks, id, title, metadata)
                        for label, id, title, metadata, _, chunks in change.documents
                    )
                    removed += change.removed
            for attributes, rows, removed in left.values():
                attributes.leave(commit.seq, rows, removed)


def _fields(where: Filter) -> frozenset[Field]:
    return where[0].fields if len(where) == 1 else frozenset().union(*(each.fields for each in where))
