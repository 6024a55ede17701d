"""Text analysis for full-text search: one analyzer that maps documents and queries to index terms.

    analyzer("english").terms("Rotating the logs")   # ["rotat", "the", "log", "\x02rotating"]
    analyzer("english").query('"rotate logs" C++')   # words rotat, log, c++; phrase rotat log

A text is split at white space. Each piece is folded (folding.py) and tokenized (tokenizing.py), and tokens that are
words of letters are stemmed (Snowball, one language per library). Each piece is analyzed without its neighbours, so the
terms of a text are the concatenated terms of its pieces. The guarantees rely on that, and pieces can be cached.

Guarantees (tests/text/test_analysis.py):

- The terms of a query's words, parts, units and phrases are terms of each document that has the same pieces.
- A short run of a script without spaces is one unit of a query: 日本語 finds documents with both bigrams, 日本 and
  本語. A run of more bigrams than `_UNIT_PAIRS_MAX` is a sentence, and each of its bigrams counts separately.
- Every piece gives a term, unless it consists of white space, control and format characters, variation selectors and
  ASCII punctuation (printable ASCII except letters, digits and the symbols $+<=>^`|~). A piece of only these symbols,
  other punctuation or marks gives one term for each different character. A query uses these terms only if it has no
  others: a dash between two words is not searched for.
- No term is longer than `TERM_CHARS_MAX`. A longer one is truncated, and a hash of the whole is appended.
- Every term can be encoded as UTF-8, and none is empty.

**Stems and prefixes.** Diacritics are folded before stemming, so that résumé and resume have one stem. The price is
that suffixes with accents (French -ées) are stemmed less well. Documents and queries are analyzed in the same way, so
case, accents and endings never decide whether a document matches.

A prefix `w*` must find every document with a word that begins with w, but the index holds stems, and a stem may be
shorter than the prefix, or differ from its word (flying, fli). Possible stems cannot be enumerated: Snowball changes
letters, and in some languages removes beginnings. So if a stem does not start with all but the last character of its
word, the terms also include the unstemmed word, marked with `FORM_MARK`, once per document and after all other terms,
where it does not affect phrases. If only the last character is lost (logs, log), the only longer prefix is the word
itself, and the query adds its stem as an exact alternative: `logs*` also finds log and logging, which have the same
stem, but not logic. The marked words are a tenth of the terms of 1,000 characters of English prose; a second index of
unstemmed words would be as large as the first. A prefix ends after a character, not between a letter and its marks. In
scripts without spaces, where word boundaries are unknown, `東京*` finds texts that contain 東京.

**Phrases** are consecutive terms. A phrase of whole pieces is always found; one that begins in the middle of a name
(`"x foo"` in x foo_bar) is not.

**Threads.** All methods are thread-safe. A stemmer is not, so a lock guards it; it is only used for pieces that are not
cached. Caches are bounded.
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

#: Code points of a term; a word has one less, to leave space for a mark. Longer tokens are rarely words of any
#: language; most are base64 and the like.
TERM_CHARS_MAX: Final = 64
#: Code points that a longer term keeps before its hash; a longer prefix is truncated to them too.
_TERM_CHARS_KEPT: Final = 48
#: The first character of a term that is an unstemmed word, for prefixes only. No other term begins with it.
FORM_MARK: Final = "\x02"
#: The first character of a term that represents a whole text. No other term begins with it.
WHOLE_MARK: Final = "\x03"
#: Code points of a text that `whole` accepts: nobody types a longer title.
_WHOLE_CHARS_MAX: Final = 200
#: ASCII symbols that are terms if a piece has nothing else.
_ASCII_SYMBOLS: Final = frozenset("$+<=>^`|~")
DEFAULT_LANGUAGE: Final = "english"

#: Increment this with every change of the output of this module, folding.py or tokenizing.py.
_RULES: Final = 2
#: Changes when the terms of a text may change: with the rules, and with the versions of Unicode and Snowball. An index
#: of another version must be rebuilt from the texts.
ANALYSIS_VERSION: Final = zlib.crc32(
    f"{_RULES} {unicodedata.unidata_version} {unicode.unicode_version} {Stemmer.version()}".encode()
)

#: Entries in the newer half of a cache; both halves take 10 to 15 MB. There are two caches per language.
_CACHED_PIECES: Final = 32_768
#: Bigrams of one unit of a query: words of scripts without spaces are rarely longer.
_UNIT_PAIRS_MAX: Final = 5
#: Longer pieces are not cached.
_CACHED_CHARS: Final = 40
#: Analyzers that are cached, with their caches.
_CACHED_LANGUAGES: Final = 8

#: Matches a name that is more than words joined by dots, hyphens and underscores; also an acronym.
_UNUSUAL: Final = re.compile(r"[@&,'+#]|(?<![^.])[a-z]\.[a-z](?![^.])")
#: Characters that may surround a word or name without changing its tokens.
_LEADING: Final = "([{<\"'`*"
_TRAILING: Final = ".,;:!?)]}>\"'`*"
#: The `*` of a prefix, with the joiners before it and the punctuation after it.
_STAR: Final = re.compile(r"[_.@&'-]*\*+[)\]',.;:!?]*\Z")
#: Last code points of a piece that are searched for it: in a long run of hyphens the search would be quadratic.
_STAR_CHARS: Final = 32
_PHRASE: Final = re.compile(r"(?<!\w)[\"“„«]([^\"“”«»]+)[\"”“»](?!\w)")


class Prefix(NamedTuple):
    """A prefix query: matches documents with a term that begins with one of `starts` or equals one of `equals`."""

    starts: tuple[str, ...]
    equals: tuple[str, ...]

    def matches(self, term: str) -> bool:
        return term.startswith(self.starts) or term in self.equals


class TextQuery(NamedTuple):
    """An analyzed query. It is falsy if it has nothing to search for."""

    #: The most specific terms, in order, without duplicates: foo_bar, c++, rotat. They include those of phrases.
    words: tuple[str, ...] = ()
    #: Parts of the names in `words`, as weaker evidence: foo, bar. Disjoint from `words`. May be ignored.
    parts: tuple[str, ...] = ()
    #: Sequences of terms that must be consecutive; none is empty.
    phrases: tuple[tuple[str, ...], ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    #: Groups of terms that only count together: the bigrams of a short run, which is a word of a script without spaces.
    #: They are in `words` only if the query has them separately, too.
    units: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words or self.prefixes or self.units)


class Span(NamedTuple):
    """The source of a term in a text: `text[start:stop]`, in code points."""

    start: int
    stop: int
    term: str


class _Piece(NamedTuple):
    """The cached analysis of a piece: its terms in order, and the marked forms of words that need one."""

    terms: tuple[str, ...]
    forms: tuple[str, ...]


class _Pieces(dict[str, _Piece]):
    """A cache, piece -> its terms, in two generations: when the newer is full, it replaces the older."""

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
    """Maps documents and queries in one language to terms. `analyzer` creates it."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language, 0)
        self._lock = threading.Lock()
        self._pieces = _Pieces(self._analyse)
        # `logs,` and `(logs` are different pieces with the same stretch, `logs`.
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
        """The term that represents a whole short text, such as a title: equal for texts of equal terms. None for a long
        text or one without terms."""
        if len(text) > _WHOLE_CHARS_MAX:
            return None
        return whole_of([term for term in self.terms(text) if not term.startswith(FORM_MARK)], text)

    def query(self, text: str) -> TextQuery:
        """Analyzes a query of words, `"phrases in quotes"` and `prefixes*`."""
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

    def spans(self, text: str, wanted: Callable[[str], bool] | None = None) -> Iterator[Span]:
        """The source of each term of a document, in the order of `terms`, without the marked forms.

        The span of a part of a name lies inside that of the name. With `wanted`, pieces without such a term or marked
        form are passed over, which takes a tenth of the time.
        """
        for found in re.finditer(r"\S+", text):
            piece, start = found[0], found.start()
            if wanted is not None:
                known = self._pieces[piece]
                if not any(map(wanted, known.terms)) and not any(map(wanted, known.forms)):
                    continue
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
            # A faster equivalent of the loop below, without tokens.
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
            # Some algorithms return an empty stem for a word that is only a suffix.
            return str(self._stemmer.stemWord(word)) or word

    def _phrase(self, text: str) -> tuple[str, ...]:
        return tuple(term for piece in text.split() for term in self._pieces[piece].terms)

    def _prefix(self, last: Token) -> Prefix:
        """The prefix query for a token followed by `*`."""
        starts, stem = last.text[:_TERM_CHARS_KEPT], self._term(last)
        if self._stemmer is None or not last.stems:
            return Prefix((starts,), ())
        return Prefix((starts, FORM_MARK + starts), () if stem.startswith(starts) else (stem,))


