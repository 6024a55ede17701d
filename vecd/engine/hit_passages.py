"""Adds to hits the passages that show best why they are hits."""

from __future__ import annotations

from typing import Any

from ..store.catalogue import Library
from ..text.analysis import analyzer
from ..text.passages import PassageFinder


def add(hits: list[dict[str, Any]], libraries: dict[str, Library], only: Library, text: str | None, chars: int) -> None:
    """Adds to each hit a passage of about `chars` code points for the query `text`. The hit's library, by name, is
    that of the hit, or else `only`. Blocks for about a millisecond for each hit."""
    finders: dict[str, PassageFinder] = {}
    for hit in hits:
        language = libraries.get(hit.get("library", ""), only).language
        if (finder := finders.get(language)) is None:
            made = analyzer(language)
            finder = finders[language] = PassageFinder(made, made.query(text or ""))
        passage = finder.passage(hit["text"] or "", chars)
        hit["passage"] = {
            "text": passage.text,
            "marks": [list(mark) for mark in passage.marks],
            "lines": passage.lines,
            "title_marks": [list(mark) for mark in finder.marks(hit["title"] or "")],
        }
