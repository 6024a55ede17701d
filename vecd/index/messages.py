"""What a LiveIndex is asked and told: writes, the options of a search, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .fulltext.segments import TermCounts
from .rows import Floats, Labels, Ranked, Selection


@dataclass(slots=True)
class Write:
    """What one commit did: rows that came (shape (n, dimension)), labels that went."""

    seq: int
    labels: Labels
    vectors: Floats
    removed: list[int]
    firsts: Labels | None = None  # of the documents that came, the labels of their first chunks; None: one chunk each
    words: TermCounts | Callable[[], TermCounts] | None = None  # of the chunks that came, or what makes them


class Options(NamedTuple):
    """How a search is done."""

    k: int
    ef: int | None = None  # the effort of an approximate one, asked for by hand
    exact: bool = False
    select: Callable[[], Selection] | None = None  # which rows it may find; called on the strand, may raise VecError
    recall: float | None = None  # the share of the nearest that it is to find; None: what the library promises
    by_document: bool = False  # the k best documents, each by its best chunk
    sampled: bool = True  # whether its recall may be measured: it is somebody's own query


class Answer(NamedTuple):
    """What a search found, as of one moment."""

    seq: int  # the state that it is of
    near: Ranked | None  # by vector
    worded: Ranked | None  # by words
    titled: Ranked | None  # by the title as a whole
    exact: bool  # whether the nearest vectors were found by comparing all
