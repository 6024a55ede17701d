"""reembed: changes the embedder of a library, or the length of its chunks.

New chunks and vectors (drafts) are computed beside the old ones, a few documents per step, including documents that are
written in the meantime. One transaction then replaces all old ones: a search before it finds the old ones, the next one
the new. Reads continue, and writes wait only for this transaction: 4.5 s for 100,000 documents, of 43 s in total
(tests/bench/reembed.py). Watches see an update of each document.

A text that was split into chunks is joined again from them, with an empty line between chunks; so are the texts of a
document with several texts. Vectors that were ingested are replaced, except those of chunks without a text.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...errors import Code, VecError
from ...store import reembed as store
from ...store.catalogue import Library
from ...store.documents import indexed
from ...store.reembed import Drafted, ReembedSource
from ...store.transaction import Transaction
from ...text import embedders
from ...text.chunking import chunks_of
from ..effects import Effect, EffectResult
from .kind import JobKind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

_BETWEEN_CHUNKS = "\n\n"

Make = Callable[[list[ReembedSource]], dict[int, Drafted]]


class Reembed(JobKind):
    """Drafts are stored after each step, so a crash costs one step."""

    name = "reembed"
    what = "change the embedder of a library, or the length of its chunks"
    unit = "documents"
    library = "required"
    params: ClassVar[Mapping[str, Param]] = {
        "embedder": Param("the new embedder; default: the current one", str),
        "chunk_chars": Param(
            "characters of a chunk; default: the current value", int, low=50, high=limits.CHUNK_CHARS_MAX
        ),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        assert library is not None
        found = engine.database.catalogue.find(library)
        wanted = _wanted(found, params)
        if (wanted.embedder, wanted.chunk_chars) == (found.embedder, found.chunk_chars):
            raise VecError(
                Code.INVALID_REQUEST,
                f"library {library!r} already has the embedder {found.embedder!r} and chunks of {found.chunk_chars:,}"
                " characters",
                "use another embedder or chunk_chars",
                field="embedder",
            )
        return params

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        assert name is not None
        at = run.checkpoint or {"after": -1}
        switched: int | None = at.get("switched")  # as earlier versions stored it
        if "switched" in run.counts:
            switched = run.count("switched")
        if switched is None:
            library = engine.database.catalogue.find(name)
            wanted = _wanted(library, run.params)
            make = partial(_drafts, engine, library, wanted)
            drafts = _recalled(engine, run.job.job_id)
            while switched is None:
                yield from _caught_up(run, library, make, drafts, at)
                written = yield Step(effect=SwitchDrafts(library, wanted, drafts))
                assert written is not None
                switched = written.result().value
            del drafts
        yield from _cleaned(run.job.job_id)
        library = engine.database.catalogue.find(name)
        return {"documents": switched, "embedder": library.embedder, "chunk_chars": library.chunk_chars}


def _wanted(library: Library, params: Mapping[str, Any]) -> Library:
    """The library with the new settings. Raises VecError `unsupported`."""
    embedder = params.get("embedder", library.embedder)
    dimension = embedders.dimension_of(embedder)
    if dimension is None:
        raise VecError(Code.UNSUPPORTED, f"the embedder {embedder!r} makes no vectors", field="embedder")
    if library.dimension not in (None, dimension):
        raise VecError(
            Code.UNSUPPORTED,
            f"library {library.name!r} holds {library.dimension}-dimension vectors, and {embedder!r} makes"
            f" {dimension}-dimension ones",
            "create another library, and ingest an export of this one into it",
            field="embedder",
        )
    return replace(library, embedder=embedder, chunk_chars=params.get("chunk_chars", library.chunk_chars))


def _drafts(engine: Engine, library: Library, wanted: Library, sources: list[ReembedSource]) -> dict[int, Drafted]:
    """Drafts of these documents, by label, with one call of the embedder. Raises VecError."""
    embedder = engine.embedder(wanted.embedder)
    assert embedder is not None
    texts = {each.label: _chunks(library, wanted, each) for each in sources}
    titled = [(each.title, text) for each in sources for text in texts[each.label] if text is not None]
    made = iter(embedder.embed([indexed(title, text) or "" for title, text in titled])) if titled else iter(())
    drafts = {}
    for each in sources:
        chunks = texts[each.label]
        vectors = [
            each.vectors[place] if text is None else next(made).astype("<f4").tobytes()
            for place, text in enumerate(chunks)
        ]
        drafts[each.label] = Drafted(chunks, b"".join(vectors))
    return drafts


def _chunks(library: Library, wanted: Library, source: ReembedSource) -> list[str | None]:
    """The texts of its new chunks; a document with a chunk without text keeps its chunks."""
    texts = [text for text in source.texts if text is not None]
    if wanted.chunk_chars == library.chunk_chars or len(texts) < len(source.texts):
        return source.texts
    chunks = chunks_of(_BETWEEN_CHUNKS.join(texts), wanted.chunk_chars)
    if len(chunks) > limits.DOCUMENT_CHUNKS_MAX:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"document {source.id!r} would have {len(chunks):,} chunks, over the limit of"
            f" {limits.DOCUMENT_CHUNKS_MAX:,}",
            "use a larger chunk_chars",
        )
    return list(chunks)


def _recalled(engine: Engine, job_id: int) -> dict[int, Drafted]:
    """The stored drafts of earlier attempts. Blocks."""
    drafts: dict[int, Drafted] = {}
    with engine.database.read_transaction() as db:
        while page := store.kept(db, job_id, max(drafts, default=-1), limits.REEMBED_DOCUMENTS):
            drafts |= page
    return drafts


def _caught_up(
    run: Run, library: Library, make: Make, drafts: dict[int, Drafted], at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Drafts of all documents that have been added since; moves the checkpoint `at` on."""
    database, job_id = run.engine.database, run.job.job_id
    while True:
        with database.read_transaction() as db:
            page = store.sources(db, library.library_id, at["after"], limits.REEMBED_DOCUMENTS)
        if not page:
            return
        made = make(page)
        drafts |= made
        at["after"] = page[-1].label
        total = max(len(drafts), database.catalogue.by_id[library.library_id].documents)
        yield Step({"after": at["after"]}, KeepDrafts(job_id, made), done=len(drafts), total=total)


