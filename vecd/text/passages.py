"""Passages: the part of a text that answers a query best, with the places of the query's words (keyword in context).

A passage begins at a sentence if one begins nearby, and its white space is collapsed, so that it can be shown on a few
lines. Words are matched as full-text search matches them: `rotating` is marked for `rotate`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .analysis import Analyzer, TextQuery
from .folding import fold

#: Code points of a text that are looked at; chunks are much shorter.
_ANALYSED_CHARS: Final = 20_000
#: What a query's words add to the score of a passage that has them.
_WORD, _PART, _FAINT, _REPEATED = 1.0, 0.4, 0.1, 0.02
#: English words that say little about a text. They are marked only if a query has no others.
_FUNCTION_WORDS: Final = (
    "a about all an and any are as at be but by can did do does for from had has have how i if in into is it its me my"
    " no not of on or our so that the their them then there these they this to us was we were what when where which who"
    " why will with you your"
)
_SENTENCE: Final = re.compile(r"(?<=[.!?。！？])\s+|\n\s*")
_CUT: Final = "…"
#: A passage that would begin inside a word begins at the next, if that is not further away.
_WORD_CHARS: Final = 20

Marks = list[tuple[int, int]]


class Passage(NamedTuple):
    """A part of a text. `marks` are the places of the query's words in it: start, and stop (exclusive), in code
    points. `lines` counts the line breaks of the text before the first of them, or before the passage."""

    text: str
    marks: Marks
    lines: int


class _Match(NamedTuple):
    start: int
    stop: int
    term: str
    weight: float


class PassageFinder:
    """Finds passages for one query."""

    def __init__(self, analyzer: Analyzer, query: TextQuery) -> None:
        self._analyzer = analyzer
        self._weights = dict.fromkeys(query.parts, _PART)
        for unit in query.units:
            self._weights.update(dict.fromkeys(unit, _WORD))
        self._weights.update(dict.fromkeys(query.words, _WORD))
        faint = _function_terms(analyzer) & self._weights.keys()
        if len(faint) < len(self._weights) or query.prefixes:
            self._weights.update(dict.fromkeys(faint, _FAINT))
        self._starts = tuple(start for prefix in query.prefixes for start in prefix.starts)
        weights, starts = self._weights, self._starts
        weights.update((term, _WORD) for prefix in query.prefixes for term in prefix.equals)
        self._wanted: Callable[[str], bool] = weights.__contains__
        if starts:
            self._wanted = lambda term: term in weights or term.startswith(starts)

    def marks(self, text: str) -> Marks:
        """The places of the query's words in a short text."""
        return _joined(match for match in self._matches(text[:_ANALYSED_CHARS]) if match.weight > _FAINT)

    def passage(self, text: str, chars: int) -> Passage:
        """The best passage of about `chars` code points."""
        text = text[:_ANALYSED_CHARS]
        matches = list(self._matches(text))
        start, stop = self._window(text, matches, chars)
        marks = _joined(match for match in matches if match.weight > _FAINT and start <= match.start < stop)
        return _collapsed(text, start, stop, marks)

    def _matches(self, text: str) -> Iterator[_Match]:
        for start, stop, term in self._analyzer.spans(text, self._wanted):
            weight = self._weights.get(term, 0.0)
            if not weight and self._starts and fold(text[start:stop]).startswith(self._starts):
                term, weight = self._starts[0], _WORD
            if weight:
                yield _Match(start, stop, term, weight)

    def _window(self, text: str, matches: list[_Match], chars: int) -> tuple[int, int]:
        """Start and stop of the passage."""
        if len(text) <= chars:
            return 0, len(text)
        first = last = 0
        if matches:
            first, last = _densest(matches, chars * 2 // 3)  # the rest is for what stands around them
        start = _beginning(text, first, max(0, chars - (last - first)) * 2 // 3)
        if len(text) - start < chars:  # the end of the text
            start = max(0, len(text) - chars)
            space = text.find(" ", start, min(first, start + _WORD_CHARS)) if start else -1
            start = space + 1 if space >= 0 else start
        stop = min(len(text), start + chars)
        if stop < len(text):
            space = text.rfind(" ", max(start + chars // 2, last), stop + 1)
            stop = space if space > 0 else stop
        return start, stop


def _densest(matches: list[_Match], chars: int) -> tuple[int, int]:
    """Where the matches of the best passage of that length begin and end: it has most of the query's words."""
    best, found = 0.0, (matches[0].start, matches[0].stop)
    weights = {match.term: match.weight for match in matches}
    inside: Counter[str] = Counter()
    score, last = 0.0, 0
    for match in matches:
        while last < len(matches) and matches[last].stop - match.start <= chars:
            term = matches[last].term
            score += weights[term] * (_REPEATED if inside[term] else 1)
            inside[term] += 1
            last += 1
        if score > best + 1e-9:
            best, found = score, (match.start, matches[max(last - 1, 0)].stop)
        if inside[match.term]:
            inside[match.term] -= 1
            score -= weights[match.term] * (_REPEATED if inside[match.term] else 1)
        else:
            last += 1  # a single match longer than the passage
    return found


def _beginning(text: str, first: int, room: int) -> int:
    """Where a passage begins whose first match is at `first`, with `room` for what stands before it."""
    if first <= room:
        return 0
    earliest = first - room
    sentences = [found.end() for found in _SENTENCE.finditer(text, max(0, earliest - 1), first) if found.end() <= first]
    if sentences:
        return sentences[0] if len(sentences) == 1 or first - sentences[0] <= room // 2 else sentences[-1]
    earliest = first - room // 3
    space = text.find(" ", max(0, earliest - 1), first)
    return space + 1 if space >= 0 else earliest


def _collapsed(text: str, start: int, stop: int, marks: Marks) -> Passage:
    """The passage with its white space collapsed, and the places of the marks in that."""
    pieces = [found.span() for found in re.finditer(r"\S+", text[start:stop])]
    pieces = [(start + first, start + last) for first, last in pieces]
    if not pieces:
        return Passage("", [], 0)
    shown = _CUT if start > 0 and text[:start].strip() else ""
    at: dict[int, int] = {}  # place in the text -> place in the passage, for the marks
    wanted = sorted({place for mark in marks for place in mark})
    index = 0
    for number, (first, last) in enumerate(pieces):
        shown += " " if number else ""
        while index < len(wanted) and wanted[index] <= last:
            at[wanted[index]] = len(shown) + max(0, wanted[index] - first)
            index += 1
        shown += text[first:last]
    for place in wanted[index:]:
        at[place] = len(shown)
    if text[stop:].strip():
        shown += _CUT
    moved = [(at[first], at[last]) for first, last in marks]
    moved = [(first, last) for first, last in moved if first < last]
    return Passage(shown, moved, text.count("\n", 0, marks[0][0] if marks else pieces[0][0]))


def _joined(matches: Iterator[_Match]) -> Marks:
    """The places of matches, those that overlap as one."""
    marks: Marks = []
    for start, stop, _, _ in sorted(matches):
        if marks and start < marks[-1][1]:
            marks[-1] = (marks[-1][0], max(stop, marks[-1][1]))
        else:
            marks.append((start, stop))
    return marks


def _function_terms(analyzer: Analyzer) -> set[str]:
    return set(analyzer.terms(_FUNCTION_WORDS)) if analyzer.language == "english" else set()
