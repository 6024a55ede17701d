"""Batches of a sync: the changes of files, gathered into commits that fit into a frame and a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..client.syncs import SyncFile

#: What one commit has at most: some hundredths of a second of the daemon, and far less than a frame.
DOCUMENTS_MAX: Final = 512
CHARS_MAX: Final = 1 << 20
FILES_MAX: Final = 1_000

#: Approximate cost in characters of a document beside its texts.
_DOCUMENT_CHARS: Final = 500


@dataclass(slots=True)
class FileChange:
    """What becomes of one file: the documents to write, deletes among them, and what is known of it then."""

    path: bytes
    what: str  # new, changed, moved, deleted, unchanged
    documents: Sequence[dict[str, Any]] = ()
    file: SyncFile | None = None  # None: it is gone, or this is not its last part
    gone: Sequence[bytes] = ()  # paths to forget
    chars: int = field(init=False)  # what it costs

    def __post_init__(self) -> None:
        self.chars = sum(map(_chars, self.documents)) + _DOCUMENT_CHARS


def _chars(document: dict[str, Any]) -> int:
    return _DOCUMENT_CHARS + sum(map(len, document.get("texts", ()))) + len(document.get("text", ""))


@dataclass(slots=True)
class Batch:
    """The changes of one commit."""

    changes: list[FileChange] = field(default_factory=list)
    pending: Any = None  # the request, once it is sent
    _documents: int = 0
    _chars: int = 0

    def has_room(self, change: FileChange) -> bool:
        return not self.changes or (
            self._documents + len(change.documents) <= DOCUMENTS_MAX
            and self._chars + change.chars <= CHARS_MAX
            and len(self.changes) < FILES_MAX
        )

    def add(self, change: FileChange) -> None:
        self.changes.append(change)
        self._documents += len(change.documents)
        self._chars += change.chars

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [document for change in self.changes for document in change.documents]

    @property
    def files(self) -> list[SyncFile]:
        return [change.file for change in self.changes if change.file is not None]

    @property
    def gone(self) -> list[bytes]:
        return [path for change in self.changes for path in change.gone]

    def owner(self, index: int) -> FileChange:
        """The change that the document `index` is of."""
        for change in self.changes:
            if index < len(change.documents):
                return change
            index -= len(change.documents)
        raise IndexError(index)


def in_parts(change: FileChange) -> list[FileChange]:
    """A change, as several that fit into a batch each. What is known of the file comes with the last."""
    if len(change.documents) <= DOCUMENTS_MAX and change.chars <= CHARS_MAX:
        return [change]
    parts: list[list[dict[str, Any]]] = [[]]
    chars = 0
    for document in change.documents:
        cost = _chars(document)
        if parts[-1] and (len(parts[-1]) >= DOCUMENTS_MAX or chars + cost > CHARS_MAX):
            parts.append([])
            chars = 0
        parts[-1].append(document)
        chars += cost
    made = [FileChange(change.path, change.what, part) for part in parts[:-1]]
    return [*made, FileChange(change.path, change.what, parts[-1], change.file, change.gone)]
