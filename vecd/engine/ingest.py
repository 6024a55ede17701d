"""Ingest: writes a request's documents, in batches of bounded size, in the order of the sender's writes.

A batch is prepared in slices (prepare.py) and written in one transaction; other requests' work goes between. While a
batch is being written the next one is prepared. If nothing depends on the outcome of the last batch, the sender's next
write may be prepared and queued behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import limits
from ..errors import Code, VecError
from ..store import documents as store
from ..store import libraries as store_libraries
from ..store.catalogue import Library
from ..store.documents import DocumentBatch, Outcome
from ..store.transaction import Transaction
from ..write_order import WriteSlot
from .engine import Engine
from .libraries import find, find_for_writing
from .prepare import PreparedBatch, cost_s, prepare_in_slices


@dataclass(slots=True)
class IngestResult:
    """The outcome of a request's documents: `refused` are (index, why), in the order of their indexes."""

    outcomes: list[Outcome]
    refused: list[tuple[int, VecError]]
    seq: int  # the log's head at the last commit
    created: Library | None = None  # the library, if these documents made it

    def add(self, prepared: PreparedBatch, written: tuple[list[Outcome], int]) -> None:
        self.created = self.created or prepared.batch.created
        outcomes, self.seq = written
        self.outcomes += outcomes
        self.refused += prepared.refused


async def ingest(
    engine: Engine, name: str, documents: list[Any], slot: WriteSlot, *, strict: bool = False, create: bool = False
) -> IngestResult:
    """Writes documents; when it returns they are durable, searchable and logged.

    With `strict`, nothing from the first refused document on is written. With `create`, the first document that is
    written creates a library that does not exist. Raises VecError `not_found`, `embedder_failed`, or what the store
    raises; then the batches before the one that failed are written.
    """
    library = await library_after_writes(engine, name, slot, documents if create else None)
    result = IngestResult([], [], engine.database.head)
    batches = _PreparedBatches(engine, library, documents, strict, slot)
    with batches:
        prepared = await batches.at(0)
        async with slot:
            while prepared.stop < len(documents) or library.dimension is None:
                # What comes next depends on the outcome of this batch: wait for it.
                start = prepared.stop
                try:
                    result.add(prepared, await _write(engine, library, prepared.batch, slot))
                except VecError as error:
                    if error.code != Code.DIMENSION_MISMATCH or library.dimension is not None:
                        raise
                    # Another sender's vector has just set the dimension: check each document against it.
                    start = prepared.start
                if start == len(documents):
                    return result
                left = documents[start:] if create else None
                library = batches.library = _library(engine, name, left)
                prepared = await batches.at(start)
            # The sender's next write may be queued before this one is on disk.
            written = _write(engine, library, prepared.batch, slot)
    result.add(prepared, await written)
    return result


class _PreparedBatches:
    """A request's documents, prepared a batch at a time. Behind each batch the next one is begun, unless it depends on
    the outcome of this one; several are, if they are embedded outside the daemon. `with` cancels them at the end."""

    def __init__(self, engine: Engine, library: Library, documents: list[Any], strict: bool, slot: WriteSlot) -> None:
        self.library = library
        self._engine = engine
        self._documents = documents
        self._strict = strict
        self._flow = (slot.sender, library.name)
        self._loop = asyncio.get_running_loop()
        self._begun: deque[tuple[int, asyncio.Future[PreparedBatch]]] = deque()  # by their starts
        self._cut = 0  # where the last one ends, if that is known

    async def at(self, start: int) -> PreparedBatch:
        """The batch that begins with the document `start`. Raises VecError `embedder_failed`."""
        if not self._begun or self._begun[0][0] != start:
            self._cancel()
            self._begin(start)
        prepared = await self._begun.popleft()[1]
        if self._begun:
            self._begin_next()
        elif self._ahead and prepared.stop < len(self._documents):
            self._begin(prepared.stop)
        return prepared

    @property
    def _ahead(self) -> bool:
        """Whether a batch does not depend on the one before it."""
        return self.library.dimension is not None

    def _begin(self, start: int) -> None:
        self._cut = start
        slices = prepare_in_slices(
            self._engine, self.library, self._documents, start, self._strict,
            flow=self._flow, cut=partial(self._cut_soon, start),
        )  # fmt: skip
        self._begun.append((start, self._engine.prepare(self._flow, slices, cost_s(self._documents, start))))

    def _cut_soon(self, start: int, stop: int) -> None:
        """On any thread."""
        self._loop.call_soon_threadsafe(self._cut_at, start, stop)

    def _cut_at(self, start: int, stop: int) -> None:
        """The batch from `start` on is being embedded elsewhere, and ends at `stop`."""
        if self._begun and self._begun[-1][0] == start:
            self._cut = stop
            self._begin_next()

    def _begin_next(self) -> None:
        more = self._begun[-1][0] < self._cut < len(self._documents)
        if self._ahead and more and len(self._begun) < limits.INGEST_AHEAD:
            self._begin(self._cut)

    def _cancel(self) -> None:
        for _, future in self._begun:
            future.cancel()
        self._begun.clear()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._cancel()


