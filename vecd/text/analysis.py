"""Text analysis for full-text search: one way from text to index terms, for documents and for queries.

    analyzer("english").terms("Rotating the logs")   # ["rotat", "the", "log", "\x02rotating"]
    analyzer("english").query('"rotate logs" C++')   # words rotat, log, c++; phrase rotat log

A text is split at white space. Each piece is folded (folding.py), cut into tokens (tokenizing.py), and tokens that are
words of letters are stemmed (Snowball, one language a library). A piece is analysed by itself, without its neighbours,
so the terms of a text are those of its pieces, one after the other. That is what makes the guarantees hold, and pieces
can be cached.

Guarantees (tests/text/test_analysis.py):

- The terms of a query's words, parts, units and phrases are terms of each document that holds the same pieces.
- A short run of a script without spaces is one unit of a query: 日本語 finds what holds both pairs, 日本 and 本語.
  A run of more pairs than `_UNIT_PAIRS_MAX` is a sentence, and each of its pairs counts by itself.
- Every piece gives a term, unless it consists of white space, control and format characters, variation selectors and
  ASCII punctuation (printable ASCII but letters, digits and the symbols $+<=>^`|~). A piece of nothing but these
  symbols, other punctuation or marks gives one term for each different character of them. A query uses such terms only
  if it has no others: a dash between two words is not searched for.
- No term is longer than `TERM_CHARS_MAX`. A longer one is cut, and a hash of the whole is appended.
- Every term can be encoded as UTF-8, and none is empty.

**Stems and prefixes.** Diacritics are folded before stemming, so that résumé and resume have one stem. The price is
that suffixes with accents (French -ées) are stemmed less well. Case, accents and endings are the same for documents
and queries, so what is found is never decided by the spelling of one side.

A prefix `w*` must find every document that holds a word that begins with w, but the index holds stems, and a stem may
be shorter than the prefix, or differ from its word (flying, fli). An enumeration of possible stems cannot be complete:
Snowball changes letters, and in some languages removes beginnings. So where two or more characters of a word are not
the beginning of its stem, the terms also have the unstemmed word, marked with `FORM_MARK`, once a document and after
all other terms, where it does not disturb phrases. Where only the last character is lost (logs, log), the only longer
prefix is the word itself, and the query adds its stem as an exact alternative: `logs*` also finds log and logging,
which have the same stem, but not logic. The marked words are a tenth of the terms of 1,000 characters of English
prose; a second index of unstemmed words would be as large as the first. A prefix ends behind a character, not between
a letter and its marks. In scripts without spaces, where words do not show, `東京*` finds what holds 東京.

**Phrases** are consecutive terms. A phrase of whole pieces is always found; one that begins in the middle of a name
(`"x foo"` in x foo_bar) is not.

**Threads.** All methods may be called from several threads. A stemmer is not thread-safe and has a lock; it is asked
only for pieces that the cache lacks. Caches are bounded.
"""

from __future__ import annotations

import re
import threading
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import apsw.unicode as unicode
import Stemmer

from .folding import fold, is_invisible
from .languages import checked
from .tokenizing import Role, Token, ascii_stretches, stretches, tokens

#: Code points of a term; a word has one less, so that there is room for a mark. Hardly a word of any language is
#: longer; the rest is base64 and the like.
TERM_CHARS_MAX: Final = 64
#: Code points that are kept of a longer term, in front of its hash; a longer prefix is cut to them too.
_TERM_CHARS_KEPT: Final = 48
#: A term that begins with this is an unstemmed word, for prefixes only. No other term begins with it.
FORM_MARK: Final = "\x02"
#: A term that begins with this stands for a whole text. No other term begins with it.
WHOLE_MARK: Final = "\x03"
#: Code points of a text that `whole` takes; a longer one is no title that anybody types.
_WHOLE_CHARS_MAX: Final = 200
#: Terms where they stand alone.
_ASCII_SYMBOLS: Final = frozenset("$+<=>^`|~")
DEFAULT_LANGUAGE: Final = "english"

