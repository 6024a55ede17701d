"""The words of chunks, as a library's full text takes them: what text/analysis.py makes of title and text."""

from __future__ import annotations

from collections.abc import Sequence

from ..index.segments import Batch, prepare
from ..store.catalogue import Library
from ..store.transaction import Change
from ..text.analysis import analyzer


def words_of(library: Library, titles: Sequence[str | None], texts: Sequence[str | None]) -> Batch:
    """By chunk: the title of its document, and its own text. Takes about 10 µs a line of text."""
    terms = analyzer(library.language).terms
    before: str | None = None
    title_terms: list[str] | None = None
    by_title: list[list[str] | None] = []
    for title in titles:  # chunks of one document stand together
        if title != before:
            before, title_terms = title, None if title is None else terms(title)
        by_title.append(title_terms)
    return prepare(by_title, [None if text is None else terms(text) for text in texts])


def words_in(library: Library, change: Change) -> Batch:
    """Those of the chunks that a commit added."""
    if isinstance(change.words, Batch):
        return change.words
    titles = [title for _, _, title, _, _, chunks in change.documents for _ in range(chunks)]
    return words_of(library, titles, change.texts)
