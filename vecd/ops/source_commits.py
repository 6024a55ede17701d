"""Commits of sources: documents, offsets and dead letters in one transaction.

That is what makes a source exactly-once: its documents are stored if and only if its offsets have moved behind their
messages. A commit names the offsets that it follows, so one that was sent twice, or comes from a second runner, is
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..engine.engine import Engine
from ..engine.ingest import library_after_writes
from ..engine.prepare import cost_s, prepare_in_slices
from ..errors import Code, VecError
from ..jobs.effects import EffectResult, WriteDocuments
from ..store import connectors as store
from ..store.connectors import NewLetter
from ..store.documents import DocumentBatch
from ..store.transaction import Transaction
from ..write_order import WriteSlot


@dataclass(frozen=True, slots=True)
class SourceCommit:
    """One commit of a source, as its runner sends it."""

    name: str
    generation: int
    library: str
    offsets: Mapping[str, str]  # by partition: of the last message (inclusive) that is applied with it
    expected: Mapping[str, str | None]  # by partition: what is stored now; None: nothing
    documents: Sequence[Any]  # as in the op `ingest`
    letters: Sequence[NewLetter]
    resolved: Sequence[int]  # ids of dead letters that are applied with it

    async def apply(self, engine: Engine, slot: WriteSlot) -> dict[str, Any]:
        """Writes all of it, or, if documents are refused, nothing: the counts, `seq`, and `refused`, a map of an error
        with its `index` for each of them.

        Raises VecError `lease_lost` for an earlier generation, or if other offsets are stored; `busy` for too many dead
        letters; and what an ingest raises. Then nothing was written.
        """
        documents = list(self.documents)
        library = await library_after_writes(engine, self.library, slot, documents)
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
            return {"refused": [{"index": index, **error.to_wire()} for index, error in refused]}
        writing = WriteDocuments(library, batches)

        def write(tx: Transaction) -> tuple[EffectResult, int]:
            self._check(tx)
            written = writing.apply(engine, tx)
            store.set_offsets(tx, self.name, self.offsets)
            if self.resolved:
                store.drop_letters(tx, "source", self.name, self.resolved)
            if self.letters:
                store.add_letters(tx, "source", self.name, self.letters)
            return written, tx.seq

        async with slot:
            future = engine.database.submit(write, writing.rows + len(self.letters), sender=slot.sender)
        written, seq = await asyncio.wrap_future(future)
        counts = {name: count for name, count in written.counts.items() if name != "failed"}
        return {**counts, "seq": seq, "refused": []}

    def _check(self, tx: Transaction) -> None:
        store.check_generation(tx.db, "source", self.name, self.generation)
        stored = store.offsets(tx.db, self.name)
        for partition, expected in self.expected.items():
            if stored.get(partition) != expected:
                raise VecError(
                    Code.LEASE_LOST,
                    f"source {self.name!r}: the stored offset of partition {partition!r} is {stored.get(partition)!r},"
                    f" not {expected!r}: these messages may have been applied already",
                    "begin behind the stored offsets (source.offsets)",
                )
