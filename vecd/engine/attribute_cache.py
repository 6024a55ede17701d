"""A cache of documents' attributes: the columns of each library that filters read, updated by every commit.

A library's columns are loaded when a filter first needs them, and every commit is applied to them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from ..filters.attributes import Attributes, DocumentRow, DocumentSelection
from ..filters.columns import SortKeys
from ..filters.expressions import Field, Filter
from ..store import documents, events
from ..store.catalogue import Library
from ..store.database import Database
from ..store.transaction import Change, Commit
from .damage import METADATA, Damage
from .library_registry import LibraryRegistry

log = logging.getLogger("vecd.filters")


class AttributeCache:
    """Attributes by library. Any thread."""

    def __init__(self, database: Database, damage: Damage) -> None:
        self._database = database
        self._damage = damage
        self._registry: LibraryRegistry[Attributes] = LibraryRegistry(lambda library: Attributes(), self._apply)
        self._users: dict[int, int] = {}  # by library id: uses of its Attributes that go on; the registry's lock guards

    def apply(self, commit: Commit) -> None:
        """Applies a commit to the Attributes that there are. On the writer's thread, in commit order."""
        self._registry.apply(commit)

    @contextlib.contextmanager
    def hold(self, library: Library, where: Filter) -> Iterator[Attributes]:
        """The library's Attributes, which commits are applied to at least until the block ends. Once the filter's
        columns are loaded, they stay as long. Raises VecError `not_found`."""
        library_id = library.library_id
        with self._registry.lock:
            attributes = self._registry.of(library)
            self._users[library_id] = self._users.get(library_id, 0) + 1
        try:
            with attributes.pinned(_fields(where)):
                yield attributes
        finally:
            with self._registry.lock:
                self._users[library_id] -= 1
                if not self._users[library_id]:
                    del self._users[library_id]

    @staticmethod
    def lacks(attributes: Attributes, where: Filter) -> bool:
        """Whether the filter needs fields that are not in memory."""
        return not attributes.has(_fields(where))

    def load(self, library: Library, attributes: Attributes, where: Filter) -> DocumentSelection:
        """The documents that match the filter now. Within `hold` of the same filter. Blocks."""
        self._load(library, attributes, where)
        return attributes.select(where)

    def load_sorted(
        self, library: Library, attributes: Attributes, where: Filter, field: Field
    ) -> tuple[DocumentSelection, SortKeys]:
        """The same, and what the documents are sorted by. `where` names the field. Blocks."""
        self._load(library, attributes, where)
        return attributes.select_sorted(where, field)

    def _load(self, library: Library, attributes: Attributes, where: Filter) -> None:

        def read() -> tuple[int, Iterator[DocumentRow]]:
            return events.head(db), map(DocumentRow._make, documents.fields(db, library.library_id, left_out))

        if self.lacks(attributes, where):
            with self._damage.collecting(METADATA) as left_out, self._database.read_transaction() as db:
                attributes.load(_fields(where), read)
            log.info("attributes loaded", extra={"library": library.name, "fields": len(attributes.fields)})

    def _apply(
        self, library: Library, attributes: Attributes | None, changes: list[Change], commit: Commit
    ) -> Attributes | None:
        if attributes is None or (attributes.worn and library.library_id not in self._users):
            return None
        rows = [
            DocumentRow(label, chunks, id, title, metadata)
            for change in changes
            for label, id, title, metadata, _, chunks in change.documents
        ]
        attributes.leave(commit.seq, rows, [label for change in changes for label in change.removed])
        return attributes


def _fields(where: Filter) -> frozenset[Field]:
    return where[0].fields if len(where) == 1 else frozenset().union(*(each.fields for each in where))
