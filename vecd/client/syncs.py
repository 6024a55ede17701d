"""The client's methods for syncs, and for a process that runs one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .connection import Connection, Pending


class SyncFile(NamedTuple):
    """What is known of a file of a sync, as it was when it was read."""

    path: bytes  # relative to the folder
    stamp: bytes  # of the process that runs the sync; empty: the file has to be read to see whether it has changed
    digest: bytes  # of its content
    ids: Sequence[str]  # of its documents
    reason: str | None  # why it has none; None: it has


class SyncMethods(Connection):
    """A method for each op of syncs. `Client` inherits them."""

    def add_sync(
        self,
        name: str,
        url: str,
        *,
        library: str | None = None,
        prefix: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        follow: bool = True,
        paused: bool = False,
    ) -> dict[str, Any]:
        """Adds a sync: `library` (None: default) follows the folder at `url`, a file URL; returns the sync. The daemon
        runs it, unless `follow` is false. `prefix` is put before the ids of the documents, which are paths;
        `parameters` say which files are taken. Raises VecError `exists`, `invalid_request`, `not_found`.
        """
        return self.request(
            "sync.add", name=name, url=url, library=library, prefix=prefix, parameters=dict(parameters or {}) or None,
            follow=follow, paused=paused or None,
        )  # fmt: skip

    def syncs(self) -> list[dict[str, Any]]:
        """All syncs, by name: their definitions, `state`, `files`, `skipped` (by reason), `synced_at`, `error` …"""
        return list(self.items("sync.list", "syncs"))

    def sync(self, name: str) -> dict[str, Any]:
        """One sync. Raises VecError `not_found`."""
        return self.request("sync.show", name=name)

    def pause_sync(self, name: str) -> dict[str, Any]:
        """Stops a sync until it is resumed. Returns it. Raises VecError `not_found`."""
        return self.request("sync.pause", name=name)

    def resume_sync(self, name: str) -> dict[str, Any]:
        """Undoes `pause_sync`. Returns the sync. Raises VecError `not_found`."""
        return self.request("sync.resume", name=name)

    def remove_sync(self, name: str) -> dict[str, Any]:
        """Removes a sync and what is known of its files; documents stay. Returns it as it was. Raises VecError
        `not_found`."""
        return self.request("sync.remove", name=name)

    # --- for a process that runs a sync -----------------------------------------------------------------------------

    def hold_sync(self, name: str) -> Pending:
        """A stream with one item, the definition. Nobody else can run the sync until the stream is abandoned, or the
        connection ends. Raises VecError `busy` while somebody else runs it."""
        return self.submit("sync.hold", name=name)

    def sync_files(self, name: str) -> Iterator[SyncFile]:
        """What is known of the files of a sync, by path. Raises VecError `not_found`."""
        after = b""
        while page := [SyncFile(*each) for each in self._file_rows(name, after)]:
            yield from page
            after = page[-1].path

    def _file_rows(self, name: str, after: bytes) -> Iterator[Any]:
        return self.items("sync.files", "files", name=name, after=after)

    def commit_sync(
        self,
        name: str,
        generation: int,
        *,
        library_id: int | None = None,
        documents: Sequence[Mapping[str, Any]] = (),
        files: Sequence[SyncFile] = (),
        gone: Sequence[bytes] = (),
        run: Mapping[str, Any] | None = None,
    ) -> Pending:
        """Writes documents and what is known of their files, and forgets the files of the paths `gone`, in one
        transaction; with `run`, the counts of a run that is complete with it. Does not wait for the answer: the counts,
        and `refused`, a map with `index` for each document that cannot be written: then nothing was. It is `lease_lost`
        for an earlier generation, and if the library is not the one with `library_id` (0: does not exist yet)."""
        return self.submit(
            "sync.commit", name=name, generation=generation, library_id=library_id,
            documents=list(documents), files=[list(each) for each in files] or None, gone=list(gone) or None, run=run,
        )  # fmt: skip
