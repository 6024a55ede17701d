"""Syncs in the daemon: folders that libraries follow, what is known of their files, and who runs them.

A sync is a connector: its definition, state and process are those of connectors.py. It is run by one client at a time,
which holds it: the daemon's process for syncs, or a `vec sync`. What is known of a file is written in the transaction
of its documents, so it describes what the library has, whatever is killed. It is that of one library: a process that
runs a sync names its id in each commit, and begins again when the library of that name is another one. Runs on the
event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .. import limits
from ..connectors import folder
from ..connectors.definition import SyncDefinition
from ..engine.engine import Engine
from ..engine.ingest import library_after_writes
from ..engine.prepare import cost_s, prepare_in_slices
from ..errors import Code, VecError
from ..jobs.effects import EffectResult, WriteDocuments
from ..store import connectors as store
from ..store import sync_files
from ..store.catalogue import Library
from ..store.documents import DocumentBatch
from ..store.sync_files import SyncFile
from ..store.transaction import Transaction
from ..write_order import WriteSlot
from .connectors import Connectors


class Syncs:
    """All syncs of one daemon."""

    def __init__(self, engine: Engine, connectors: Connectors) -> None:
        self._engine = engine
        self._connectors = connectors
        self._holders: dict[str, str] = {}  # sync -> a readable name of who runs it

    async def add(self, wanted: SyncDefinition) -> dict[str, Any]:
        """Stores a sync. One of the same folder and library that ran by hand becomes this one, with what is known of
        its files. Returns it as `show` does. Raises VecError `exists`, `busy`, `too_large`."""
        others = [each for each in await self._connectors.all("sync") if each["library"] == wanted.library]
        same = [each for each in others if each["url"] == wanted.url]
        for each in same:
            if each["follow"] or not wanted.follow:
                raise VecError(
                    Code.EXISTS,
                    f"the sync {each['name']!r} of this folder and library already exists",
                    f"remove it first (vec sync remove {each['name']}), or choose another library",
                    sync=each["name"],
                )
        for each in others:
            if each["url"] != wanted.url and each["prefix"] == wanted.prefix:
                raise VecError(
                    Code.EXISTS,
                    f"library {wanted.library!r} already follows {folder.shown_path(each['url'])} (sync"
                    f" {each['name']!r}), and documents of both folders would have the same ids",
                    "choose another library, or put a prefix before the ids: --prefix",
                    sync=each["name"],
                )
        if not same:
            return await self._connectors.add(wanted, None)
        before = same[0]["name"]
        if before in self._holders:
            raise self._held(before)

        def write(tx: Transaction) -> None:
            if wanted.name == before:
                store.redefine(tx, "sync", before, self._connectors.stored(wanted))
                store.pause(tx, "sync", before, wanted.paused)
                return
            store.add(tx, "sync", wanted.name, self._connectors.stored(wanted), wanted.paused)
            sync_files.rename(tx, before, wanted.name)
            store.remove(tx, "sync", before)

        await self._connectors.change(write)
        return await self._connectors.show("sync", wanted.name)

    @contextmanager
    def hold(self, name: str, who: str) -> Iterator[None]:
        """Holds a sync until the block ends. Raises VecError `busy`, naming who holds it."""
        if name in self._holders:
            raise self._held(name)
        self._holders[name] = who
        try:
            yield
        finally:
            del self._holders[name]

    def _held(self, name: str) -> VecError:
        return VecError(
            Code.BUSY,
            f"the sync {name!r} is being run by {self._holders[name]}",
            "wait for it, or stop it: `vec sync pause` stops one that the daemon runs",
            holder=self._holders[name],
        )

    async def files(self, name: str, after: bytes) -> list[SyncFile]:
        """A page of what is known of the files of a sync, behind the path `after` (exclusive). Raises VecError
        `not_found`."""

        def read() -> list[SyncFile]:
            with self._engine.database.read_transaction() as db:
                library = str(store.find(db, "sync", name).definition["library"])
                return sync_files.page(db, name, self._library_id(library), after, limits.SYNC_PAGE_FILES)

        return await self._engine.read(read)

    def _library_id(self, name: str) -> int:
        """0 for a library that does not exist."""
        library = self._engine.database.catalogue.by_name.get(name)
        return 0 if library is None else library.library_id


@dataclass(frozen=True, slots=True)
class SyncCommit:
    """One commit of a sync, as the process that runs it sends it."""

    name: str
    generation: int
    library: str
    library_id: int | None  # which one it is of; 0: one that does not exist yet; None: any
    documents: Sequence[Any]  # as in the op `ingest`
    files: Sequence[SyncFile]  # whose documents they are
    gone: Sequence[bytes]  # paths that are no files of the sync any more
    run: Mapping[str, Any] | None  # counts of a run that is complete with it

    async def apply(self, engine: Engine, slot: WriteSlot) -> dict[str, Any]:
        """Writes all of it, or, if documents are refused, nothing: the counts, `seq`, and `refused`, a map of an error
        with its `index` for each of them.

        Raises VecError `lease_lost` for an earlier generation or library, and what an ingest raises. Then nothing was
        written.
        """
        documents = list(self.documents)
        if not documents:
            return await self._apply_without_documents(engine, slot)
        library = await library_after_writes(engine, self.library, slot, documents)
        self._check_library(library)
        batches: list[DocumentBatch] = []
        refused: list[tuple[int, VecError]] = []
        start = 0
        while start < len(documents):
            slices = prepare_in_slices(engine, library, documents, start, False)
            prepared = await engine.prepare((slot.sender, library.name), slices, cost_s(documents, start))
            batches.append(prepared.batch)
            refused += prepared.refused
            start = prepared.stop
        if refused:
            return {
                "library_id": library.library_id,
                "refused": [{"index": index, **error.to_wire()} for index, error in refused],
            }
        writing = WriteDocuments(library, batches)

        def write(tx: Transaction) -> tuple[EffectResult, int, int]:
            store.check_generation(tx.db, "sync", self.name, self.generation)
            self._check_library(tx.catalogue.by_name.get(self.library))
            written = writing.apply(engine, tx)
            return written, tx.seq, self._write_files(tx)

        async with slot:
            future = engine.database.submit(write, writing.rows + len(self.files), sender=slot.sender)
        written, seq, library_id = await asyncio.wrap_future(future)
        counts = {name: count for name, count in written.counts.items() if name != "failed"}
        return {**counts, "seq": seq, "library_id": library_id, "refused": []}

    async def _apply_without_documents(self, engine: Engine, slot: WriteSlot) -> dict[str, Any]:
        def write(tx: Transaction) -> dict[str, int]:
            store.check_generation(tx.db, "sync", self.name, self.generation)
            self._check_library(tx.catalogue.by_name.get(self.library))
            return {"library_id": self._write_files(tx), "seq": tx.seq}

        async with slot:
            future = engine.database.submit(write, len(self.files) + len(self.gone) + 1, sender=slot.sender)
        answer = await asyncio.wrap_future(future)
        return {**dict.fromkeys(("added", "updated", "unchanged", "deleted"), 0), **answer, "refused": []}

    def _check_library(self, library: Library | None) -> None:
        """Raises VecError `lease_lost` if it is not the library that the commit is of."""
        library_id = 0 if library is None else library.library_id
        if self.library_id is not None and library_id != self.library_id:
            raise VecError(
                Code.LEASE_LOST,
                f"library {self.library!r} was deleted, or created, since the sync {self.name!r} read what is known of"
                " its files",
                "read it again: sync.files",
            )

    def _write_files(self, tx: Transaction) -> int:
        """Returns the id of the library; 0: it does not exist."""
        library = tx.catalogue.by_name.get(self.library)
        library_id = 0 if library is None else library.library_id
        sync_files.remove(tx, self.name, self.gone)
        sync_files.put(tx, self.name, library_id, self.files)
        if self.run is not None:
            sync_files.set_run(tx, self.name, self.run)
        return library_id
