"""reembed: changes the embedder of a library, or the length of its chunks.

New chunks and vectors (drafts) are computed beside the old ones, a few documents per step, including documents that are
written in the meantime. The switch then begins with one short transaction: from then on, writes are embedded by the new
embedder, and searches compare with its vectors only. The documents are replaced by their drafts afterwards, some in
each step (store/reembed.py). Reads and writes continue; watches see one update of each document.

A job that ends within the switch leaves a library that is searched as if all had been replaced. The rest is replaced by
a retry, or by the next reembed of the library.

Several pages of documents are in flight: their texts are embedding tasks, which workers outside the daemon share
(workers/leased_tasks.py). Drafts are stored in the order of the documents. Without workers, the daemon embeds the texts
itself, a page at a time.

A text that was split into chunks is joined again from them, with an empty line between chunks; so are the texts of a
document with several texts. Vectors that were ingested are replaced, except those of chunks with neither a text nor a
title.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...errors import Code, VecError
from ...parameters import Parameter
from ...store import reembed as store
from ...store.catalogue import Library
from ...store.documents import indexed
from ...store.reembed import Drafted, ReembedSource, Replaced
from ...store.transaction import Transaction, Vectors
from ...text import embedders
from ...text.chunking import chunks_of, rejoined
from ...workers.executor import Submitted
from ...workers.leased_tasks import Vectors as Embedded
from ..effects import Effect, EffectResult
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

_BETWEEN_CHUNKS = "\n\n"


class Reembed(JobKind):
    """Drafts are stored after each step, so a crash costs one step."""

    name = "reembed"
    what = "change the embedder of a library, or the length of its chunks"
    unit = "documents"
    library = "required"
    params: ClassVar[Mapping[str, Parameter]] = {
        "embedder": Parameter("the new embedder; default: the current one", str),
        "chunk_chars": Parameter(
            "characters of a chunk; default: the current value", int, low=50, high=limits.CHUNK_CHARS_MAX
        ),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        assert library is not None
        found = engine.database.catalogue.find(library)
        wanted = _wanted(found, params)
        if not _changes(found, wanted) and found.switch_job is None:
            raise VecError(
                Code.INVALID_REQUEST,
                f"library {library!r} already has the embedder {found.embedder!r} and chunks of {found.chunk_chars:,}"
                " characters",
                "use another embedder or chunk_chars",
                field="embedder",
            )
        return params

    def steps(self, run: Run) -> Steps:
        engine, job_id, name = run.engine, run.job.job_id, run.job.library
        assert name is not None
        at = run.checkpoint or {"after": -1}
        library = engine.database.catalogue.find(name)
        replaced = 0
        if library.switch_job not in (None, job_id):  # of a job that ended within its switch
            unfinished = library.switch_job
            replaced = yield from _replaced(library, at, counted=False)
            yield from _cleaned(unfinished)
            library = engine.database.catalogue.find(name)
        wanted = _wanted(library, run.params)
        begun = library.switch_job == job_id or "switched" in run.counts or "switched" in at
        if not begun and _changes(library, wanted):
            yield from _begun(run, library, wanted, at)
            library = engine.database.catalogue.find(name)
        if library.switch_job == job_id:
            yield from _replaced(library, at, counted=True)
        yield from _cleaned(job_id)
        library = engine.database.catalogue.find(name)
        # Earlier versions stored the number as a checkpoint.
        replaced = run.count("switched") or at.get("switched", replaced)
        return {"documents": replaced, "embedder": library.embedder, "chunk_chars": library.chunk_chars}


def _changes(library: Library, wanted: Library) -> bool:
    return (wanted.embedder, wanted.chunk_chars) != (library.embedder, library.chunk_chars)


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
        self._chunks, self._lines = {}, {}
        for each in sources:
            self._chunks[each.label], self._lines[each.label] = _chunks(library, wanted, each)
        # Searches need the new vectors of a document's present chunks until it is replaced.
        self._present = {
            each.label: each.texts
            for each in sources
            if wanted.embedder != library.embedder and self._chunks[each.label] != each.texts
        }
        self.last = sources[-1].label
        self.texts = [
            text
            for each in sources
            for chunk in (*self._chunks[each.label], *self._present.get(each.label, ()))
            if (text := indexed(each.title, chunk)) is not None
        ]

    def drafts(self, vectors: Embedded | None) -> dict[int, Drafted]:
        """Drafts of the documents, by label, with the vectors of `texts` (None if there are no texts)."""
        made = iter(() if vectors is None else vectors.astype("<f4", copy=False))

        def packed(source: ReembedSource, chunks: list[str | None]) -> bytes:
            rows = [
                source.vectors[place] if indexed(source.title, text) is None else next(made).tobytes()
                for place, text in enumerate(chunks)
            ]
            return b"".join(rows)

        drafts = {}
        for each in self._sources:
            chunks, present = self._chunks[each.label], self._present.get(each.label)
            drafts[each.label] = Drafted(
                chunks,
                packed(each, chunks),
                None if present is None else packed(each, present),
                self._lines[each.label],
            )
        return drafts


def _embed(engine: Engine, name: str, texts: Sequence[str]) -> Embedded:
    """Embeds texts in this process. Blocks; raises VecError."""
    embedder = engine.embedder(name)
    assert embedder is not None
    return embedder.embed(texts)


def _drafts(engine: Engine, library: Library, wanted: Library, sources: list[ReembedSource]) -> dict[int, Drafted]:
    """Drafts of these documents, by label, with one call of the embedder. Raises VecError."""
    page = _Page(library, wanted, sources)
    return page.drafts(_embed(engine, wanted.embedder, page.texts) if page.texts else None)


def _chunks(library: Library, wanted: Library, source: ReembedSource) -> tuple[list[str | None], list[int] | None]:
    """The texts of its new chunks, and their lines; a document with a chunk without text keeps its chunks."""
    texts = [text for text in source.texts if text is not None]
    if wanted.chunk_chars == library.chunk_chars or len(texts) < len(source.texts):
        return source.texts, source.lines
    parts = rejoined(texts, library.chunk_overlap)
    joined = _BETWEEN_CHUNKS.join(parts)
    chunks = chunks_of(joined, wanted.chunk_chars, wanted.chunk_overlap)
    if len(chunks) > limits.DOCUMENT_CHUNKS_MAX:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"document {source.id!r} would have {len(chunks):,} chunks, over the limit of"
            f" {limits.DOCUMENT_CHUNKS_MAX:,}",
            "use a larger chunk_chars",
        )
    return list(chunks), None if source.lines is None else _lines(texts, parts, source.lines, joined, chunks)


def _lines(
    texts: Sequence[str], parts: Sequence[str], lines: Sequence[int], joined: str, chunks: Sequence[str]
) -> list[int]:
    """The lines where new chunks begin. `parts` are what `joined` is joined from, of the old chunks `texts` that begin
    on `lines`."""
    starts, at = [], 0
    for part in parts:
        starts.append(at)
        at += len(part) + len(_BETWEEN_CHUNKS)
    found, at = [], 0
    for chunk in chunks:
        if (place := joined.find(chunk, at)) >= 0:
            at = place
        old = bisect_right(starts, at) - 1
        inside = at - starts[old] + len(texts[old]) - len(parts[old])
        found.append(lines[old] + texts[old].count("\n", 0, inside))
        at += 1
    return found


def _begun(
    run: Run, library: Library, wanted: Library, at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Makes drafts of all documents, and begins the switch; moves the checkpoint `at` on."""
    engine, job_id = run.engine, run.job.job_id
    # What searches compare with once the switch has begun, by label. With the same embedder, vectors remain comparable.
    vectors: dict[int, bytes] | None = None
    if wanted.embedder != library.embedder:
        vectors = _recalled(engine, job_id)
    began, attempt = False, 0
    while not began:
        yield from _caught_up(run, library, wanted, vectors, at)
        written = yield Step(effect=BeginSwitch(library, wanted, job_id, at["after"], vectors, attempt))
        assert written is not None
        began = written.result().value
        attempt += 1


