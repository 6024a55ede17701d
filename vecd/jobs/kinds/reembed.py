"""reembed: changes the embedder of a library, or the length of its chunks.

New chunks and vectors (drafts) are computed beside the old ones, a few documents per step, including documents that are
written in the meantime. One transaction then replaces all old ones: a search before it finds the old ones, the next one
the new. Reads continue, and writes wait only for this transaction: 4.5 s for 100,000 documents, of 43 s in total
(tests/bench/reembed.py). Watches see an update of each document.

Several pages of documents are in flight: their texts are embedding tasks, which workers outside the daemon share
(workers/leased_tasks.py). Drafts are stored in the order of the documents. Without workers, the daemon embeds the texts
itself, a page at a time.

A text that was split into chunks is joined again from them, with an empty line between chunks; so are the texts of a
document with several texts. Vectors that were ingested are replaced, except those of chunks without a text.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Mapping, Sequence
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
from ...workers.leased_tasks import Batch, Vectors
from ..effects import Effect, EffectResult
from .kind import JobKind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

_BETWEEN_CHUNKS = "\n\n"


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
            drafts = _recalled(engine, run.job.job_id)
            while switched is None:
                yield from _caught_up(run, library, wanted, drafts, at)
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


class _Page:
    """Documents with their new chunks, whose vectors are still to be computed from `texts`."""

    def __init__(self, library: Library, wanted: Library, sources: list[ReembedSource]) -> None:
        """Raises VecError `invalid_document`."""
        self._sources = sources
        self._chunks = {each.label: _chunks(library, wanted, each) for each in sources}
        self.last = sources[-1].label
        self.texts = [
            indexed(each.title, text) or "" for each in sources for text in self._chunks[each.label] if text is not None
        ]

    def drafts(self, vectors: Vectors | None) -> dict[int, Drafted]:
        """Drafts of the documents, by label, with the vectors of `texts` (None if there are no texts)."""
        made = iter(() if vectors is None else vectors.astype("<f4", copy=False))
        drafts = {}
        for each in self._sources:
            chunks = self._chunks[each.label]
            rows = [each.vectors[place] if text is None else next(made).tobytes() for place, text in enumerate(chunks)]
            drafts[each.label] = Drafted(chunks, b"".join(rows))
        return drafts


def _embed(engine: Engine, name: str, texts: Sequence[str]) -> Vectors:
    """Embeds texts in this process. Blocks; raises VecError."""
    embedder = engine.embedder(name)
    assert embedder is not None
    return embedder.embed(texts)


def _drafts(engine: Engine, library: Library, wanted: Library, sources: list[ReembedSource]) -> dict[int, Drafted]:
    """Drafts of these documents, by label, with one call of the embedder. Raises VecError."""
    page = _Page(library, wanted, sources)
    return page.drafts(_embed(engine, wanted.embedder, page.texts) if page.texts else None)


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
    run: Run, library: Library, wanted: Library, drafts: dict[int, Drafted], at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Drafts of all documents that have been added since; moves the checkpoint `at` on."""
    engine, job_id, name = run.engine, run.job.job_id, wanted.embedder
    pages: deque[tuple[_Page, Batch]] = deque()  # in flight, in the order of the labels
    read = at["after"]  # the last label that is in flight
    try:
        while True:
            while len(pages) < engine.tasks.window("reembed", name):
                with engine.database.read_transaction() as db:
                    sources = store.sources(db, library.library_id, read, limits.REEMBED_DOCUMENTS)
                if not sources:
                    break
                page = _Page(library, wanted, sources)
                read = page.last
                pages.append(
                    (page, engine.tasks.submit("reembed", name, page.texts, job_id=job_id, library=library.name))
                )
            if not pages:
                return
            page, batch = pages[0]
            vectors = batch.result(partial(_embed, engine, name), run.stopping)
            if vectors is None and page.texts:
                yield Step()  # stops here
                continue
            pages.popleft()
            made = page.drafts(vectors)
            drafts |= made
            at["after"] = page.last
            total = max(len(drafts), engine.database.catalogue.by_id[library.library_id].documents)
            yield Step({"after": at["after"]}, KeepDrafts(job_id, made), done=len(drafts), total=total)
    finally:
        for _, batch in pages:
            batch.cancel()


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
