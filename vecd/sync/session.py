"""A session of a sync: holds it over one connection, and does one run after another.

What is known of the files is read once, and kept up to date with what was committed. Several commits are in flight, so
that reading files and embedding texts overlap. After a lost connection, or `lease_lost` (the library was deleted, the
sync was changed), a session is of no more use: a new one reads what was committed, and continues there.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ..client import Client
from ..client.syncs import SyncFile
from ..connectors import folder
from ..connectors.definition import SyncDefinition, from_wire
from ..connectors.stopping import Stopping
from ..durable_files import printable_path
from ..errors import Code, VecError
from ..files.documents import documents_of
from ..files.entry import FileEntry, FileSkipped, SkipReason
from ..files.options import FileOptions
from ..files.walk import walk
from .batches import Batch, FileChange, in_parts
from .plan import Plan, plan
from .reading import QUIET_S, Content, read_whole
from .stamps import lasting, same_times

__all__ = ["FileOptions", "OnFile", "Session", "Stopping", "Told", "options_of"]

#: Commits in flight: one being read by the daemon, one being embedded, one being written, and one spare.
_WINDOW: Final = 4

#: Reasons that are not kept: what was known of the file stays.
_PASSING: Final = frozenset((SkipReason.UNREADABLE,))


@dataclass(slots=True)
class Told:
    """What a run did, in files; `documents` are the counts of the daemon."""

    files: Counter[str] = field(default_factory=Counter)  # new, changed, moved, deleted, unchanged, failed
    skipped: Counter[str] = field(default_factory=Counter)  # by reason
    documents: Counter[str] = field(default_factory=Counter)
    seq: int | None = None

    @property
    def changed(self) -> bool:
        return any(self.files[what] for what in ("new", "changed", "moved", "deleted", "failed"))


#: Called with what becomes of a file (`new`, `failed` …), its path, and details in words.
OnFile = Callable[[str, bytes, str], None]
#: Called after each commit with what was done so far.
OnCommit = Callable[[Told], None]


def nothing(what: str, path: bytes, why: str) -> None:
    """An OnFile that does nothing."""


class Session:
    """A sync over one connection, which it uses alone. `with` it: at the end the sync is free for others."""

    def __init__(
        self,
        client: Client,
        name: str,
        stop: Stopping,
        on_file: OnFile = nothing,
        on_commit: OnCommit = lambda told: None,
    ) -> None:
        """When `stop` is set, a run ends early. Raises VecError `busy` while another runs the sync, or `not_found`."""
        self._client = client
        self._stop = stop
        self._on_file = on_file
        self._on_commit = on_commit
        self._held = client.hold_sync(name)
        reply = self._held.next()
        if reply is None or reply.kind != "items":
            raise VecError(Code.CONNECTION_LOST, "the daemon is stopping", "try again")
        definition = from_wire(reply.body[0])
        assert isinstance(definition, SyncDefinition)
        self.definition = definition
        self.root = folder.path_of(definition.url)
        self._library_id = self._current_library()
        self._known = {file.path: file for file in client.sync_files(name)}
        self._owners = Counter(document for file in self._known.values() for document in file.ids)
        self._flying: deque[Batch] = deque()
        self._batch = Batch()
        self._told = Told()
        self._passed: dict[str, int] | None = None  # what the last scan skipped and does not keep, by reason
        self._incomplete: set[bytes] = set()  # files of which a part was refused

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.abandon(self._held)

    @property
    def known(self) -> int:
        """How many files are known."""
        return len(self._known)

    @property
    def current(self) -> bool:
        """Whether what is known is of the library that has the name now; otherwise, a new session has to begin."""
        return self._current_library() == self._library_id

    def _current_library(self) -> int:
        """0: it does not exist."""
        return int(self._client.sync(self.definition.name)["library_id"] or 0)

    # --- a run ------------------------------------------------------------------------------------------------------

    def plan(self, given: FileOptions, *, again: bool = False, empty: bool = False) -> Plan:
        """What a run has to do. Raises VecError `not_found` if the folder is not there, or is empty where it was not;
        with `empty`, that is what is wanted."""
        if not os.path.isdir(self.root) and os.path.lexists(self.root):
            path = folder.shown_path(self.definition.url)
            raise VecError(Code.INVALID_REQUEST, f"{path} is not a folder", f"for a file: vec ingest {path}")
        made = plan(self._known, self._entries(given), again=again)
        if not made.found and self._known and not empty:
            path = folder.shown_path(self.definition.url)
            count = sum(1 for file in self._known.values() if file.ids)
            raise VecError(
                Code.NOT_FOUND,
                f"{path} is empty, where {count:,} file{'s' * (count != 1)} had documents: is the disk mounted?",
                f"nothing was deleted; to delete these documents: vec sync --allow-empty {path}",
                file=path,
            )
        return made

    def _entries(self, given: FileOptions, under: str | None = None) -> Iterator[FileEntry]:
        for entry in walk(self.root, given, self.definition.prefix, under):
            if entry.skipped == SkipReason.EMPTY and os.fsencode(entry.relative) in self._known:
                entry = self._refilled(entry)
            yield entry

    def _refilled(self, entry: FileEntry) -> FileEntry:
        """A known file that is empty: somebody may have begun to write it again."""
        if time.time_ns() - entry.mtime_ns > QUIET_S * 1e9 or self._stop.wait(QUIET_S):
            return entry
        try:
            about = os.stat(entry.path)
        except OSError:
            return entry
        return entry._replace(skipped=None, size=about.st_size) if about.st_size else entry

    def run(self, made: Plan, given: FileOptions, *, keep: bool = True, scan: bool = True) -> Told:
        """Does what the plan says, which is one of the whole folder with `scan`. With `keep`, and if a scan skips other
        files than the last one, the daemon keeps the counts, as those of a complete run. Raises VecError when it cannot
        go on; what was committed by then stays."""
        told = self._told = Told(skipped=Counter(made.skipped))
        told.files["unchanged"] = made.unchanged
        for entry in made.unreadable:
            self._on_file("unreadable", os.fsencode(entry.relative), "it cannot be read")
        options = self.options(given)
        missing = {file.path: file for file in made.gone}
        by_digest: dict[bytes, list[SyncFile]] = {}
        for file in made.gone:
            by_digest.setdefault(file.digest, []).append(file)
        for entry in made.doubtful:
            self._changed(entry, options, doubtful=True)
        for entry in made.changed:
            self._changed(entry, options)
        for entries in made.lacking.values():
            if self._changed(entries[0], options) == SkipReason.EXTRA:
                told.skipped[SkipReason.EXTRA.value] += len(entries) - 1
            else:
                for entry in entries[1:]:
                    self._changed(entry, options)
        for entry in made.new:
            self._new(entry, options, missing, by_digest)
        for file in missing.values():
            self._gone(file)
        self._finish()
        if self._incomplete:  # the next run reads them again
            for path in self._incomplete & self._known.keys():
                again = self._known[path]._replace(stamp=b"", digest=b"")
                self._add(FileChange(path, "skipped", file=again))
            self._incomplete.clear()
            self._finish()
        if scan:
            kept = Counter(file.reason for file in self._known.values() if file.reason is not None)
            passed = dict(told.skipped - kept)
            keep = keep or passed != self._passed
            self._passed = passed
        if keep and not self._stop.is_set():
            counts = {**told.files, "skipped": self._passed or {}}
            about = self.definition
            answer = self._client.commit_sync(
                about.name, about.generation, library_id=self._library_id, run=counts
            ).result()
            told.seq = answer["seq"]
        return told

    def plan_paths(self, paths: Collection[bytes], given: FileOptions) -> Plan:
        """The same as `plan` for some paths of the folder, files or folders, and what is below them."""
        outer = _outermost(paths)
        entries = (entry for path in outer for entry in self._entries(given, os.fsdecode(path)))
        return plan(self._known, entries, below=outer)

    def options(self, given: FileOptions) -> FileOptions:
        """With how the library wants its chunks."""
        try:
            library = self._client.library(self.definition.library)
        except VecError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return given  # the first document creates it
        chunks = {name: library[name] for name in ("chunk_chars", "chunk_overlap") if library.get(name) is not None}
        return replace(given, **chunks)

    # --- a file -----------------------------------------------------------------------------------------------------

    def _changed(self, entry: FileEntry, options: FileOptions, *, doubtful: bool = False) -> str | None:
        """Returns why the file has no documents; None if it has some."""
        path = os.fsencode(entry.relative)
        file = self._known[path]
        content = self._read(entry, options)
        if content is None:
            return None
        if doubtful and content.digest == file.digest and (not file.stamp or same_times(file.stamp, content.stamp)):
            self._add(FileChange(path, "unchanged", file=file._replace(stamp=lasting(content.stamp))))
            return file.reason
        return self._write(path, "changed", content, options, file)

    def _new(
        self,
        entry: FileEntry,
        options: FileOptions,
        missing: dict[bytes, SyncFile],
        by_digest: dict[bytes, list[SyncFile]],
    ) -> None:
        path = os.fsencode(entry.relative)
        content = self._read(entry, options)
        if content is None:
            return
        for before in by_digest.get(content.digest, ()):
            if before.path in missing:
                del missing[before.path]
                self._write(path, "moved", content, options, before)
                return
        self._write(path, "new", content, options, None)

    def _gone(self, file: SyncFile) -> None:
        self._add(FileChange(file.path, "deleted", self._deletes(file.ids), gone=[file.path]))

    def _read(self, entry: FileEntry, options: FileOptions) -> Content | None:
        """Its content; None if it is skipped."""
        try:
            return read_whole(entry, options.bytes_max, self._stop.wait)
        except FileSkipped as skipped:
            path = os.fsencode(entry.relative)
            if skipped.reason == SkipReason.GONE:  # the next run finds out what became of it
                return None
            self._told.skipped[skipped.reason.value] += 1
            if skipped.reason in _PASSING:
                self._on_file("unreadable", path, skipped.message)
            elif (file := self._known.get(path)) is not None:
                self._gone(file)
            return None

    def _write(
        self, path: bytes, what: str, content: Content, options: FileOptions, before: SyncFile | None
    ) -> str | None:
        """The documents of a file, instead of those that it had before, perhaps under another name. Returns why it has
        none; None if it has some."""
        reason = None
        documents: list[dict[str, Any]] = []
        try:
            documents = list(documents_of(content.entry, options, content.data))
        except FileSkipped as skipped:
            reason = skipped.reason.value
            self._told.skipped[reason] += 1
            self._on_file("skipped", path, skipped.message + (f"; {skipped.hint}" if skipped.hint else ""))
            what = "skipped"
        ids = [document["id"] for document in documents]
        self._owners.update(ids)
        deletes = self._deletes(before.ids if before is not None else ())
        file = SyncFile(path, lasting(content.stamp) if content.stamp else b"", content.digest, ids, reason)
        gone = [before.path] if before is not None and before.path != path else []
        for part in in_parts(FileChange(path, what, [*documents, *deletes], file, gone)):
            self._add(part)
        return reason

    def _deletes(self, ids: Iterable[str]) -> list[dict[str, Any]]:
        """Deletes of a file's documents, but for those that another file has, too."""
        self._owners.subtract(ids)
        return [{"op": "delete", "id": each} for each in dict.fromkeys(ids) if self._owners[each] <= 0]

    # --- commits ----------------------------------------------------------------------------------------------------

    def _add(self, change: FileChange) -> None:
        if not self._batch.has_room(change):
            self._send()
        self._batch.add(change)
        while self._flying and self._flying[0].pending.ready:
            self._take()
        if self._stop.is_set():
            raise VecError(Code.CANCELLED, "the sync was stopped", "the next run continues where it was")

    def _send(self) -> None:
        batch, self._batch = self._batch, Batch()
        if not batch.changes:
            return
        while len(self._flying) >= (_WINDOW if self._library_id else 1):  # the first commit creates the library
            self._take()
        self._submit(batch)

    def _finish(self) -> None:
        self._send()
        while self._flying:
            self._take()

    def _submit(self, batch: Batch) -> None:
        about = self.definition
        batch.pending = self._client.commit_sync(
            about.name, about.generation, library_id=self._library_id,
            documents=batch.documents, files=batch.files, gone=batch.gone,
        )  # fmt: skip
        self._flying.append(batch)

    def _take(self) -> None:
        """Waits for the answer to the oldest commit."""
        batch = self._flying.popleft()
        answer = batch.pending.result()
        self._library_id = answer["library_id"]
        if answer["refused"]:
            self._refused(batch, answer["refused"])
            return
        told = self._told
        told.seq = answer["seq"]
        for name in ("added", "updated", "unchanged", "deleted"):
            told.documents[name] += answer[name]
        for change in batch.changes:
            for path in change.gone:
                self._known.pop(path, None)
            if change.file is not None:
                self._known[change.path] = change.file
            if change.what != "skipped" and (change.file is not None or change.gone):
                told.files[change.what] += 1
                if change.what != "unchanged":
                    renamed = change.file is not None and change.gone
                    self._on_file(change.what, change.path, f"was {printable_path(change.gone[0])}" if renamed else "")
        self._on_commit(told)

    def _refused(self, batch: Batch, refused: list[dict[str, Any]]) -> None:
        """Commits what is left of a batch without the files whose documents were refused. What was known of these
        stays, so they are tried again in the next run."""
        failed: dict[bytes, VecError] = {}
        for each in refused:
            each = dict(each)
            change = batch.owner(each.pop("index"))
            failed.setdefault(change.path, VecError.from_wire(each))
        for change in batch.changes:
            if change.path in failed and change.file is None:  # a part; the others may be written
                self._incomplete.add(change.path)
            elif change.path in failed and change.file is not None:  # as it was before
                before = change.gone[0] if change.gone else change.path
                self._owners.subtract(change.file.ids)
                self._owners.update(self._known[before].ids if before in self._known else ())
        for path, error in failed.items():
            self._told.files["failed"] += 1
            self._on_file("failed", path, str(error))
        left = Batch()
        for change in batch.changes:
            if change.path not in failed:
                left.add(change)
        if left.changes:
            self._submit(left)


def options_of(definition: SyncDefinition) -> FileOptions:
    """Which files a sync takes."""
    return FileOptions.from_wire(dict(definition.parameters))


def _outermost(paths: Collection[bytes]) -> list[bytes]:
    """Without the paths that are below another one."""
    found: list[bytes] = []
    for path in sorted(paths, key=lambda path: path + b"/"):
        if not found or not (path + b"/").startswith(found[-1] + b"/"):
            found.append(path)
    return found