def analyzer(language: str = DEFAULT_LANGUAGE) -> Analyzer:
    """The analyzer of a language, shared by all threads.

    Raises VecError `unsupported` for a language that is not in LANGUAGES.
    """
    return _made(checked(language))


_made: Final = lru_cache(_CACHED_LANGUAGES)(Analyzer)


def whole_of(terms: Sequence[str], text: str) -> str | None:
    """`Analyzer.whole` for a text whose terms, without the marked forms, are known."""
    if not terms or len(text) > _WHOLE_CHARS_MAX:
        return None
    return WHOLE_MARK + blake2b("\0".join(terms).encode(), digest_size=12).hexdigest()


def holds_phrase(terms: Sequence[str], phrase: tuple[str, ...]) -> bool:
    """Whether the terms of a phrase are consecutive in the terms of a document."""
    length = len(phrase)
    places = (place for place, term in enumerate(terms) if term == phrase[0])
    return any(tuple(terms[place : place + length]) == phrase for place in places)


def _runs(found: Iterable[Token]) -> Iterator[list[Token]]:
    """Groups the main tokens of a query: those of one run, which overlap, form one group."""
    run: list[Token] = []
    for token in found:
        if run and token.start >= run[-1].stop:
            yield run
            run = []
        run.append(token)
    if run:
        yield run


def _shortened(text: str) -> str:
    """A term for a text that is too long: its beginning and its hash, together TERM_CHARS_MAX code points."""
    digest = blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{text[:_TERM_CHARS_KEPT]}{digest}"


def _needs_form(word: str, stem: str) -> bool:
    """Whether the stem does not start with all but the last character of the word."""
    return len(word) < TERM_CHARS_MAX and not stem.startswith(word[:-1])


def _joined(found: list[_Piece]) -> _Piece:
    terms: list[str] = []
    forms: list[str] = []
    for each in found:
        terms += each.terms
        forms += each.forms
    return _Piece(tuple(terms), tuple(forms))


def _punctuation(piece: str) -> list[str]:
    """The terms of a piece without tokens: each character that is neither ASCII punctuation nor invisible."""
    for text in (unicodedata.normalize("NFC", piece), piece):
        found = [
            char for char in dict.fromkeys(text) if char in _ASCII_SYMBOLS or not (char.isascii() or is_invisible(char))
        ]
        if found:
            return found
    return []


def _places(piece: str) -> Sequence[tuple[int, int]]:
    """For each code point of the folded piece, the start and stop of its source character in the piece."""
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
    return [(0, len(piece))] * len(whole)  # an ill-formed sequence, whose parts fold differently
