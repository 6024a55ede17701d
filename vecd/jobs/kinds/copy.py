"""copy: copies a library, with its settings and its vectors, into a new one; nothing is embedded.

Documents are copied in pages, one transaction per step, while reads and writes of both libraries continue. The last
step finds nothing more to copy or to delete, and so the copy equals the source as of one moment. The log has the new
library and its documents as events, so watches, relays and mirrors of it see all of it.

A job that ends before that leaves what it has copied; a retry goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...engine import libraries as operations
from ...errors import Code, VecError
from ...parameters import Parameter
from ...store import copy as store
from ...store import documents, libraries
from ...store.catalogue import Library
from ...store.documents import DocumentBatch
from ...store.transaction import Transaction
from ..effects import Effect, EffectResult
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Copy(JobKind):
    """The checkpoint has the label of the last document that was copied."""

    name = "copy"
    what = "copy a library into a new one, without embedding again"
    unit = "documents"
    library = "required"
    params: ClassVar[Mapping[str, Parameter]] = {"to": Parameter("the name of the new library", str, required=True)}

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        operations.check_name(params["to"])
        if params["to"] in engine.database.catalogue.by_name:
            raise VecError(Code.EXISTS, f"library {params['to']!r} already exists", library=params["to"])
        return params

    def steps(self, run: Run) -> Steps:
        database = run.engine.database
        assert run.job.library is not None
        source_id = database.catalogue.find(run.job.library).library_id
        at, target_id = run.checkpoint, run.count("target_id")
        if at is None:
            at = {"after": -1, "copied": 0}
            written = yield Step({**at}, CreateCopy(source_id, run.params["to"]))
            assert written is not None
            target_id = written.result().counts["target_id"]
        finished = False
        while not finished:
            with database.read_transaction() as db:
                batch, last = store.page(db, source_id, at["after"], limits.PART_CHUNKS)
            if batch.entries:
                at = {"after": last, "copied": at["copied"] + len(batch.entries)}
                total = max(at["copied"], database.catalogue.by_id[source_id].documents)
                yield Step({**at}, CopyDocuments(source_id, target_id, batch), done=at["copied"], total=total)
                continue
            with database.read_transaction() as db:
                surplus, seq = store.surplus(db, source_id, target_id)
            part = surplus[: limits.DELETE_DOCUMENTS]
            written = yield Step({**at}, FinishCopy(source_id, target_id, at["after"], part, seq))
            assert written is not None
            finished = written.result().value and len(part) == len(surplus)
        target = database.catalogue.by_id[target_id]
        return {"library": target.name, "documents": target.documents, "chunks": target.chunks, "seq": run.seq}


# --- effects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateCopy(Effect):
    """Creates the new library. Its id is the count `target_id`."""

    source_id: int
    name: str

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        target = store.create(tx, libraries.living(tx, self.source_id), self.name)
        return EffectResult({"target_id": target.library_id}, tx.seq)


@dataclass(frozen=True, slots=True)
class CopyDocuments(Effect):
    """Writes documents of the source to the copy."""

    source_id: int
    target_id: int
    batch: DocumentBatch

    @property
    def rows(self) -> int:
        return len(self.batch.entries) + len(self.batch.texts)

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        _, target = _checked(tx, self.source_id, self.target_id)
        target = libraries.pin_dimension(tx, target, self.batch.vectors.shape[1])
        documents.write(tx, target, self.batch)
        return EffectResult(seq=tx.seq)


@dataclass(frozen=True, slots=True)
class FinishCopy(Effect):
    """Deletes documents of the copy that the source does not have: `surplus`, found at `seq`, and what was removed
    since. The value is whether the copy has all documents of the source."""

    source_id: int
    target_id: int
    after: int  # the label of the last document that was copied
    surplus: list[str]
    seq: int

    @property
    def rows(self) -> int:
        return len(self.surplus) + 1

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        source, target = _checked(tx, self.source_id, self.target_id)
        ids = {*self.surplus, *store.removed_since(tx, self.source_id, self.seq)}
        store.delete_surplus(tx, source, target, sorted(ids))
        batch, _ = store.page(tx.db, self.source_id, self.after, 1)
        return EffectResult(seq=tx.seq, value=not batch.entries)


def _checked(tx: Transaction, source_id: int, target_id: int) -> tuple[Library, Library]:
    """The source and the copy. Raises VecError `not_found` if one was deleted, or `busy` if they differ."""
    source, target = libraries.living(tx, source_id), libraries.living(tx, target_id)
    store.check_settings(source, target)
    return source, target
