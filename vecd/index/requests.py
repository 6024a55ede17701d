"""What a LiveIndex is sent, and what it answers: writes, searches with their options, answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple

from .fulltext.inverted_index import TermQuery
from .fulltext.segments import TermCounts
from .rows import Floats, Labels, Ranked, Selection


@dataclass(slots=True)
class Write:
    """What one commit did: rows that it added (vectors of shape (n, dimension)) and labels that it removed."""

    seq: int
    labels: Labels
    vectors: Floats
    removed: list[int]
    #: The labels of the first chunks of the documents that it added; None: one chunk each.
    firsts: Labels | None = None
    #: The terms of the chunks that it added, or what computes them.
    words: TermCounts | Callable[[], TermCounts] | None = None


class SearchOptions(NamedTuple):
    """How a search is done."""

    k: int
    ef: int | None = None  # the effort of an approximate search, set by the user
    exact: bool = False
    select: Callable[[], Selection] | None = None  # which rows it may find; called in a turn, may raise VecError
    recall: float | None = None  # the share of the nearest that it is to find; None: what the library promises
    by_document: bool = False  # the k best documents, each by its best chunk
    sampled: bool = True  # whether its recall may be measured: it is a user's own query


class Answer(NamedTuple):
    """What a search found, as of one moment."""

    seq: int  # the state that it is of
    near: Ranked | None  # by vector
    worded: Ranked | None  # by words
    titled: Ranked | None  # by the title as a whole
    exact: bool  # whether the nearest vectors were found by comparing all


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
