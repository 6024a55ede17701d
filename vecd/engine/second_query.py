"""The vector of a query for the second stage of a library, or why a search goes on without it.

A second embedder may be slow, or away: a search waits for it for a bounded time, and for some seconds after a failure
not at all. Then the first stage and the words answer, with a warning.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

from .. import limits
from ..errors import Code, VecError
from ..index.rows import Floats
from ..parameters import without_parameters
from ..store.catalogue import Library
from .engine import Engine


async def vector_of(
    engine: Engine, library: Library, text: str | None, given: Floats | None
) -> tuple[Floats | None, list[str]]:
    """The query's vector for the library's second index, and warnings. None: that is not to be asked. `given` is the
    vector that the query brings: the dimension tells which embedder it is of; the first one's, if it may be of both.

    Raises VecError `index_failed`.
    """
    if library.second is None or library.second_dimension is None or not library.second_chunks:
        return None, []
    vector = given
    if given is None:
        assert text is not None
        made = await _embedded(engine, library.second, text)
        why = None
        if isinstance(made, VecError):
            why = made.message
        elif len(made) != library.second_dimension:
            why = f"it made a vector of {len(made):,} dimensions, and the library's have {library.second_dimension:,}"
        if why is not None or isinstance(made, VecError):
            first, second = (without_parameters(each)[0] for each in (library.embedder, library.second))
            what = f"the embedder {second!r} did not embed the query ({why})"
            return None, [f"{what}; the vectors of its first embedder, {first!r}, were searched instead"]
        vector = made
    elif len(given) == library.dimension:
        return None, []
    live = engine.indexes.second.of(library)
    if live is None:
        return None, []
    if not live.ready:
        await asyncio.wrap_future(live.loaded())
    return vector, []


async def _embedded(engine: Engine, name: str, text: str) -> Floats | VecError:
    failures = engine.query_failures
    if (failed := failures.get(name)) is not None and time.monotonic() < failed[0]:
        return failed[1]
    asked = asyncio.ensure_future(engine.query_vector(name, text))
    await asyncio.wait({asked}, timeout=limits.SECOND_QUERY_S)
    if not asked.done():
        error = VecError(Code.EMBEDDER_FAILED, f"it has not answered in {limits.SECOND_QUERY_S:g} s")
        asked.add_done_callback(partial(_answered_late, engine, name))  # it may only have had to load its model
    else:
        try:
            return asked.result()
        except VecError as failure:
            if failure.code == Code.SHUTTING_DOWN:
                raise
            error = failure
    failures[name] = time.monotonic() + limits.SECOND_QUERY_AGAIN_S, error
    return error


def _answered_late(engine: Engine, name: str, asked: asyncio.Task[Floats]) -> None:
    """An embedder has answered a query that no longer waits for it: the next ones may wait again."""
    if not asked.cancelled() and asked.exception() is None:
        engine.query_failures.pop(name, None)
