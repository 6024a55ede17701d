"""Unicode folding for search: texts that differ only in case, diacritics or encoding become equal.

`fold` is NFKC, case folding and the removal of diacritics, character by character after NFC, with these decisions:

- Diacritics of Latin and Greek letters, Hebrew points and Arabic vowel marks are removed. Hamza is removed from its
  carrier, tatweel is removed, and alef wasla, alef maksura and the Persian yeh and kaf become the Arabic letters.
- A Latin letter with a stroke or a hook becomes its base letter (ł, ø, đ); ß is ss, æ is ae, œ is oe, þ is th, ð is d,
  the dotless ı is i. German ü is u, not ue.
- Cyrillic stress marks are removed, and ё is е; й, ї and ў are separate letters and are kept.
- Vowel signs, viramas and tone marks of Indic and South-East Asian scripts and the voicing marks of kana are part of
  their word and are kept. Only the Devanagari nukta and Vedic accents are removed.
- Decimal digits of all scripts become ASCII digits.
- A symbol is kept where NFKC would make it a space, ASCII punctuation or a superscript (´, ＄, ™), so that it can be
  searched. The full-width plus is the exception: Ｃ＋＋ is C++. A symbol made of letters is a separate word (㎏ is kg,
  ₨ is rs), but a letter in a circle is a letter.
- Control characters and separators become spaces; format characters and variation selectors are removed. A zero width
  joiner is kept between emoji only. A lone surrogate becomes U+FFFD, so every folded text can be encoded.

`shape` maps a folded text to a string of equal length with the class of each character; vecd/text/tokenizing.py matches
patterns against it. Categories and case folding come from apsw.unicode, whose Unicode version is newer than that of
Python's own tables; NFC and NFKC are Python's. Both tables are filled lazily and shared by all threads: a race computes
an entry twice and stores equal values.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

import apsw.unicode as unicode

#: Entries of each table: about 10 MB. All scripts in use except Han and Hangul have 20,000 characters together.
_TABLE_CODES_MAX: Final = 65_536
_ZWJ: Final = "\u200d"
_KEYCAP: Final = "\u20e3"

#: Characters whose folding does not follow from their Unicode properties.
_EXPLICIT: Final = {
    **dict.fromkeys("’‘ʼʻ＇׳ꞌ", "'"),
    **dict.fromkeys("‐‑", "-"),
    **dict.fromkeys("·‧", "."),
    **dict.fromkeys("ıɪ", "i"),
    **dict.fromkeys("ёЁѐЀ", "е"),
    **dict.fromkeys("ѝЍ", "и"),
    "ȷ": "j",
    **dict.fromkeys("æÆǽǼǣǢ", "ae"),
    **dict.fromkeys("œŒ", "oe"),
    **dict.fromkeys("þÞ", "th"),
    **dict.fromkeys("ðÐ", "d"),
    "ٱ": "ا",
    **dict.fromkeys("ىی", "ي"),
    "ک": "ك",
    "ـ": "",
    _ZWJ: _ZWJ,
    "\u200b": " ",
}

#: Marks that are diacritics (inclusive ranges); all other marks are part of their word.
_DIACRITICS: Final = (
    (0x0300, 0x036F), (0x0483, 0x0489), (0x0591, 0x05C7), (0x0610, 0x061A), (0x064B, 0x065F), (0x0670, 0x0670),
    (0x06D6, 0x06ED), (0x0711, 0x0711), (0x0730, 0x074A), (0x07EB, 0x07F3), (0x0816, 0x082D), (0x0898, 0x089F),
    (0x08CA, 0x08FF), (0x093C, 0x093C), (0x0951, 0x0954), (0x1AB0, 0x1AFF), (0x1CD0, 0x1CFF), (0x1DC0, 0x1DFF),
    (0x20D0, 0x20E2), (0x20E4, 0x20FF), (0xA66F, 0xA67D), (0xA8E0, 0xA8F1), (0xFB1E, 0xFB1E), (0xFE20, 0xFE2F),
)  # fmt: skip
_VARIATION_SELECTORS: Final = ((0x180B, 0x180D), (0x180F, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_CYRILLIC: Final = ((0x0400, 0x052F), (0x1C80, 0x1C8F), (0xA640, 0xA69F))
#: Stems and flags of musical notes: NFC decomposes notes.
_NOTE_STEMS: Final = ((0x1D165, 0x1D172),)
_TAGS: Final = ((0xE0020, 0xE007F),)

#: Scripts that are written without spaces, or whose words have endings that no stemmer here handles (Hangul).
_UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F),  # Burmese and its neighbours
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF), (0x1A20, 0x1AAD), (0xAA80, 0xAADF), (0x1B00, 0x1B7F), (0xA980, 0xA9DF),  # Tai, Balinese, Javanese
    (0x1100, 0x11FF), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0x3130, 0x318F),  # Hangul
    (0x3005, 0x3007), (0x3021, 0x3029), (0x3031, 0x3035), (0x303B, 0x303C), (0x3041, 0x30FF), (0x31F0, 0x31FF),  # kana
    (0x1AFF0, 0x1B2FF),  # kana, Nushu
    (0x3105, 0x312F), (0x31A0, 0x31BF),  # Bopomofo
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF),  # Han
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
)  # fmt: skip

_BASE_LETTER: Final = re.compile(r"LATIN SMALL LETTER ([A-Z]) WITH ")
#: Joiners that do not join emoji, and keycap marks without a base character.
_STRAY: Final = re.compile(r"(?<![EBG])Z|Z(?![ES])|(?<![0-9#*])K")


def fold(text: str) -> str:
    """Folds a text; its length may change. NFC and NFD of a text fold to the same."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(_FOLDED))
    if _ZWJ in folded or _KEYCAP in folded:
        stray = {found.start() for found in _STRAY.finditer(shape(folded))}
        folded = "".join(each for place, each in enumerate(folded) if place not in stray)
    return folded


