"""Tokenizer of folded text: words, names made of words, runs without spaces, symbols and emoji.

Pure pattern matching on `folding.shape`. Words are those of UAX #29 (letters, digits, their marks, inner apostrophes),
except for three kinds of text that UAX #29 does not segment as search needs it:

- A *name* is words joined by `_`, `-`, `.`, `@` or `&`, or by a comma between digits: foo_bar, CVE-2024-1234, 3.11.4,
  node.js, ada@example.com. It is a token, and so is each of its parts. It is split first at `@`, then at `.`, then at
  `-`, then at `_`, so my-file.txt also gives my-file. A leading dot (.NET) and a trailing `++` or `#` (C++, C#) belong
  to the name. Slashes and colons only separate: a path is several names.
- A *run* of a script without spaces (Han, kana, Hangul, Thai, Lao, Khmer, Burmese and others) gives its characters and
  its bigrams, in the order 1, 12, 2, 23, 3, so that what is adjacent in the text is adjacent in the tokens. A character
  is a letter with its marks.
- A *symbol* is a token, and an emoji sequence, a flag or a keycap is one token, followed by its pictographs.

Each token has a role, which determines how a query uses it:

    MAIN    the most specific token; a query searches for it
    PART    part of a name or of an emoji sequence; a query may count it as weaker evidence
    INNER   only for documents: net of .net, the single characters of a longer run

camelCase is not split: it would add two terms for each identifier in source code, and `parse*` finds parseJSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from operator import add
from typing import Final, NamedTuple

from .folding import shape


class Role(IntEnum):
    """How a query uses a token."""

    MAIN = 0  # searched for
    PART = 1  # weaker evidence
    INNER = 2  # not used by queries


class Token(NamedTuple):
    """A token of a folded text, `text[start:stop]` except for an acronym without its dots."""

    start: int  # code points
    stop: int  # exclusive
    text: str
    role: Role
    #: A word of letters only, to be stemmed.
    stems: bool


_WORD: Final = r"[a-z0-9]+(?:'[a-z0-9]+)*"
_JOIN: Final = r"(?:_+|[.@&-]|(?<=[0-9]),(?=[0-9]))"
_SUFFIX: Final = r"(?:(?<=[a-z])(?:\+\+[0-9][a-z0-9]?(?![a-z0-9])|(?:\+\+|#)(?![a-z0-9+#])))?"
_NAME: Final = rf"(?:(?<![a-z0-9._)\]])\.(?=[a-z]))?{_WORD}(?!K)(?:{_JOIN}{_WORD})*{_SUFFIX}"
_ASCII_NAME: Final = re.compile(_NAME)
_TOKEN: Final = re.compile(
    rf"(?P<name>{_NAME})|(?P<run>[CM]+)|(?P<emoji>[0-9#*]K|RR|E[BG]*(?:Z+[ES][BG]*)*)|(?P<symbol>[SRB]M*)"
)
_UNIT: Final = re.compile(r"CM*|M+")
_PICTOGRAPH: Final = re.compile(r"[ES0-9]")
#: The levels at which a name is split, as patterns of the parts between the separators.
_LEVELS: Final = tuple(re.compile(each) for each in (r"[^@]+", r"[^.,]+", r"[^&-]+", r"[^_]+", r"[^']+"))
_DOTS: Final = 1
_APOSTROPHES: Final = len(_LEVELS) - 1
_DECORATION: Final = re.compile(r"(?:\+\+[a-z0-9]*|#)\Z")
#: English endings after an apostrophe: the stemmer handles them, and they are not words.
_ENDINGS: Final = frozenset(("s", "t", "d", "m", "re", "ve", "ll"))


def ascii_stretches(folded: str) -> list[str]:
    """The words and names of a folded ASCII text, in order.

    Their concatenated tokens are the tokens of the text.
    """
    return _ASCII_NAME.findall(folded)


def stretches(folded: str) -> Iterator[tuple[str, list[str] | None]]:
    """The words, names, runs, symbols and emoji of any folded text, in order; for a run, also the texts of its tokens.

    Their concatenated tokens are the tokens of the text.
    """
    shaped = shape(folded)
    for found in _TOKEN.finditer(shaped):
        start, stop = found.span()
        text = folded[start:stop]
        yield text, _run_texts(text, found[0]) if found.lastgroup == "run" else None


def tokens(folded: str) -> Iterator[Token]:
    """The tokens of a folded text, in order; a name comes before its parts."""
    shaped = shape(folded)
    for found in _TOKEN.finditer(shaped):
        start, stop = found.span()
        if found.lastgroup == "name":
            if shaped[start:stop].isalnum():
                yield _word(folded, shaped, start, stop, Role.MAIN)
            else:
                yield from _name(folded, shaped, start, stop)
        elif found.lastgroup == "run":
            yield from _run(folded, shaped, start, stop)
        else:
            yield Token(start, stop, folded[start:stop], Role.MAIN, False)
            if stop - start > 1 and found.lastgroup == "emoji":
                for each in _PICTOGRAPH.finditer(shaped, start, stop):
                    yield Token(each.start(), each.end(), folded[each.start()], Role.PART, False)


def _word(folded: str, shaped: str, start: int, stop: int, role: Role) -> Token:
    return Token(start, stop, folded[start:stop], role, shaped[start:stop].isalpha())


def _name(folded: str, shaped: str, start: int, stop: int) -> Iterator[Token]:
    """The tokens of a name: the whole name with its leading dot and suffix, and its parts."""
    inner, end = start, stop
    if shaped[start] == ".":
        inner = start + 1
    if decoration := _DECORATION.search(shaped, start, stop):
        end = decoration.start()
    if (inner, end) == (start, stop):
        yield from _split(folded, shaped, start, stop, 0, Role.MAIN)
        return
    yield Token(start, stop, folded[start:stop], Role.MAIN, False)
    if end < stop - 2:  # c++17 is also c++
        yield Token(start, end + 2, folded[start : end + 2], Role.INNER, False)
    # A search for c must not find C++ or C#, but one for notepad finds Notepad++.
    if end == stop or end - inner > 1:
        yield from _split(folded, shaped, inner, end, 0, Role.INNER)


def _split(folded: str, shaped: str, start: int, stop: int, level: int, role: Role) -> Iterator[Token]:
    """The tokens of `folded[start:stop]`: the whole, and its parts from `level` on."""
    parts: list[tuple[int, int]] = []
    while level < len(_LEVELS):
        parts = [found.span() for found in _LEVELS[level].finditer(shaped, start, stop)]
        if len(parts) > 1:
            break
        level += 1
    if level == len(_LEVELS):
        yield _word(folded, shaped, start, stop, role)
        return
    stems = level == _APOSTROPHES and shaped[start:stop].replace("'", "").isalpha()
    yield Token(start, stop, folded[start:stop], role, stems)
    if level == _APOSTROPHES:
        if len(parts) == 2 and shaped[slice(*parts[1])] in _ENDINGS:
            return
        parts = [(first, last) for first, last in parts if last - first > 1 and shaped[first:last] not in _ENDINGS]
    below = max(role, Role.PART)
    if level == _DOTS and all(last - first == 1 and shaped[first].isalpha() for first, last in parts):
        yield Token(start, stop, folded[start:stop].replace(".", ""), below, False)  # U.S.A. is also usa
    for first, last in parts:
        yield from _split(folded, shaped, first, last, level + 1, below)


def _run(folded: str, shaped: str, start: int, stop: int) -> Iterator[Token]:
    units = [found.span() for found in _UNIT.finditer(shaped, start, stop)]
    alone = Role.MAIN if len(units) == 1 else Role.INNER
    for place, (first, last) in enumerate(units):
        yield Token(first, last, folded[first:last], alone, False)
        if place + 1 < len(units):
            yield Token(first, units[place + 1][1], folded[first : units[place + 1][1]], Role.MAIN, False)


def _run_texts(text: str, shaped: str) -> list[str]:
    """The texts of the tokens that `_run` yields for the whole text."""
    units = [text[found.start() : found.end()] for found in _UNIT.finditer(shaped)] if "M" in shaped else list(text)
    texts = [""] * (2 * len(units) - 1)
    texts[::2] = units
    texts[1::2] = map(add, units, units[1:])
    return texts