def _recalled(engine: Engine, job_id: int) -> dict[int, bytes]:
    """The vectors of the stored drafts of earlier attempts. Blocks."""
    vectors: dict[int, bytes] = {}
    with engine.database.read_transaction() as db:
        while page := store.kept(db, job_id, max(vectors, default=-1), limits.REEMBED_DOCUMENTS):
            vectors |= page
    return vectors


def _caught_up(
    run: Run, library: Library, wanted: Library, vectors: dict[int, bytes] | None, at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Drafts of all documents that have been added since; adds to `vectors`, and moves the checkpoint `at` on."""
    engine, job_id, name = run.engine, run.job.job_id, wanted.embedder
    pages: deque[tuple[_Page, Submitted]] = deque()  # in flight, in the order of the labels
    read = at["after"]  # the last label that is in flight
    try:
        while True:
            while len(pages) < engine.executor.window("reembed", name):
                with engine.database.read_transaction() as db:
                    sources = store.sources(db, library.library_id, read, limits.REEMBED_DOCUMENTS)
                if not sources:
                    break
                page = _Page(library, wanted, sources)
                read = page.last
                pages.append(
                    (page, engine.executor.submit("reembed", name, page.texts, job_id=job_id, library=library.name))
                )
            if not pages:
                return
            page, batch = pages[0]
            embedded = batch.result(partial(_embed, engine, name), run.stopping)
            if embedded is None and page.texts:
                yield Step()  # stops here
                continue
            pages.popleft()
            made = page.drafts(embedded)
            if vectors is not None:
                vectors |= {label: draft.of_present_chunks for label, draft in made.items()}
            at |= {"after": page.last, "drafted": at.get("drafted", 0) + len(made)}
            total = max(at["drafted"], engine.database.catalogue.by_id[library.library_id].documents)
            yield Step({**at}, KeepDrafts(job_id, made), done=at["drafted"], total=total)
    finally:
        for _, batch in pages:
            batch.cancel()


def _replaced(
    library: Library, at: dict[str, Any], *, counted: bool
) -> Generator[Step, Future[EffectResult] | None, int]:
    """Replaces the documents of a library whose switch has begun; returns how many. `counted`: this job began it."""
    count, done = 0, False
    while not done:
        effect = ReplaceDocuments(library.library_id, counted)
        written = yield Step({**at}, effect, done=count, total=max(count, library.documents))
        assert written is not None
        replaced: Replaced = written.result().value
        count, done = count + replaced.documents, replaced.done
    return count


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
class BeginSwitch(Effect):
    """Begins the switch, and replaces the first documents. The value is whether it has begun; nothing is done if too
    many documents have been added since the last draft."""

    library: Library
    wanted: Library
    job_id: int
    after: int  # the label of the last document with a draft
    vectors: dict[int, bytes] | None  # what searches are to compare with, by label; None: what they did before
    attempt: int  # from 0

    @property
    def rows(self) -> int:
        return limits.REEMBED_SWITCH_CHUNKS

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        make = partial(_drafts, engine, self.library, self.wanted)
        made_max = limits.REEMBED_AT_SWITCH
        if engine.executor.offloads(self.wanted.embedder):  # the writer waits for it
            made_max = min(made_max, limits.REEMBED_AT_SWITCH_SLOW << min(self.attempt, 10))
        made = store.begin_switch(tx, self.library, self.wanted, self.job_id, self.after, make, made_max)
        if made is None:
            return EffectResult(value=False)
        vectors: Vectors | None = None
        if self.vectors is not None and (dimension := self.library.dimension) is not None:
            every = self.vectors | {label: draft.of_present_chunks for label, draft in made.items()}
            vectors = partial(store.joined, every, 4 * dimension)
        first = store.switch(tx, self.library.library_id, limits.REEMBED_SWITCH_CHUNKS, vectors)
        return EffectResult({"switched": first.documents}, value=True)


@dataclass(frozen=True, slots=True)
class ReplaceDocuments(Effect):
    """Replaces some documents by their drafts. The value is a `Replaced`."""

    library_id: int
    counted: bool

    @property
    def rows(self) -> int:
        return limits.REEMBED_SWITCH_CHUNKS

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        replaced = store.switch(tx, self.library_id, limits.REEMBED_SWITCH_CHUNKS)
        return EffectResult({"switched": replaced.documents} if self.counted else {}, value=replaced)


@dataclass(frozen=True, slots=True)
class ForgetDrafts(Effect):
    """Deletes a bounded number of drafts of a job. The value is their number."""

    job_id: int
    frees: ClassVar[bool] = True

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        return EffectResult(value=store.forget(tx, self.job_id, limits.REEMBED_DOCUMENTS))
