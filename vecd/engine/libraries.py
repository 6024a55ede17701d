"""The verbs of libraries: create, list, show, rebuild, delete."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import limits
from ..errors import Code, VecError
from ..index import kinds
from ..index.live import Options
from ..store import libraries as store
from ..store.catalogue import DEFAULT, Catalogue, Library
from ..store.events import format_time
from ..text import embedders
from .core import Engine
from .indexes import spec_of
from .turns import Turn

#: The sample of a recall probe: each costs an exact search.
_PROBES, _PROBE_K = 20, 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find(engine: Engine, name: str, catalogue: Catalogue | None = None) -> Library:
    """The library, or what `default` would be if it has not been made yet; as of now, unless another catalogue is
    given. Raises VecError `not_found`."""
    catalogue = catalogue or engine.database.catalogue
    if name == DEFAULT and name not in catalogue.by_name:
        return planned(engine, DEFAULT)
    return catalogue.find(name)


def planned(
    engine: Engine,
    name: str,
    *,
    dimension: int | None = None,
    metric: str = "cosine",
    kind: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    embedder: str | None = None,
    chunk_chars: int | None = None,
) -> Library:
    """A library as it would be made, checked. Raises VecError `invalid_request` or `unsupported`."""
    if not _NAME.fullmatch(name) or len(name) > limits.NAME_BYTES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{name!r:.200} cannot be a library's name",
            f"use up to {limits.NAME_BYTES_MAX} letters, digits, '.', '_' and '-', beginning with a letter or digit",
            field="library",
        )
    kind = kinds.DEFAULT if kind is None else kind
    parameters = kinds.checked(kind, metric, parameters or {})
    embedder = embedder or engine.settings.embedder
    own = embedders.dimension_of(embedder)
    if own is not None and dimension not in (None, own):
        raise VecError(
            Code.INVALID_REQUEST,
            f"the embedder {embedder!r} makes {own}-dimension vectors, and the library was to hold {dimension}",
            "leave out the dimension, or use --embedder none for vectors of your own",
            field="dimension",
        )
    return Library(
        library_id=0,
        name=name,
        dimension=own or dimension,
        metric=metric,
        index=kind,
        parameters=parameters,
        embedder=embedder,
        chunk_chars=chunk_chars or engine.settings.chunk_chars,
    )


async def create(engine: Engine, wanted: Library, turn: Turn) -> dict[str, Any]:
    """Makes a library; returns it as `show` does, with the `seq` of its event. Raises VecError `exists`."""
    async with turn:
        future = engine.database.submit(lambda tx: store.create(tx, wanted))
    library, seq = await asyncio.wrap_future(future)
    return {**show(engine, library), "seq": seq}


async def delete(engine: Engine, name: str, turn: Turn) -> dict[str, Any]:
    """Deletes a library and all it holds; returns what that was. Raises VecError `not_found`."""
    async with turn:
        future = engine.database.submit(lambda tx: store.delete(tx, name), frees=True)
    library, seq = await asyncio.wrap_future(future)
    return {"library": name, "documents": library.documents, "chunks": library.chunks, "seq": seq}


async def rebuild(engine: Engine, name: str, kind: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Builds a library's index anew, as another kind or with other parameters if these are given, while everything else
    goes on; returns the library as `show` does, with `vectors`, `seconds` and the head as `seq`.

    Raises VecError `not_found`, `unsupported`, `invalid_request` or `index_failed`.
    """
    library = engine.database.catalogue.find(name)
    wanted = reindexed(library, kind, parameters)
    parameters = wanted.parameters
    if library.dimension is None:  # nothing to build yet
        data = {"vectors": 0, "seconds": 0.0, "reason": "requested"}
        await asyncio.wrap_future(
            engine.database.submit(lambda tx: store.rebuilt(tx, library.library_id, wanted.index, parameters, data))
        )
    else:
        report = await asyncio.wrap_future(engine.indexes.of(library).rebuild(spec_of(wanted)))
        data = {"vectors": report.vectors, "seconds": round(report.seconds, 3)}
    found = engine.database.catalogue.by_id[library.library_id]
    return {**show(engine, found), "vectors": data["vectors"], "seconds": data["seconds"], "seq": engine.database.head}


def reindexed(library: Library, kind: str | None, parameters: Mapping[str, Any]) -> Library:
    """The library with another index; what is not given stays as it is. Raises VecError `unsupported` or
    `invalid_request`."""
    kind = library.index if kind is None else kind
    kept = library.parameters if kind == library.index else {}
    return replace(library, index=kind, parameters=kinds.checked(kind, library.metric, {**kept, **parameters}))


async def probe(engine: Engine, library: Library) -> dict[str, Any] | None:
    """How much of what an exact search finds the index finds: recall@10 over a sample of the library's own vectors,
    each of them left out of its own answer. None where every search is exact, or nothing is loaded.

    The searches are ordinary ones, one after the other, so that others are not held up.
    """
    live = engine.indexes.loaded(library)
    if live is None or live.exact or not live.ready:
        return None
    sample = await asyncio.wrap_future(live.sample(_PROBES, seed=engine.database.head))
    found = wanted = 0
    for vector in sample:
        exact, near = await asyncio.gather(
            *(asyncio.wrap_future(live.search(vector, Options(_PROBE_K + 1, exact=exact))) for exact in (True, False))
        )
        best = exact[1].tolist()
        found += len(set(best[1:]) & set(near[1].tolist()))
        wanted += len(best) - 1
    return {"recall": round(found / wanted, 4), "k": _PROBE_K, "sample": len(sample)} if wanted else None


def show(engine: Engine, library: Library) -> dict[str, Any]:
    """A library as people see it."""
    return {
        **library.described(),
        "documents": library.documents,
        "chunks": library.chunks,
        "created_at": format_time(library.created_us),
        "memory": engine.indexes.describe(library),
    }


def everything(engine: Engine) -> list[Library]:
    """All living libraries, by name."""
    return sorted(engine.database.catalogue.by_name.values(), key=lambda library: library.name)