#: To be raised with every change of what this module, folding.py or tokenizing.py makes of a text.
_RULES: Final = 2
#: Changes whenever the terms of a text may: with the rules, and with the versions of Unicode and Snowball that they
#: rest on. An index of another version must be built again from the texts.
ANALYSIS_VERSION: Final = zlib.crc32(
    f"{_RULES} {unicodedata.unidata_version} {unicode.unicode_version} {Stemmer.version()}".encode()
)

#: Entries in the newer half of a cache; twice as many in both, 10 to 15 MB. There are two caches a language.
_CACHED_PIECES: Final = 32_768
#: Pairs of characters that are one unit of a query: words of scripts without spaces are hardly longer.
_UNIT_PAIRS_MAX: Final = 5
#: Longer pieces are not cached.
_CACHED_CHARS: Final = 40
#: Languages whose caches are kept.
_CACHED_LANGUAGES: Final = 8

#: What makes more of a name than words that are joined by dots, hyphens and underscores: an acronym among it.
_UNUSUAL: Final = re.compile(r"[@&,'+#]|(?<![^.])[a-z]\.[a-z](?![^.])")
#: What may stand around a word or name and does not change how it is cut.
_LEADING: Final = "([{<\"'`*"
_TRAILING: Final = ".,;:!?)]}>\"'`*"
#: The `*` of a prefix, with the joiners before and the punctuation behind it.
_STAR: Final = re.compile(r"[_.@&'-]*\*+[)\]',.;:!?]*\Z")
#: It is looked for in so many last code points of a piece: a search in a long row of hyphens would be quadratic.
_STAR_CHARS: Final = 32
_PHRASE: Final = re.compile(r"(?<!\w)[\"“„«]([^\"“”«»]+)[\"”“»](?!\w)")


class Prefix(NamedTuple):
    """A prefix: a document matches that has a term that begins with one of `starts` or is one of `equals`."""

    starts: tuple[str, ...]
    equals: tuple[str, ...]

    def matches(self, term: str) -> bool:
        return term.startswith(self.starts) or term in self.equals


class TextQuery(NamedTuple):
    """What a query searches for. It is false if there is nothing to search for."""

    #: The most specific terms, without duplicates, in order: foo_bar, c++, rotat. Those of phrases are among them.
    words: tuple[str, ...] = ()
    #: Parts of the names in `words`, as weaker evidence: foo, bar. None is in `words`. May be ignored.
    parts: tuple[str, ...] = ()
    #: Terms that must be consecutive, each at least one term.
    phrases: tuple[tuple[str, ...], ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    #: Terms that count together only: the pairs of characters of a short run, which is a word of a script without
    #: spaces. None is in `words` but for another reason.
    units: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words or self.prefixes or self.units)


class Span(NamedTuple):
    """Where in a text a term comes from: `text[start:stop]`, in code points."""

    start: int
    stop: int
    term: str


class _Piece(NamedTuple):
    """What is cached of a piece: its terms in order, and the marked forms of those words that need one."""

    terms: tuple[str, ...]
    forms: tuple[str, ...]


class _Pieces(dict[str, _Piece]):
    """Piece -> its terms: a cache in two halves. When the newer is full, it takes the older one's place."""

    def __init__(self, make: Callable[[str], _Piece]) -> None:
        super().__init__()
        self._make = make
        self._older: dict[str, _Piece] = {}

    def __missing__(self, piece: str) -> _Piece:
        found = self._older.get(piece) or self._make(piece)
        if len(piece) <= _CACHED_CHARS:
            if len(self) >= _CACHED_PIECES:
                self._older = self.copy()
                self.clear()
            self[piece] = found
        return found


