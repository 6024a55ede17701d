"""Why a search has no hits, as a sentence for a person.

It is computed after the search, so a write in between can make it out of date; the search itself is not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..store.catalogue import Library
from ..text import embedders
from ..text.analysis import TextQuery, analyzer
from .engine import Engine
from .search import Query, SearchResult


def why(engine: Engine, libraries: Sequence[Library], query: Query, found: SearchResult, since: str | None) -> str:
    """The most likely reason why `found`, the result of `query` in these libraries, has no hits."""
    which = f"library {libraries[0].name!r}" if len(libraries) == 1 else f"each of {len(libraries):,} libraries"
    if not libraries:
        return "there are no libraries"
    if not any(library.chunks for library in libraries):
        return f"{which} is empty"
    if found.selected == 0:
        return _nothing_selected(query, since)
    if found.ranked > query.offset and query.min_score is not None:
        return f"no hit has a score of {query.min_score:g} or more"
    if found.ranked:
        return f"there are only {found.ranked:,} hits, and the offset is {query.offset:,}"
    if query.without is not None and sum(library.documents for library in libraries) == 1:
        return f"{which} has no other document"
    if query.text is None or found.mode == "vector":
        return "no document has a vector that could be compared"
    if all(_without_text(engine, library) for library in libraries):
        return f"{which} holds no text, only vectors, which need a query's vector"
    return _no_words(libraries, query, query.text)


def _without_text(engine: Engine, library: Library) -> bool:
    """Whether no chunk has a word, as far as the index knows."""
    if not library.chunks:
        return True
    text = engine.indexes.of(library).describe()["text"]
    return bool(text["state"] == "ready" and text["chunks"] == text["dead"])


def _nothing_selected(query: Query, since: str | None) -> str:
    what = "no document"
    if query.where:
        what += " matches the filter" if len(query.where) == 1 else f" matches all {len(query.where)} filters"
    if since is not None:
        what += f"{' and' if query.where else ''} has changed since {since}"
    return what


def _no_words(libraries: Sequence[Library], query: Query, text: str) -> str:
    words: TextQuery = analyzer(libraries[0].language).query(text[:1_000])
    if not words:
        return "the query has no words to search for"
    count = len(words.words) + len(words.prefixes) + len(words.units)
    selected = " that the filter selects" if query.where or query.floor is not None else ""
    if words.phrases:
        what = f"no document{selected} contains the phrase"
    elif count == 1:
        what = f"no document{selected} contains the word"
    else:
        what = f"no document{selected} contains any of the words"
    if not any(embedders.embeds(library.embedder) for library in libraries):
        what += ", and without an embedder only words are compared"
    return what
