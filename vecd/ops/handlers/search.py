"""search: one result for a page of hits, a stream for more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ... import limits
from ...engine import federated, hit_passages, no_hits, similar
from ...engine import search as operations
from ...engine.libraries import find
from ...engine.search import Query, SearchResult
from ...errors import Code, VecError
from ...feed import positions
from ...store import events
from ...store.catalogue import DEFAULT, Library
from ..call import Call, warnings_field


async def search(call: Call) -> dict[str, Any]:
    query = await _query(call)
    passage_chars = call.fields.optional_integer(
        "passage_chars", low=limits.PASSAGE_CHARS_MIN, high=limits.PASSAGE_CHARS_MAX
    )
    if passage_chars is not None and query.k > limits.PASSAGES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"up to {limits.PASSAGES_MAX} hits can have passages, and k is {query.k:,}",
            f"ask for {limits.PASSAGES_MAX} or fewer, or leave out passage_chars",
            field="passage_chars",
        )
    with call.engine.views.open():  # what is found stays readable
        return await _answer(call, query, passage_chars)


async def _query(call: Call) -> Query:
    """The query, checked. `library` is the first if there are several."""
    fields = call.fields
    since = fields.optional_text("since", chars_max=limits.ID_BYTES_MAX)
    query = Query(
        library=fields.text("library", DEFAULT),
        text=fields.optional_text("query"),
        vector=fields.optional_bytes("vector"),
        k=fields.integer("k", 10, low=1, high=limits.HITS_MAX),
        mode=fields.text("mode", "auto"),
        where=await call.engine.parse_filter(fields.filters("where")),
        ef=fields.optional_integer("ef", low=1, high=limits.EF_MAX),
        exact=fields.flag("exact"),
        recall=fields.optional_number("recall", low=limits.RECALL_MIN, high=1),
        explain=fields.flag("explain"),
        group=fields.optional_text("group_by"),
        min_score=fields.optional_number("min_score"),
        offset=fields.integer("offset", 0, low=0, high=limits.HITS_MAX),
        floor=None if since is None else await call.engine.read(_floor, call, since),
    )
    if query.mode not in operations.MODES:
        modes = ", ".join(operations.MODES)
        raise VecError(Code.INVALID_REQUEST, f"unknown mode {query.mode!r:.40}", f"modes: {modes}", field="mode")
    if query.group is not None and query.group not in operations.GROUPS:
        raise VecError(
            Code.INVALID_REQUEST,
            f"hits cannot be grouped by {query.group!r:.40}",
            f"group_by is {' or '.join(operations.GROUPS)}",
            field="group_by",
        )
    if query.explain and query.k > limits.EXPLAINED_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"up to {limits.EXPLAINED_MAX} hits can be explained, and k is {query.k:,}",
            f"ask for {limits.EXPLAINED_MAX} or fewer, or leave out explain",
            field="explain",
        )
    if query.offset + query.k > limits.HITS_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"offset and k together are {query.offset + query.k:,}; the limit is {limits.HITS_MAX:,}",
            field="offset",
        )
    return query


def _floor(call: Call, since: str) -> int | None:
    """The label from which on documents have been written after a position of the log; None: all of them. Blocks.

    Raises VecError `invalid_cursor`, `foreign_cursor` or `compacted`.
    """
    database = call.engine.database
    seq = positions.resolve(database, since).seq
    if not seq:
        return None
    last_label = database.moment.label  # before the read, which then knows all documents up to it
    with database.read_transaction() as db:
        if seq < (horizon := events.horizon(db)[0]):
            raise positions.compacted_error(database, f"the position {since}", horizon)
        label = events.first_label(db, seq)
    return last_label + 1 if label is None else label


# --- the answer -----------------------------------------------------------------------------------------------------


async def _answer(call: Call, given: Query, passage_chars: int | None) -> dict[str, Any]:
    fields = call.fields
    names = fields.optional_texts("libraries", count_max=limits.SEARCHED_LIBRARIES_MAX, chars_max=limits.NAME_BYTES_MAX)
    if names is not None and not names:
        raise VecError(Code.INVALID_REQUEST, "the list of libraries is empty", field="libraries")
    libraries = (
        [find(call.engine, given.library)] if names is None else federated.named(call.engine, names)
    )  # fails before anything is read
    queries = await _queries(call, given, libraries)
    if names is None:
        query = queries[0]
        found = await operations.search(call.engine, query)
    else:
        query = replace(given, without=next((each.without for each in queries if each.without is not None), None))
        pairs = list(zip(libraries, queries, strict=True))
        found = await federated.search_several(call.engine, query, pairs, lenient=federated.ALL in names)
    read = partial(_hits, call, found, query)
    if found.libraries is not None:
        await call.wait_for_room()
        found = replace(found, hits=await call.engine.read(read, found.ranking[: limits.PAGE_ITEMS], 0))
    elif found.explain is None and (found.hits is None or not call.is_writable):
        first = found.ranking[: limits.PAGE_ITEMS]
        found = replace(found, hits=None)  # it would be held until the peer reads
        await call.wait_for_room()
        found = replace(found, hits=await call.engine.read(read, first, 0))
    assert found.hits is not None
    if passage_chars is not None and found.hits:
        by_name = {library.name: library for library in libraries}
        await call.engine.read(hit_passages.add, found.hits, by_name, libraries[0], query.text, passage_chars)
    about: dict[str, Any] = {} if found.explain is None else {"explain": found.explain}
    about |= _warned(call, queries, found)
    if not found.ranking:
        asked = queries[0] if names is None else query
        about["no_hits"] = no_hits.why(call.engine, libraries, asked, found, fields.raw("since"))
    if query.k <= limits.PAGE_ITEMS:
        return {"hits": found.hits, **about}
    call.streamed = True
    await call.items(found.hits)
    for start in range(limits.PAGE_ITEMS, len(found.ranking), limits.PAGE_ITEMS):
        page = found.ranking[start : start + limits.PAGE_ITEMS]
        await call.wait_for_room()
        await call.items(await call.engine.read(read, page, start))
    return about


async def _queries(call: Call, given: Query, libraries: list[Library]) -> list[Query]:
    """The query as it is for each library."""
    like = call.fields.optional_text("like", chars_max=limits.ID_BYTES_MAX)
    if like is None:
        return [replace(given, library=library.name) for library in libraries]
    if given.text is not None or given.vector is not None:
        raise VecError(Code.INVALID_REQUEST, "like cannot be combined with a query or a vector", field="like")
    example = await call.engine.read(similar.example, call.engine, libraries, like)
    return [similar.query_for(given, example, library) for library in libraries]


def _hits(call: Call, found: SearchResult, query: Query, page: list[tuple[int, float]], start: int) -> list[Any]:
    """The hits of a page that begins `start` hits behind the first. Blocks."""
    first_rank = query.offset + start + 1
    if found.libraries is None:
        return call.engine.hit_cache.hits(page, first_rank)
    before, after = federated.about(found, explain=query.explain)
    return call.engine.hit_cache.hits(page, first_rank, before=before, after=after)


def _warned(call: Call, queries: list[Query], found: SearchResult) -> dict[str, Any]:
    damaged = [warning for query in queries for warning in operations.damage_warnings(call.engine, query)]
    return warnings_field([*found.warnings, *damaged])