class Analyzer:
    """Terms of documents and queries in one language. Get it from `analyzer`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language, 0)
        self._lock = threading.Lock()
        self._pieces = _Pieces(self._analyse)
        # `logs,` and `(logs` are two pieces and one stretch.
        self._stretches = _Pieces(self._cut)

    def terms(self, text: str) -> list[str]:
        """The terms of a document, in order and with repetitions; then its marked forms, each once, sorted."""
        terms: list[str] = []
        forms: set[str] = set()
        pieces = self._pieces
        for piece in text.split():
            found = pieces[piece]
            terms += found.terms
            if found.forms:
                forms.update(found.forms)
        if forms:
            terms += sorted(forms)
        return terms

    def whole(self, text: str) -> str | None:
        """The term that stands for a whole short text, as a title is one: equal for texts of equal terms. None for a
        text without terms, or with very many."""
        if len(text) > _WHOLE_CHARS_MAX:
            return None
        return whole_of([term for term in self.terms(text) if not term.startswith(FORM_MARK)], text)

    def query(self, text: str) -> TextQuery:
        """What a person's query searches for: words, `"phrases in quotes"` and `prefixes*`."""
        words: dict[str, None] = {}
        parts: dict[str, None] = {}
        punctuation: dict[str, None] = {}
        prefixes: dict[Prefix, None] = {}
        units: dict[tuple[str, ...], None] = {}
        for piece in text.split():
            folded = fold(piece)
            found = list(tokens(folded))
            if not found:
                punctuation.update(dict.fromkeys(_punctuation(piece)))
            if star := _STAR.search(folded, max(0, len(folded) - _STAR_CHARS)):
                last = [n for n, each in enumerate(found) if each.role == Role.MAIN and each.stop == star.start()]
                if last:
                    prefixes[self._prefix(found[last[-1]])] = None
                    found = found[: last[-1]]
            for token in found:
                if token.role == Role.PART:
                    parts[self._term(token)] = None
            for run in _runs(token for token in found if token.role == Role.MAIN):
                terms = tuple(map(self._term, run))
                if 1 < len(terms) <= _UNIT_PAIRS_MAX:
                    units[terms] = None
                else:
                    words.update(dict.fromkeys(terms))
        if not (words or prefixes or units):
            words = punctuation
        phrases = (self._phrase(found[1]) for found in _PHRASE.finditer(text))
        return TextQuery(
            tuple(words),
            tuple(part for part in parts if part not in words),
            tuple(dict.fromkeys(phrase for phrase in phrases if phrase)),
            tuple(prefixes),
            tuple(units),
        )

    def spans(self, text: str) -> Iterator[Span]:
        """Where each term of a document comes from, in the order of `terms`, without the marked forms.

        A part of a name has its own place inside the name's.
        """
        for found in re.finditer(r"\S+", text):
            piece, start = found[0], found.start()
            places = _places(piece)
            cut = list(tokens(fold(piece)))
            for token in cut:
                yield Span(start + places[token.start][0], start + places[token.stop - 1][1], self._term(token))
            if not cut:
                yield from (Span(start, found.end(), term) for term in _punctuation(piece))

    def _analyse(self, piece: str) -> _Piece:
        known = self._stretches
        if piece.isascii():
            folded = piece.lower()
            inner = folded.lstrip(_LEADING).rstrip(_TRAILING)
            if inner in known or inner.isalnum():  # one stretch, for most pieces
                return known[inner]
            found = [known[each] for each in ascii_stretches(folded)]
        else:
            found = [
                known[each] if texts is None else _Piece(tuple(texts), ()) for each, texts in stretches(fold(piece))
            ]
        if not found:
            return _Piece(tuple(_punctuation(piece)), ())
        return found[0] if len(found) == 1 else _joined(found)

    def _cut(self, stretch: str) -> _Piece:
        """The terms of a folded word, name, symbol or emoji."""
        if stretch.isascii() and len(stretch) < TERM_CHARS_MAX:
            # As the loop below would do it, without tokens.
            if stretch.isalpha():
                stem = self._stem(stretch)
                return _Piece((stem,), (FORM_MARK + stretch,) if _needs_form(stretch, stem) else ())
            if stretch.isalnum():
                return _Piece((stretch,), ())
            joiner = next((each for each in ".-_" if each in stretch), "")
            if joiner and stretch[0] != "." and not _UNUSUAL.search(stretch):
                parts = (self._stretches[part] for part in stretch.split(joiner) if part)
                return _joined([_Piece((stretch,), ()), *parts])
        terms: list[str] = []
        forms: list[str] = []
        for token in tokens(stretch):
            term = self._term(token)
            terms.append(term)
            if token.stems and _needs_form(token.text, term):
                forms.append(FORM_MARK + token.text)
        return _Piece(tuple(terms), tuple(forms))

    def _term(self, token: Token) -> str:
        if len(token.text) >= TERM_CHARS_MAX:
            return _shortened(token.text)
        return self._stem(token.text) if token.stems else token.text

    def _stem(self, word: str) -> str:
        if self._stemmer is None:
            return word
        with self._lock:
            # Some algorithms leave nothing of a word that is all suffix.
            return str(self._stemmer.stemWord(word)) or word

    def _phrase(self, text: str) -> tuple[str, ...]:
        return tuple(term for piece in text.split() for term in self._pieces[piece].terms)

    def _prefix(self, last: Token) -> Prefix:
        """The prefix that a token followed by `*` is."""
        starts, stem = last.text[:_TERM_CHARS_KEPT], self._term(last)
        if self._stemmer is None or not last.stems:
            return Prefix((starts,), ())
        return Prefix((starts, FORM_MARK + starts), () if stem.startswith(starts) else (stem,))


