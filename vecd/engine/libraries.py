"""Operations on libraries: create, list, show, set, rename, rebuild, delete."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError, nearest
from ..index import kinds
from ..index.source import Rebuilt
from ..parameters import Parameter, check_parameters
from ..store import libraries as store
from ..store.catalogue import DEFAULT, Catalogue, Library
from ..store.rename import rename as rename_in_store
from ..store.transaction import Transaction
from ..text import embedders, languages
from ..units import format_time
from ..write_order import WriteSlot
from .engine import Engine
from .indexes import spec_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find(engine: Engine, name: str, catalogue: Catalogue | None = None) -> Library:
    """The library, or what `default` would be if it has not been made yet; as of now, unless another catalogue is
    given. Raises VecError `not_found`."""
    catalogue = catalogue or engine.database.catalogue
    if name == DEFAULT and name not in catalogue.by_name:
        return planned(engine, DEFAULT)
    return catalogue.find(name)


def find_for_writing(engine: Engine, name: str, documents: Iterable[Any]) -> Library:
    """The library, or what the first of these documents would make it: a `create` brings the settings; with a vector
    it has no embedder, because vectors of two models cannot be compared. Raises VecError `not_found` if the settings of
    the daemon forbid that, `invalid_request` or `unsupported`."""
    documents = list(documents)
    settings = None
    if documents and isinstance(documents[0], dict) and documents[0].get("op") == "create":
        settings = documents[0].get("settings") or {}
    if name in engine.database.catalogue.by_name or (name == DEFAULT and settings is None):
        return find(engine, name)
    if (renamed := engine.database.catalogue.renamed(name)) is not None:
        raise VecError(
            Code.NOT_FOUND,
            f"library {name!r} was renamed to {renamed.name!r}, so an ingest does not create another one",
            f"write to {renamed.name!r}; `vec library create {name}` creates another library {name!r}",
            library=name,
        )
    if not engine.settings.create:
        close = nearest(name, list(engine.database.catalogue.by_name))
        hint = f"did you mean {close!r}? " if close else ""
        raise VecError(
            Code.NOT_FOUND,
            f"library {name!r} does not exist, and the setting create = false forbids an ingest to create it",
            f"{hint}`vec library create {name}` creates it",
            library=name,
        )
    if settings is not None:
        return _planned_with(engine, name, settings)
    vectors = (has_vector for each in documents if (has_vector := _has_vector(each)) is not None)
    return planned(engine, name, embedder="none" if next(vectors, False) else None)


#: What the settings of a `create` can have; `library.create` has the same fields.
_SETTINGS: Final[dict[str, Parameter]] = {
    "dimension": Parameter("components of a vector", int, low=1, high=limits.DIMENSION_MAX),
    "metric": Parameter("the similarity", str),
    "index": Parameter("the kind of index", str),
    "embedder": Parameter("what turns texts into vectors", str),
    "first_embedder": Parameter("the embedder of the first stage", str),
    "chunk_chars": Parameter("characters of a chunk", int, low=50, high=limits.CHUNK_CHARS_MAX),
    "chunk_overlap": Parameter("characters that chunks share", int, low=0, high=limits.CHUNK_CHARS_MAX),
    "recall": Parameter("the promised recall", float, low=limits.RECALL_MIN, high=1),
    "language": Parameter("of full-text search", str),
}


def _planned_with(engine: Engine, name: str, settings: Any) -> Library:
    """The library that a `create` in a stream of documents makes. Raises VecError `invalid_request`."""
    if not isinstance(settings, dict):
        raise VecError(Code.INVALID_REQUEST, "the 'settings' of a create must be an object", field="settings")
    maps: dict[str, Any] = {key: settings.get(key) or {} for key in ("parameters", "embedder_parameters")}
    for key, value in maps.items():
        if not isinstance(value, dict):
            raise VecError(Code.INVALID_REQUEST, f"a create: the setting {key!r} must be an object", field=key)
    checked: dict[str, Any] = check_parameters(
        "a create", "setting", _SETTINGS, {key: value for key, value in settings.items() if key not in maps}
    )
    kind = checked.pop("index", None)
    return planned(engine, name, kind=kind, **{**maps, **checked})


def _has_vector(document: Any) -> bool | None:
    """Whether a document brings its vectors; None for what is not a document with contents."""
    if not isinstance(document, dict):
        return None
    if document.get("vector") is not None or document.get("vectors") is not None:
        return True
    texts = isinstance(document.get("text"), str) or isinstance(document.get("texts"), list)
    return False if texts or isinstance(document.get("title"), str) else None


def check_name(name: str) -> None:
    """Raises VecError `invalid_request`."""
    if not _NAME.fullmatch(name) or len(name) > limits.NAME_BYTES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{name!r:.200} is not a valid name of a library",
            f"use up to {limits.NAME_BYTES_MAX} letters, digits, '.', '_' and '-', beginning with a letter or digit",
            field="library",
        )


def planned(
    engine: Engine,
    name: str,
    *,
    dimension: int | None = None,
    metric: str = "cosine",
    kind: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    embedder: str | None = None,
    embedder_parameters: Mapping[str, Any] | None = None,
    first_embedder: str | None = None,
    chunk_chars: int | None = None,
    chunk_overlap: int | None = None,
    recall: float | None = None,
    language: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Library:
    """A library as it would be made, checked. Raises VecError `invalid_request` or `unsupported`."""
    check_name(name)
    kind = kinds.DEFAULT if kind is None else kind
    parameters = kinds.checked(kind, metric, parameters or {})
    wanted = embedders.reference(embedder or engine.settings.embedder, embedder_parameters or {})
    embedder, second = stages(engine, wanted, first_embedder)
    own = embedders.dimension_of(embedder)
    if own is not None and dimension not in (None, own):
        raise VecError(
            Code.INVALID_REQUEST,
            f"the embedder makes {own}-dimension vectors, but the requested dimension is {dimension}",
            "omit the dimension, or use --embedder none for vectors of your own",
            field="dimension",
        )
    chunk_chars = chunk_chars or engine.settings.chunk_chars
    if chunk_overlap is not None and 2 * chunk_overlap > chunk_chars:
        raise VecError(
            Code.INVALID_REQUEST,
            f"an overlap of {chunk_overlap:,} characters is more than half a chunk of {chunk_chars:,}",
            "use a smaller chunk_overlap, or a larger chunk_chars",
            field="chunk_overlap",
        )
    return Library(
        library_id=0,
        name=name,
        dimension=own or dimension,
        metric=metric,
        index=kind,
        parameters=parameters,
        embedder=embedder,
        chunk_chars=chunk_chars,
        chunk_overlap=chunk_overlap or 0,
        recall=recall or engine.settings.recall,
        language=languages.checked(engine.settings.language if language is None else language),
        second=second,
        second_dimension=None if second is None else embedders.dimension_of(second),
        mapping=dict(mapping or {}),
    )


def stages(engine: Engine, embedder: str, first: str | None) -> tuple[str, str | None]:
    """The embedder of the first stage, and that of the second one, None if there is one stage, of a library with this
    embedder. `first` is the first embedder that was asked for: `none` means one stage, and None leaves it to the
    embedder: a slow one makes two. Raises VecError `unsupported` or `invalid_request`."""
    kind = embedders.kind_of(embedder)
    if first is None and kind is not None and kind.slow:
        first = engine.settings.embedder if _is_fast(engine.settings.embedder) else embedders.FIRST
    if first in (None, "none", embedder):
        return embedder, None
    if kind is None or not _is_fast(first):
        slow = f"the embedder {first!r} cannot be a first embedder: it makes no vectors, or is slow"
        raise VecError(
            Code.INVALID_REQUEST,
            "a library with embedder none has no first embedder" if kind is None else slow,
            f"leave it out; `{embedders.FIRST}` is one",
            field="first_embedder",
        )
    return first, embedder


def _is_fast(name: str) -> bool:
    kind = embedders.kind_of(name)
    return kind is not None and not kind.slow


async def create(engine: Engine, wanted: Library, slot: WriteSlot) -> dict[str, Any]:
    """Makes a library; returns it as `show` does, with the `seq` of its event. Raises VecError `exists`."""
    async with slot:
        future = engine.database.submit(lambda tx: store.create(tx, wanted), sender=slot.sender)
    library, seq = await asyncio.wrap_future(future)
    return {**show(engine, library), "seq": seq}


async def set_mapping(engine: Engine, name: str, mapping: Mapping[str, str], slot: WriteSlot) -> dict[str, Any]:
    """Sets the rules by which JSON becomes documents of a library; none remove them. Returns the library as `show`
    does. Raises VecError `not_found`."""
    async with slot:
        future = engine.database.submit(lambda tx: store.set_mapping(tx, name, mapping), sender=slot.sender)
    return show(engine, await asyncio.wrap_future(future))


async def rename(engine: Engine, name: str, new: str, slot: WriteSlot) -> dict[str, Any]:
    """Renames a library, also in relays, sources, schedules and jobs; returns it as `show` does, with its `former`
    name and the `seq` of the event. Raises VecError `not_found`, `exists`, `invalid_request`, or `busy`."""
    check_name(new)
    async with slot:
        future = engine.database.submit(lambda tx: rename_in_store(tx, name, new), sender=slot.sender)
    library, seq = await asyncio.wrap_future(future)
    return {**show(engine, library), "former": name, "seq": seq}


async def delete(engine: Engine, name: str, slot: WriteSlot) -> dict[str, Any]:
    """Deletes a library and all it holds; returns what that was. Raises VecError `not_found`."""
    async with slot:
        future = engine.database.submit(lambda tx: store.delete(tx, name), frees=True, sender=slot.sender)
    library, seq = await asyncio.wrap_future(future)
    return {"library": name, "documents": library.documents, "chunks": library.chunks, "seq": seq}


async def rebuild(
    engine: Engine, name: str, kind: str | None, parameters: Mapping[str, Any], recall: float | None = None
) -> dict[str, Any]:
    """Rebuilds a library's index (see `begin_rebuild`); returns the library as `show` does, with `vectors`, `seconds`
    and the head as `seq`. Raises VecError `not_found`, `unsupported`, `invalid_request` or `index_failed`."""
    begun = begin_rebuild(engine, name, kind, parameters, recall)
    report = await asyncio.wrap_future(begun.report)
    about = {"vectors": report["vectors"], "seconds": report["seconds"], "seq": engine.database.head}
    return {**show(engine, begun.library()), **about}


@dataclass(frozen=True, slots=True)
class StartedRebuild:
    """A rebuild that has begun."""

    report: Future[dict[str, Any]]  # {"vectors","seconds","reason"}, when the new index is in use
    share_built: Callable[[], float | None]  # of the vectors, from 0 to 1; None if that is not known
    library: Callable[[], Library]  # as it is now


def begin_rebuild(
    engine: Engine,
    name: str,
    kind: str | None,
    parameters: Mapping[str, Any],
    recall: float | None,
    stopping: Callable[[], bool] = lambda: False,
) -> StartedRebuild:
    """Begins to rebuild a library's index, as another kind or with other parameters if these are given. Reads and
    writes go on meanwhile. When `stopping` returns true, the rebuild is given up.

    `recall` sets the recall promise of the library's searches. If nothing else is given, nothing is built.

    Raises VecError `not_found`, `unsupported` or `invalid_request`; the report raises what the store raises, or
    `index_failed`.
    """
    library = engine.database.catalogue.find(name, to="manage")
    wanted = reindexed(library, kind, parameters)
    only_recall = recall is not None and kind is None and not parameters
    empty = library.dimension is None
    nothing = {"vectors": 0, "seconds": 0.0, "reason": "requested"}
    report: Future[dict[str, Any]] = Future()
    report.set_running_or_notify_cancel()

    def write(tx: Transaction) -> None:
        if recall is not None:
            store.promise(tx, library.library_id, recall)
        if empty and not only_recall:
            store.rebuilt(tx, library.library_id, wanted.index, wanted.parameters, nothing)

    def written(done: Future[None]) -> None:
        if (error := done.exception()) is not None:
            report.set_exception(error)
        elif empty or only_recall:
            report.set_result(nothing)
        else:
            try:
                engine.indexes.of(library).rebuild(spec_of(wanted), stopping).add_done_callback(built)
            except VecError as gone:  # the library was deleted meanwhile
                report.set_exception(gone)

    def built(done: Future[Rebuilt]) -> None:
        if (error := done.exception()) is not None:
            report.set_exception(error)
        else:
            found = done.result()
            about = {"vectors": found.vectors, "seconds": round(found.seconds, 3), "reason": found.reason}
            second = engine.indexes.second.loaded(library)
            if second is None:  # if there is one, its index is built when it is loaded
                report.set_result(about)
                return
            building = second.rebuild(replace(second.spec, kind=wanted.index, parameters=wanted.parameters), stopping)
            building.add_done_callback(partial(built_both, about))

    def built_both(about: dict[str, Any], done: Future[Rebuilt]) -> None:
        if (error := done.exception()) is not None:
            report.set_exception(error)
        else:
            report.set_result({**about, "seconds": round(about["seconds"] + done.result().seconds, 3)})

    def share_built() -> float | None:
        live = engine.indexes.loaded(library)
        return None if live is None else live.build_progress

    engine.database.submit(write).add_done_callback(written)
    return StartedRebuild(report, share_built, lambda: engine.database.catalogue.by_id[library.library_id])


def reindexed(library: Library, kind: str | None, parameters: Mapping[str, Any]) -> Library:
    """The library with another index; what is not given stays as it is. Raises VecError `unsupported` or
    `invalid_request`."""
    kind = library.index if kind is None else kind
    kept = library.parameters if kind == library.index else {}
    return replace(library, index=kind, parameters=kinds.checked(kind, library.metric, {**kept, **parameters}))


def show(engine: Engine, library: Library) -> dict[str, Any]:
    """A library as clients see it."""
    return {
        **library.described(),
        "documents": library.documents,
        "chunks": library.chunks,
        "created_at": format_time(library.created_us),
        "recall": recall_report(engine, library),
        "memory": engine.indexes.describe(library),
        "second_stage": engine.second_stage.describe(library),
    }


def recall_report(engine: Engine, library: Library) -> dict[str, Any]:
    """How the library's recall promise is kept: `promise`; `met`, None where that is not known; and `own`, what was
    measured with the searches that really came, None if nothing was (see RecallMonitor.report)."""
    live = engine.indexes.loaded(library)
    own = live.recall_report() if live is not None else None
    met: bool | None = None
    if library.recall == 1 or kinds.KINDS[library.index].exact or (live is not None and live.ready and live.exact):
        met = True
    elif own is not None:
        met = own["met"]
    elif library.recall_missed:
        met = False
    return {"promise": library.recall, "met": met, "own": own}


def all_libraries(engine: Engine) -> list[Library]:
    """All living libraries, by name."""
    return sorted(engine.database.catalogue.by_name.values(), key=lambda library: library.name)
