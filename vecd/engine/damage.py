"""The damaged chunks that reads have found: their stored text or vector does not match its checksum.

Indexes and hits leave damaged chunks out. Searches warn about them and the status counts them until their documents are
removed. A read can only find what it reads: a verify looks at everything.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

from ..errors import VecError
from ..store import documents
from ..store.catalogue import Library
from ..store.database import Database
from ..store.transaction import Change, Commit
from .library_registry import LibraryRegistry

log = logging.getLogger("vecd.engine")

#: The parts of a chunk. Without its vector a chunk is still found by its words; without its text it is no hit at all.
#: A damaged title, id or metadata of a document counts as the text of the chunk that was read. A document that cannot
#: be decoded matches no filter.
TEXT: Final = "text"
VECTOR: Final = "vector"
METADATA: Final = "metadata"

#: The error about each damaged part, by the chunk's label and the part.
_Parts = dict[tuple[int, str], VecError]


class Damage:
    """Damaged chunks by library. Any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._registry: LibraryRegistry[_Parts] = LibraryRegistry(lambda library: {}, self._apply)

    def apply(self, commit: Commit) -> None:
        """Forgets the chunks that a commit removed. On the writer's thread, in commit order."""
        self._registry.apply(commit)

    @contextlib.contextmanager
    def collecting(self, part: str) -> Iterator[documents.LeftOut]:
        """A callback for reads, which notes what they leave out. Around the read transaction, not within it."""
        found: dict[int, VecError] = {}
        yield found.__setitem__
        if found:
            self._note(part, found)

    def errors(self, library: Library, *parts: str) -> list[VecError]:
        """One error for each document of the library that has damage in one of these parts."""
        by_message = {error.message: error for (_, part), error in self._copy(library).items() if part in parts}
        return list(by_message.values())

    def labels(self, library: Library) -> list[int]:
        """The library's damaged chunks."""
        return sorted({label for label, _ in self._copy(library)})

    def _copy(self, library: Library) -> _Parts:
        with self._registry.lock:
            return dict(self._registry.get(library.library_id) or {})

    def _note(self, part: str, found: dict[int, VecError]) -> None:
        """Chunks whose documents have been removed are not noted: no commit would ever remove them again."""
        new = []
        for label, library_id in self._living(found).items():
            with self._registry.lock, contextlib.suppress(VecError):  # the library has just been deleted
                parts = self._registry.of(self._database.catalogue.by_id[library_id])
                if (label, part) not in parts:
                    new.append((label, library_id))
                    parts[label, part] = found[label]
        if not new:
            return
        # A commit that this second read does not see is applied after the note, and removes it.
        living = self._living(found)
        for label, library_id in new:
            if label in living:
                log.error("a damaged chunk is left out", extra={"part": part, "error": found[label].message})
            else:
                with self._registry.lock:
                    (self._registry.get(library_id) or {}).pop((label, part), None)

    def _living(self, labels: dict[int, VecError]) -> dict[int, int]:
        with self._database.read_transaction() as db:
            return documents.libraries_of(db, list(labels))

    def _apply(self, library: Library, parts: _Parts | None, changes: list[Change], commit: Commit) -> _Parts | None:
        if parts:
            removed = {label for change in changes for label in change.removed}
            for key in [key for key in parts if key[0] in removed]:
                del parts[key]
        return parts or None