def analyzer(language: str = DEFAULT_LANGUAGE) -> Analyzer:
    """The analyzer of a language, one for all threads.

    Raises VecError `unsupported` for a language that is not in LANGUAGES.
    """
    return _made(checked(language))


_made: Final = lru_cache(_CACHED_LANGUAGES)(Analyzer)


def whole_of(terms: Sequence[str], text: str) -> str | None:
    """As `Analyzer.whole`, of a text whose terms are known; without the marked forms."""
    if not terms or len(text) > _WHOLE_CHARS_MAX:
        return None
    return WHOLE_MARK + blake2b("\0".join(terms).encode(), digest_size=12).hexdigest()


def holds_phrase(terms: Sequence[str], phrase: tuple[str, ...]) -> bool:
    """Whether the terms of a phrase are consecutive in the terms of a document."""
    length = len(phrase)
    places = (place for place, term in enumerate(terms) if term == phrase[0])
    return any(tuple(terms[place : place + length]) == phrase for place in places)


def _runs(found: Iterable[Token]) -> Iterator[list[Token]]:
    """The main tokens of a query, those of one run together: only these overlap."""
    run: list[Token] = []
    for token in found:
        if run and token.start >= run[-1].stop:
            yield run
            run = []
        run.append(token)
    if run:
        yield run


def _shortened(text: str) -> str:
    """The beginning of a text that is too long for a term, and a hash of it: TERM_CHARS_MAX code points."""
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{text[:_TERM_CHARS_KEPT]}{digest}"


def _needs_form(word: str, stem: str) -> bool:
    """Whether two or more of the word's last characters are not in its stem."""
    return len(word) < TERM_CHARS_MAX and not stem.startswith(word[:-1])


def _joined(found: list[_Piece]) -> _Piece:
    terms: list[str] = []
    forms: list[str] = []
    for each in found:
        terms += each.terms
        forms += each.forms
    return _Piece(tuple(terms), tuple(forms))


def _punctuation(piece: str) -> list[str]:
    """The terms of a piece without tokens: each of its characters that is no ASCII punctuation and not invisible."""
    for text in (unicodedata.normalize("NFC", piece), piece):
        found = [
            char for char in dict.fromkeys(text) if char in _ASCII_SYMBOLS or not (char.isascii() or is_invisible(char))
        ]
        if found:
            return found
    return []


def _places(piece: str) -> Sequence[tuple[int, int]]:
    """For each code point of the folded piece, the start and stop in the piece of the character it comes from."""
    if piece.isascii():
        return [(place, place + 1) for place in range(len(piece))]
    places: list[tuple[int, int]] = []
    folded = []
    for start, stop, grapheme in unicode.grapheme_iter_with_offsets(piece):
        folded.append(fold(grapheme))
        places += [(start, stop)] * len(folded[-1])
    whole = fold(piece)
    if "".join(folded) == whole:
        return places
    return [(0, len(piece))] * len(whole)  # an ill-formed sequence, which folds otherwise by itself
