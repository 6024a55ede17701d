"""The messages of a LiveIndex: writes, searches with their options, and answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from .fulltext.inverted_index import TermQuery
from .fulltext.segments import TermCounts
from .local.flat import Flat
from .rows import Floats, Labels, Ranked, Selection


class Replaced(NamedTuple):
    """Other vectors for the chunks of a library, prepared as `builder.prepared` does; labels that are no longer alive
    may be among them. The index takes over what `vectors` returns: it is called once."""

    vectors: Callable[[], Flat]
    generation: int  # as `Stored.generation` from now on


@dataclass(slots=True)
class Write:
    """The changes of one commit: rows that it added (vectors of shape (n, dimension)) and labels that it removed."""

    seq: int
    labels: Labels
    vectors: Floats
    removed: list[int]
    #: The labels of the first chunks of the documents that it added; None: one chunk each.
    firsts: Labels | None = None
    #: The terms of the chunks that it added, or a function that computes them.
    words: TermCounts | Callable[[], TermCounts] | None = None
    #: The vectors from now on of all chunks that there were before it; called in a turn. None: they remain.
    replaced: Replaced | None = None
    #: Whether it is applied even if the loaded vectors may include it. To add or remove a row again changes nothing.
    always: bool = False


class SearchOptions(NamedTuple):
    """Options of a search."""

    k: int
    ef: int | None = None  # the effort of an approximate search, set by the user
    exact: bool = False
    select: Callable[[], Selection] | None = None  # the rows that it may find; called in a turn, may raise VecError
    recall: float | None = None  # the fraction of the nearest to find; None: the promise of the library
    by_document: bool = False  # the k best documents, each by its best chunk
    sampled: bool = True  # whether its recall may be measured: true for queries of users


class Answer(NamedTuple):
    """The result of a search, as of one seq."""

    seq: int
    near: Ranked | None  # by vector
    worded: Ranked | None  # by words
    titled: Ranked | None  # by the title as a whole
    exact: bool  # whether the search by vector was exact
    generation: int = 0  # of the vectors, as `Stored.generation`
    second: Ranked | None = None  # what the search brought, without what is not alive at `seq`


@dataclass(slots=True, eq=False)
class Search:
    """A search that waits for its answer."""

    query: Floats | None  # shape (dimension,)
    words: TermQuery | None
    title: str | None
    options: SearchOptions
    future: Future[Answer] = field(default_factory=Future)
    #: Chunks to ask an asynchronous structure for; more than k if these were of too few documents.
    asked: int = 0
    #: A ranking of the same chunks by another index, of an earlier state.
    second: Ranked | None = None
