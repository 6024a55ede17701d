"""The verbs of libraries: create, list, show, delete."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from .. import index, limits
from ..errors import Code, VecError, nearest
from ..store import libraries as store
from ..store.catalogue import DEFAULT, Library
from ..store.events import format_time
from ..text import embedders
from .core import Engine
from .turns import Turn

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def find(engine: Engine, name: str) -> Library:
    """The library, or what `default` would be if it has not been made yet. Raises VecError `not_found`."""
    if name == DEFAULT and name not in engine.database.catalogue.by_name:
        return planned(engine, DEFAULT)
    return engine.database.catalogue.find(name)


def planned(
    engine: Engine,
    name: str,
    *,
    dimension: int | None = None,
    metric: str = "cosine",
    kind: str = "flat",
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
    for what, value, known in (("metric", metric, tuple(index.METRICS)), ("index", kind, index.KINDS)):
        if value not in known:
            close = nearest(value, known)
            hint = f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
            raise VecError(Code.UNSUPPORTED, f"there is no {what} {value!r:.40}", hint, field=what)
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
        future = engine.database.submit(lambda tx: store.delete(tx, name))
    library, seq = await asyncio.wrap_future(future)
    return {"library": name, "documents": library.documents, "chunks": library.chunks, "seq": seq}


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