def _cleaned(job_id: int) -> Generator[Step, Future[EffectResult] | None, None]:
    """Deletes the drafts."""
    deleted = 1
    while deleted:
        written = yield Step(effect=ForgetDrafts(job_id))
        assert written is not None
        deleted = written.result().value


# --- effects --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeepDrafts(Effect):
    """Stores drafts beside the documents."""

    job_id: int
    drafts: dict[int, Drafted]

    @property
    def rows(self) -> int:
        return len(self.drafts)

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        store.keep(tx, self.job_id, self.drafts)
        return EffectResult()


@dataclass(frozen=True, slots=True)
class SwitchDrafts(Effect):
    """Replaces the documents' chunks by the drafts. The value is their number; None, and nothing is done, if too many
    documents have been added in the meantime."""

    library: Library
    wanted: Library
    drafts: dict[int, Drafted]

    @property
    def rows(self) -> int:
        return len(self.drafts)

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        make = partial(_drafts, engine, self.library, self.wanted)
        count = store.switch(
            tx, self.library, self.wanted.embedder, self.wanted.chunk_chars, self.drafts, make, limits.REEMBED_AT_SWITCH
        )  # fmt: skip
        return EffectResult({} if count is None else {"switched": count}, value=count)


@dataclass(frozen=True, slots=True)
class ForgetDrafts(Effect):
    """Deletes a bounded number of drafts of a job. The value is their number."""

    job_id: int
    frees: ClassVar[bool] = True

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        return EffectResult(value=store.forget(tx, self.job_id, limits.REEMBED_DOCUMENTS))