def _write(
    engine: Engine, library: Library, batch: DocumentBatch, slot: WriteSlot
) -> asyncio.Future[tuple[list[Outcome], int]]:
    """Puts a batch into the store's queue; the future is done when it is on disk."""
    work = writing(engine, library, batch)
    rows = len(batch.entries) + len(batch.texts)
    return asyncio.wrap_future(engine.database.submit(work, rows, sender=slot.sender))


def writing(
    engine: Engine, library: Library, batch: DocumentBatch
) -> Callable[[Transaction], tuple[list[Outcome], int]]:
    """The write of a batch that was prepared for this library, as work for the writer; it returns the outcomes and the
    log's head. It raises VecError `not_found`, `busy` or `dimension_mismatch`."""

    def write(tx: Transaction) -> tuple[list[Outcome], int]:
        if (
            not batch.texts and not batch.creates and library.library_id == 0
        ):  # nothing to add to a library that does not exist yet
            return [Outcome(entry.index, entry.id, "unchanged", None) for entry in batch.entries], tx.seq
        new = library.library_id == 0 and library.name not in tx.catalogue.by_name
        target = current_library(tx, library)
        if target.embedder != library.embedder and batch.embedded:  # the library was re-embedded meanwhile
            _embed_again(engine, target, batch)
        if len(batch.vectors):
            target = store_libraries.pin_dimension(tx, target, batch.vectors.shape[1])
        batch.created = target if new else None
        return store.write(tx, target, batch), tx.seq

    return write


def _embed_again(engine: Engine, library: Library, batch: DocumentBatch) -> None:
    """Embeds the batch with the library's present embedder. Runs on the writer: it is rare, and a batch is small.

    Raises VecError `busy` if that embedder is slow.
    """
    if engine.executor.offloads(library.embedder):
        raise VecError(Code.BUSY, f"library {library.name!r} was re-embedded meanwhile", "send it again")
    embedder = engine.embedder(library.embedder)
    assert embedder is not None
    made = embedder.embed([batch.indexed[row] or "" for row in batch.embedded])
    if len(batch.embedded) < len(batch.vectors) and made.shape[1] != batch.vectors.shape[1]:
        raise VecError(Code.BUSY, f"library {library.name!r} was re-embedded meanwhile", "send it again")
    vectors = np.empty((len(batch.vectors), made.shape[1]), np.float32)
    if len(batch.embedded) < len(vectors):
        vectors[:] = batch.vectors
    vectors[batch.embedded] = made
    batch.vectors = vectors
    batch.sums = None  # the sums of the earlier vectors


async def library_after_writes(
    engine: Engine, name: str, slot: WriteSlot, documents: list[Any] | None = None
) -> Library:
    """The library, as the sender's earlier writes leave it. With `documents`, a library that does not exist is one that
    they will create. Raises VecError `not_found`."""
    await earlier_writes(engine, name, slot)
    return _library(engine, name, documents)


async def earlier_writes(engine: Engine, name: str, slot: WriteSlot) -> None:
    """Waits for the sender's earlier writes, as far as they may be creating or deleting the library."""
    await slot.libraries_settled()
    if name not in engine.database.catalogue.by_name:  # the first write may make it
        await slot.wait()
        await asyncio.wrap_future(engine.database.submit(lambda tx: None, sender=slot.sender))


def _library(engine: Engine, name: str, documents: list[Any] | None) -> Library:
    """The library; with `documents`, if it does not exist, the one that they will create. Raises VecError."""
    return find(engine, name) if documents is None else find_for_writing(engine, name, documents)


def current_library(tx: Transaction, library: Library) -> Library:
    """The library that a batch was prepared for, as it is now; one that does not exist is made here by its first write.

    Raises VecError `not_found`, or `busy` if a different library has taken its name meanwhile.
    """
    if library.library_id == 0 and library.name not in tx.catalogue.by_name:
        return store_libraries.create(tx, library)[0]
    same = tx.catalogue.by_id.get(library.library_id)
    if same is not None and not same.deleted:
        return same  # perhaps renamed meanwhile
    now = tx.catalogue.find(library.name)
    if now.library_id != library.library_id and (
        (now.embedder, now.chunk_chars, now.chunk_overlap)
        != (library.embedder, library.chunk_chars, library.chunk_overlap)
        or (None not in (now.dimension, library.dimension) and now.dimension != library.dimension)
    ):
        raise VecError(Code.BUSY, f"library {library.name!r} was deleted and created again meanwhile", "send it again")
    return now
