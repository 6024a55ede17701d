"""Effects: the writes of a step of a job, as data. Each effect is one change of the store, applied in the transaction
that commits the step.

An effect is data, not a closure, so a step can come from another process. Workers outside the daemon can send those in
WIRE (op `jobs.checkpoint`, vec-protocol(7)); the others are useful inside the daemon only.

Adding an effect is one class here, and one entry in WIRE if workers outside may send it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final

from .. import limits
from ..engine import documents, ingest
from ..engine.libraries import find
from ..engine.prepare import NO_VECTORS, prepare_in_slices
from ..engine.vacuum import deleting, giving_back
from ..errors import Code, VecError
from ..feed import retention
from ..json_values import id_text
from ..store import documents as store
from ..store import integrity, job_transitions
from ..store.catalogue import Library
from ..store.documents import DocumentBatch, Entry
from ..store.jobs import Job
from ..store.transaction import Transaction

if TYPE_CHECKING:
    from ..engine.engine import Engine


@dataclass(frozen=True, slots=True)
class EffectResult:
    """The outcome of an effect. The sum of `counts` over all steps is in the checkpoint of the job, as `counts`."""

    counts: dict[str, int] = field(default_factory=dict)
    seq: int | None = None  # the head of the log after it, for the checkpoint; None: not needed
    value: Any = None  # for the kind of job


class Effect(ABC):
    """One change of the store."""

    frees: ClassVar[bool] = False  # frees space, so it may use the reserve when the disk is full

    @property
    def rows(self) -> int:
        """The approximate number of rows that it writes."""
        return 1

    @abstractmethod
    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        """On the writer; may be called again after a rollback. Raises VecError."""


# --- documents ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteDocuments(Effect):
    """Adds, updates and deletes prepared documents, as an ingest does."""

    library: Library  # as it was when they were prepared
    batches: list[DocumentBatch]
    refused: int = 0  # rejected documents; counted as `failed`

    @property
    def rows(self) -> int:
        return sum(len(batch.entries) + len(batch.texts) for batch in self.batches) + 1

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        counts = dict.fromkeys(("added", "updated", "unchanged", "deleted"), 0)
        seq = None
        for batch in self.batches:
            if batch.entries or batch.creates:
                try:
                    outcomes, seq = ingest.writing(engine, self.library, batch)(tx)
                except VecError as error:
                    if error.code != Code.DIMENSION_MISMATCH or self.library.dimension is not None:
                        raise
                    # Another write has just set the dimension: the next attempt checks each document against it.
                    raise VecError(Code.BUSY, error.message, error.hint) from error
                for outcome in outcomes:
                    counts[outcome.status] += 1
        return EffectResult({**counts, "failed": self.refused}, seq)


@dataclass(frozen=True, slots=True)
class DeleteDocuments(Effect):
    """Deletes documents by id; unknown ids are counted as `missing`."""

    library: Library
    ids: list[str]
    frees: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return len(self.ids)

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        entries = [Entry(index, each, delete=True) for index, each in enumerate(self.ids)]
        library = ingest.current_library(tx, self.library)
        outcomes = store.write(tx, library, DocumentBatch(entries, [], [], NO_VECTORS))
        deleted = sum(outcome.seq is not None for outcome in outcomes)
        return EffectResult({"deleted": deleted, "missing": len(outcomes) - deleted}, tx.seq)


@dataclass(frozen=True, slots=True)
class DeleteVersions(Effect):
    """Deletes the documents that have not changed since they were found."""

    library: Library
    versions: list[documents.Version]
    frees: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return len(self.versions)

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        return EffectResult({"deleted": documents.delete_unchanged(self.library, self.versions, tx)[0]})


# --- the store as a whole -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrimLog(Effect):
    """Moves the log's horizon up to a seq (inclusive). The value is `{"trimmed","held_by"}`."""

    upto: int
    past_consumers: bool
    frees: ClassVar[bool] = True

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        trimmed, held_by = retention.trim_to(tx, self.upto, self.past_consumers)
        return EffectResult(value={"trimmed": trimmed, "held_by": held_by})


