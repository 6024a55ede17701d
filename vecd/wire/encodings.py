"""Text in UTF-16 with a byte order mark, as Excel's "Unicode text" and PowerShell's `>` write it, becomes UTF-8; other
text passes unchanged. And what to say of text that is neither.

Sans I/O. A piece of None means that no input has arrived for a while; it is passed on.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterator
from itertools import chain
from typing import Final

from ..errors import Code, VecError

_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

#: What begins with an ASCII character in UTF-16.
_UNMARKED: Final = re.compile(rb"([\x20-\x7e]\0)|\0[\x20-\x7e]")


def utf8(name: str, form: str, pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """The pieces of a text in UTF-8. `name` and `form` are the input's name and format, in messages. Raises VecError
    `invalid_document` for damaged UTF-16, or UTF-16 without a mark."""
    first = b""
    for piece in pieces:
        if not piece:
            yield piece
            continue
        first += piece
        if len(first) > 1:
            break
    if (unmarked := _UNMARKED.match(first)) is not None:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name} looks like UTF-16 without a byte order mark",
            _convert(name, form, "UTF-16LE" if unmarked[1] else "UTF-16BE"),
            file=name,
        )
    pieces = chain((first,), pieces) if first else pieces
    yield from _from_utf16(name, pieces) if first.startswith(_MARKS) else pieces


def _from_utf16(name: str, pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    try:
        for piece in pieces:
            yield None if piece is None else decoder.decode(piece).encode()
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{name} begins as UTF-16, but is damaged ({error.reason})",
            "check that the file is complete, or save it again as UTF-8",
            file=name,
        ) from None


def not_utf8(name: str, form: str, text: bytes, at: int) -> VecError:
    """The error for a part of a text whose byte `at` cannot be decoded."""
    return VecError(
        Code.INVALID_DOCUMENT,
        f"{name} is not UTF-8 (byte 0x{text[at]:02x})",
        _convert(name, form, _guessed(text)),
        file=name,
    )


def _convert(name: str, form: str, encoding: str | None) -> str:
    why = f"it could be {encoding}" if encoding else "convert it from the encoding that it was written in"
    source = "FILE" if name == "stdin" else name
    return f"{why}: iconv -f {encoding or 'ENCODING'} -t UTF-8 {source} | vec ingest --format {form}"


def _guessed(text: bytes) -> str | None:
    """The encoding that a text may have: Windows-1252, if it has single letters and marks among ASCII; None if it
    looks like no language of western Europe."""
    try:
        decoded = text.decode("cp1252")
    except UnicodeDecodeError:
        return None
    if _OTHER_SCRIPT.search(decoded):
        return None
    others = [character for character in decoded if not character.isascii()]
    letters = sum(unicodedata.category(character)[0] == "L" or character in _PUNCTUATION for character in others)
    if len(others) > len(decoded) / 4 or letters < 0.8 * len(others):
        return None
    return "Windows-1252"


#: More of these characters than a word of western Europe has one behind the other.
_OTHER_SCRIPT: Final = re.compile(r"[^\x00-\x7f]{4}")
_PUNCTUATION: Final = frozenset("‘’“”„‚–—…«»€£°§·\u00a0")
