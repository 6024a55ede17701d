"""reembed: changes the embedders of a library, or the length of its chunks.

What the first stage has (for most libraries the only one) is changed by a switch. New chunks and vectors (drafts) are
computed beside the old ones, a few documents per step, including documents that are written in the meantime. The switch
then begins with one short transaction: from then on, writes are embedded by the new embedder, and searches compare with
its vectors only, which may have another dimension. The documents are replaced by their drafts afterwards, some in each
step (store/reembed.py). Reads and writes continue; watches see one update of each document.

A job that ends within the switch leaves a library that is searched as if all had been replaced. The rest is replaced by
a retry, or by the next reembed of the library.

Several pages of documents are in flight: their texts are embedding tasks, which workers outside the daemon share
(workers/leased_tasks.py). Drafts are stored in the order of the documents. Without workers, the daemon embeds the texts
itself, a page at a time.

Another second embedder needs no switch: the second stage starts again (engine/second_stage.py), and the job waits until
it has embedded what there was.

A text that was split into chunks is joined again from them, with an empty line between chunks; so are the texts of a
document with several texts. Vectors that were ingested are replaced, except those of chunks with neither a text nor a
title.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...engine import libraries
from ...engine.indexes import spec_of
from ...errors import Code, VecError
from ...index import builder
from ...index.local.flat import Flat
from ...index.structure import Spec
from ...parameters import Parameter, without_parameters
from ...store import reembed as store
from ...store import second_stage
from ...store.catalogue import Library
from ...store.documents import indexed
from ...store.reembed import Drafted, ReembedSource, Replaced
from ...store.transaction import Transaction
from ...text import embedders
from ...text.chunking import chunks_of, rejoined
from ...workers.executor import Submitted
from ...workers.leased_tasks import Vectors as Embedded
from ..effects import Effect, EffectResult
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

_BETWEEN_CHUNKS = "\n\n"
#: How often the job looks how far the second stage is.
_LOOK_S = 0.1


class Reembed(JobKind):
    """Drafts are stored after each step, so a crash costs one step."""

    name = "reembed"
    what = "change the embedders of a library, or the length of its chunks"
    unit = "documents"
    library = "required"
    params: ClassVar[Mapping[str, Parameter]] = {
        "embedder": Parameter(
            "the new embedder, with its parameters as JSON behind its name; default: the current one", str
        ),
        "first_embedder": Parameter(
            "the embedder that finds documents until a slow one has embedded them; none: writes wait for that; default:"
            " the current embedder if it is fast",
            str,
        ),
        "chunk_chars": Parameter(
            "characters of a chunk; default: the current value", int, low=50, high=limits.CHUNK_CHARS_MAX
        ),
        "chunk_overlap": Parameter(
            "characters that a chunk may repeat from the one before it; default: the current value",
            int,
            low=0,
            high=limits.CHUNK_CHARS_MAX // 2,
        ),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        assert library is not None
        found = engine.database.catalogue.find(library, to="manage")
        wanted = _wanted(engine, found, params)
        if not _changes(found, wanted) and found.second == wanted.second and found.switch_job is None:
            raise VecError(
                Code.INVALID_REQUEST,
                f"library {library!r} already has the embedder {found.described()['embedder']!r} and chunks of"
                f" {found.chunk_chars:,} characters",
                "use another embedder, chunk_chars or chunk_overlap",
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
        wanted = _wanted(engine, library, run.params)
        begun = library.switch_job == job_id or "switched" in run.counts or "switched" in at
        if not begun and _changes(library, wanted):
            yield from _begun(run, library, wanted, at)
            library = engine.database.catalogue.find(name)
        if library.switch_job == job_id:
            yield from _replaced(library, at, counted=True)
        yield from _cleaned(job_id)
        if "second" not in at:
            yield from _second_stage_begun(run, name, wanted, at)
        yield from _second_stage_awaited(run, name, at)
        library = engine.database.catalogue.find(name)
        # Earlier versions stored the number as a checkpoint.
        replaced = run.count("switched") or at.get("switched", replaced)
        about = {"embedder": library.described()["embedder"], "chunk_chars": library.chunk_chars}
        return {"documents": replaced, **about, **({"embedded": library.second_chunks} if library.second else {})}


def _changes(library: Library, wanted: Library) -> bool:
    """Whether the documents are to be replaced."""
    return wanted.embedder != library.embedder or _cuts_otherwise(library, wanted)


def _cuts_otherwise(library: Library, wanted: Library) -> bool:
    """Whether texts are to be split into other chunks."""
    return (wanted.chunk_chars, wanted.chunk_overlap) != (library.chunk_chars, library.chunk_overlap)


def _wanted(engine: Engine, library: Library, params: Mapping[str, Any]) -> Library:
    """The library with the new settings. Raises VecError `unsupported` or `invalid_request`."""
    wanted = replace(
        library,
        chunk_chars=params.get("chunk_chars", library.chunk_chars),
        chunk_overlap=params.get("chunk_overlap", library.chunk_overlap),
    )
    if "chunk_overlap" in params and 2 * wanted.chunk_overlap > wanted.chunk_chars:
        raise VecError(
            Code.INVALID_REQUEST,
            f"an overlap of {wanted.chunk_overlap:,} characters is more than half a chunk of {wanted.chunk_chars:,}",
            "use a smaller chunk_overlap, or a larger chunk_chars",
            field="chunk_overlap",
        )
    if "embedder" not in params and "first_embedder" not in params:
        return wanted
    name = library.second or library.embedder
    if "embedder" in params:
        try:
            name = embedders.reference(*without_parameters(params["embedder"]))
        except ValueError as error:
            raise VecError(
                Code.INVALID_REQUEST, f"the parameters of the embedder are not JSON: {error}", field="embedder"
            ) from error
    kind, present = embedders.kind_of(name), embedders.kind_of(library.embedder)
    first_name = params.get("first_embedder")
    if first_name is None and kind is not None and kind.slow and present is not None and not present.slow:
        first_name = library.embedder  # whose vectors are there
    first, second = libraries.stages(engine, name, first_name)
    if embedders.kind_of(first) is None:
        raise VecError(Code.UNSUPPORTED, f"the embedder {name!r} makes no vectors", field="embedder")
    dimension = library.dimension if first == library.embedder else embedders.dimension_of(first)
    if dimension is None and library.dimension is not None:
        raise VecError(
            Code.UNSUPPORTED,
            f"the dimension of the vectors of {first!r} is not known before it is used",
            "leave out first_embedder: it is then the second embedder of the library",
            field="first_embedder",
        )
    return replace(
        wanted,
        embedder=first,
        dimension=dimension,
        second=second,
        second_dimension=None if second is None else embedders.dimension_of(second),
    )


class _Page:
    """Documents with their new chunks, whose vectors are still to be computed from `texts`."""

    def __init__(self, library: Library, wanted: Library, sources: list[ReembedSource]) -> None:
        """Raises VecError `invalid_document` or `unsupported`."""
        self._sources = sources
        if wanted.dimension != library.dimension:
            for each in sources:
                if any(indexed(each.title, text) is None for text in each.texts):
                    raise VecError(
                        Code.UNSUPPORTED,
                        f"document {each.id!r} has a chunk without a text or title, whose {library.dimension}-dimension"
                        " vector the new embedder cannot replace",
                        "delete such documents, or create another library for the others",
                        field="embedder",
                    )
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
    if not _cuts_otherwise(library, wanted) or len(texts) < len(source.texts):
        return source.texts, source.lines
    parts = rejoined(texts, library.chunk_overlap, _BETWEEN_CHUNKS)
    joined = "".join(parts)
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
        at += len(part)
    found, at = [], 0
    for chunk in chunks:
        if (place := joined.find(chunk, at)) >= 0:
            at = place
        old = bisect_right(starts, at) - 1
        inside = at - starts[old] + len(texts[old]) - len(parts[old])
        found.append(lines[old] + texts[old].count("\n", 0, max(0, inside)))
        at += 1
    return found


class _NewVectors:
    """What searches compare with once the switch has begun: the vectors that the new embedder makes of the present
    chunks, as an index takes them. Each is prepared when it is made, so that the switch takes no time."""

    def __init__(self, wanted: Library) -> None:
        self._spec: Spec | None = None if wanted.dimension is None else spec_of(wanted)
        self._wanted = wanted
        self._flat: Flat | None = None
        self.last_label = -1  # of the documents

    def add(self, drafts: dict[int, Drafted]) -> None:
        """Adds the drafts of documents behind all that are there."""
        self.add_packed({label: draft.of_present_chunks for label, draft in drafts.items()})

    def add_packed(self, packed: dict[int, bytes]) -> None:
        """The same, of vectors by document, concatenated."""
        if not packed:
            return
        self.last_label = max(packed)
        self._fill(self._taken(packed), packed)

    def with_made(self, made: dict[int, Drafted]) -> Flat:
        """All, with the last drafts; an index takes it over."""
        packed = {label: draft.of_present_chunks for label, draft in made.items()}
        flat = self._taken(packed)
        if packed:
            self._fill(flat, packed)
        return flat

    def _fill(self, flat: Flat, packed: dict[int, bytes]) -> None:
        labels, vectors = store.joined(packed, 4 * flat.dimension)
        assert self._spec is not None
        flat.add(labels, builder.prepared(self._spec, vectors))

    def _taken(self, packed: dict[int, bytes]) -> Flat:
        if self._flat is None:
            spec = self._spec = spec_of(self._wanted)
            self._flat = Flat(spec.dimension, spec.space)
        return self._flat


def _begun(
    run: Run, library: Library, wanted: Library, at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Makes drafts of all documents, and begins the switch; moves the checkpoint `at` on."""
    engine, job_id = run.engine, run.job.job_id
    # With the same embedder, vectors remain comparable.
    vectors = None if wanted.embedder == library.embedder else _recalled(engine, wanted, job_id)
    began, attempt = False, 0
    while not began:
        yield from _caught_up(run, library, wanted, vectors, at)
        written = yield Step(effect=BeginSwitch(library, wanted, job_id, at["after"], vectors, attempt))
        assert written is not None
        began = written.result().value
        attempt += 1