@dataclass(frozen=True, slots=True)
class DeleteTrimmed(Effect):
    """Deletes a bounded number of rows that the log does not refer to any more. The value is their number."""

    frees: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return limits.VACUUM_ROWS

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        return EffectResult(value=deleting(engine.database, engine.views)(tx))


@dataclass(frozen=True, slots=True)
class ReleasePages(Effect):
    """Returns a bounded number of free pages to the file system. The value is their number."""

    frees: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return limits.VACUUM_ROWS

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        return EffectResult(value=giving_back(engine.database)(tx))


@dataclass(frozen=True, slots=True)
class PruneJobs(Effect):
    """Deletes up to `count` jobs that ended before a time, or exceed the number to keep. The value is the jobs."""

    before_us: int
    keep: int
    count: int
    frees: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return self.count

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        pruned = job_transitions.prune(tx, self.before_us, self.keep, self.count)
        return EffectResult({"pruned": len(pruned)}, value=pruned)


@dataclass(frozen=True, slots=True)
class AddChecksums(Effect):
    """Adds checksums to rows that an earlier version wrote without them."""

    versions: list[Any]  # as store.integrity.documents returns them

    @property
    def rows(self) -> int:
        return len(self.versions)

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        integrity.add_checksums(tx, versions=self.versions)
        return EffectResult()


# --- from other processes -------------------------------------------------------------------------------------------

#: A prepared effect of a worker, and the rejected documents (index, error).
Decoded = tuple[Effect, list[tuple[int, VecError]]]


async def decode(engine: Engine, job: Job, body: dict[str, Any]) -> Decoded:
    """Prepares the effect that a worker outside the daemon has sent. Raises VecError `invalid_request`, `not_found` or
    `embedder_failed`."""
    name = body.get("type")
    make = WIRE.get(name) if isinstance(name, str) else None
    if make is None:
        raise VecError(
            Code.INVALID_REQUEST,
            f"unknown effect {name!r:.60}",
            f"effects: {', '.join(WIRE)}",
            field="effect",
        )
    if job.library is None:
        raise VecError(
            Code.INVALID_REQUEST, f"job {job.job_id} has no library, so it cannot write documents", field="effect"
        )
    return await make(engine, job, find(engine, job.library), body)


async def _documents(engine: Engine, job: Job, library: Library, body: dict[str, Any]) -> Decoded:
    """`documents` as in the op `ingest`: with vectors, or with texts for the library's embedder."""
    wanted = _list(body, "documents")
    batches: list[DocumentBatch] = []
    refused: list[tuple[int, VecError]] = []
    start = 0
    while start < len(wanted):
        slices = prepare_in_slices(engine, library, wanted, start, False)
        prepared = await engine.prepare(("job", job.job_id), slices, limits.PREPARE_SLICE_S)
        batches.append(prepared.batch)
        refused += prepared.refused
        start = prepared.stop
    return WriteDocuments(library, batches, len(refused)), refused


async def _delete(engine: Engine, job: Job, library: Library, body: dict[str, Any]) -> Decoded:
    """`ids` of documents."""
    ids = [id_text(each) for each in _list(body, "ids")]
    if not all(isinstance(each, str) for each in ids):
        raise VecError(Code.INVALID_REQUEST, "an effect 'delete' needs a list of strings in 'ids'", field="effect")
    return DeleteDocuments(library, ids), []


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list) or len(value) > limits.STEP_DOCUMENTS:
        raise VecError(
            Code.INVALID_REQUEST,
            f"an effect {body['type']!r} needs a list of at most {limits.STEP_DOCUMENTS:,} items in {name!r}",
            field="effect",
        )
    return value


_Receive = Callable[["Engine", Job, Library, dict[str, Any]], Awaitable[Decoded]]

#: The effects that workers outside the daemon can send, by type.
WIRE: Final[dict[str, _Receive]] = {
    "documents": _documents,
    "delete": _delete,
}