def shape(folded: str) -> str:
    """The class of each character of a folded text, as a string of the same length.

    ASCII characters are their own class. The others: `a` letter or mark of a word, `0` digit, `C` letter of a script
    without spaces, `M` mark after a `C` or after a musical note, `E` pictograph, `B` skin tone, `R` half of a flag, `Z`
    zero width joiner, `G` tag of an emoji, `K` keycap, `S` any other symbol, `P` punctuation, a space for a separator.
    """
    return folded if folded.isascii() else folded.translate(_SHAPES)


def is_invisible(char: str) -> bool:
    """Whether a character is not searchable: white space, control, format, variation selector."""
    return unicode.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp") or _within(ord(char), _VARIATION_SELECTORS)


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)


def _folded(char: str) -> str:
    code, category = ord(char), unicode.category(char)
    if " " <= char < "\x7f":
        return char.lower()
    if char in _EXPLICIT:
        return _EXPLICIT[char]
    if category == "Cs":
        return "\ufffd"
    if category == "Cc" or category[0] == "Z":
        return " "
    if _within(code, _TAGS) or category in ("Cn", "Co") or char == _KEYCAP:
        return char
    if category == "Cf" or _within(code, _VARIATION_SELECTORS) or _is_diacritic(char):
        return ""
    if category[0] == "S" or _is_fraction(char):
        return _folded_symbol(char)
    if category == "Nd":
        value = unicodedata.decimal(char, None)
        return char if value is None else str(value)
    if category[0] == "P" and unicode.is_extended_pictographic(char):
        return char
    if _within(code, _CYRILLIC):
        return unicode.casefold(unicodedata.normalize("NFKC", char))
    return _folded_letter(char)


def _folded_letter(char: str) -> str:
    bare = _without_diacritics(unicode.casefold(_without_diacritics(char)))
    return unicodedata.normalize("NFC", "".join(_EXPLICIT.get(each) or _base_letter(each) for each in bare))


def _folded_symbol(char: str) -> str:
    plain = unicodedata.normalize("NFKC", char)
    if unicodedata.decomposition(char).startswith(("<super>", "<sub>", "<fraction>")) or plain == char:
        return char
    if any(each.isalnum() for each in plain):
        letters = "".join(map(_folded_letter, plain))
        return letters if plain.isalpha() and len(plain) == 1 else f" {letters} "
    if plain == "+" and char != "﬩":  # the Hebrew plus is no variant of width
        return plain
    searchable = not any(each.isascii() or unicode.category(each)[0] in "MZ" for each in plain)
    return plain if searchable else char


def _without_diacritics(text: str) -> str:
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not _is_diacritic(each))


def _is_diacritic(char: str) -> bool:
    return _within(ord(char), _DIACRITICS) and unicode.category(char)[0] == "M"


def _is_fraction(char: str) -> bool:
    return unicodedata.decomposition(char).startswith("<fraction>")


def _base_letter(char: str) -> str:
    if char.isascii():
        return char
    found = _BASE_LETTER.match(unicode.codepoint_name(char) or "")
    return found[1].lower() if found else char


def _shape(char: str) -> str:
    code, category = ord(char), unicode.category(char)
    if char.isascii():
        return char
    if char in (_ZWJ, _KEYCAP):
        return "Z" if char == _ZWJ else "K"
    if _within(code, _TAGS):
        return "G"
    if unicode.is_regional_indicator(char):
        return "R"
    if 0x1F3FB <= code <= 0x1F3FF:
        return "B"
    if unicode.is_extended_pictographic(char):
        return "E"
    if category[0] == "S" or category in ("Cn", "Co") or _is_fraction(char):
        return "S"
    if _within(code, _NOTE_STEMS):
        return "M"
    if category[0] in "LMN" and _within(code, _UNSPACED):
        return "M" if category[0] == "M" else "C"
    if category[0] in "LM":
        return "a"
    if category[0] == "N":
        return "0"
    return "P" if category[0] == "P" else " "


class _Table(dict[int, str]):
    """Code point -> string, for str.translate; filled lazily, and cleared when it is full."""

    def __init__(self, make: Callable[[str], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, code: int) -> str:
        if len(self) >= _TABLE_CODES_MAX:
            self.clear()
        made = self[code] = self._make(chr(code))
        return made


_FOLDED: Final = _Table(_folded)
_SHAPES: Final = _Table(_shape)