def _recalled(engine: Engine, wanted: Library, job_id: int) -> _NewVectors:
    """The vectors of the stored drafts of earlier attempts. Blocks."""
    vectors = _NewVectors(wanted)
    with engine.database.read_transaction() as db:
        while page := store.kept(db, job_id, vectors.last_label, limits.REEMBED_DOCUMENTS):
            vectors.add_packed(page)
    return vectors


def _caught_up(
    run: Run, library: Library, wanted: Library, vectors: _NewVectors | None, at: dict[str, Any]
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
                vectors.add(made)
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


def _second_stage_begun(
    run: Run, name: str, wanted: Library, at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Sets the second embedder, if the switch has not; deletes the vectors of the former one if there is none now."""
    library = run.engine.database.catalogue.find(name)
    if library.second != wanted.second:
        yield Step(effect=BeginSecondStage(library, wanted))
    after: int | None = 0 if library.second is not None and wanted.second is None else None
    while after is not None:
        written = yield Step(effect=ForgetSecondVectors(library.library_id, after))
        assert written is not None
        after = written.result().value
    at["second"] = True
    yield Step({**at})


def _second_stage_awaited(
    run: Run, name: str, at: dict[str, Any]
) -> Generator[Step, Future[EffectResult] | None, None]:
    """Waits until the second stage has embedded what there is now."""
    engine = run.engine
    written = engine.database.moment.label
    said = None
    while (library := engine.database.catalogue.find(name)).second is not None:
        if library.second_chunks >= library.chunks or library.second_label >= written:
            return
        error = (engine.second_stage.describe(library) or {}).get("error")
        lines = [f"the second stage waits: {error}"] if error not in (None, said) else []
        said = error
        yield Step({**at} if lines else None, done=library.second_chunks, total=library.chunks, lines=lines)
        if not run.stopping():
            time.sleep(_LOOK_S)


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
    vectors: _NewVectors | None  # what searches are to compare with; None: what they did before
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
        vectors = None if self.vectors is None else partial(self.vectors.with_made, made)
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


@dataclass(frozen=True, slots=True)
class BeginSecondStage(Effect):
    """Sets the second embedder of a library."""

    library: Library
    wanted: Library

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        now = tx.catalogue.find(self.library.name)
        if now.library_id != self.library.library_id:
            raise VecError(Code.BUSY, f"library {now.name!r} was created again meanwhile", "try again")
        if now.second != self.wanted.second:
            second_stage.begin(tx, now, self.wanted.second, self.wanted.second_dimension)
        return EffectResult()


@dataclass(frozen=True, slots=True)
class ForgetSecondVectors(Effect):
    """Deletes a bounded number of second vectors of a library that has one stage. The value is the last label, None if
    there are no more."""

    library_id: int
    after: int
    frees: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return limits.REEMBED_DOCUMENTS

    def apply(self, engine: Engine, tx: Transaction) -> EffectResult:
        return EffectResult(value=second_stage.forget(tx, self.library_id, self.after, limits.REEMBED_DOCUMENTS))
