"""Bytes of a text file to text: UTF-8, UTF-16 and UTF-32 with a byte order mark, else Latin-1 or what the file says."""

from __future__ import annotations

import codecs
from typing import Final

from ..entry import FileSkipped, SkipReason

#: Longest first: the mark of UTF-32 begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip

#: Bytes that are looked at to tell text from other data, as git does it.
_LOOKED_AT: Final = 8_192

#: Control characters that text has.
_USUAL: Final = frozenset(b"\t\n\r\f\b\x1b\v")
_STRANGE: Final = bytes(each for each in range(32) if each not in _USUAL)


def text_of(content: bytes, declared: str | None = None) -> str:
    """The text, with `\\n` between lines. `declared` is the encoding that the file itself names, for text that is not
    UTF-8. Raises FileSkipped if it is no text."""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None and is_binary(content):
        raise FileSkipped(SkipReason.BINARY, "it is not text")
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise FileSkipped(SkipReason.DAMAGED, f"it begins as {encoding}, and is not valid {encoding}") from None
        text = _other(content, declared)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")


def is_binary(content: bytes) -> bool:
    """Whether this is no text: a NUL, or many control characters, near its beginning."""
    first = content[:_LOOKED_AT]
    if b"\0" in first:
        return True
    strange = len(first) - len(first.translate(None, _STRANGE))
    return strange * 50 > len(first)


def _other(content: bytes, declared: str | None) -> str:
    """Text in an 8-bit encoding. What is not declared is read as Windows-1252, as browsers do: it extends Latin-1."""
    for encoding in (declared, "cp1252"):
        if encoding is not None:
            try:
                return content.decode(encoding)
            except (LookupError, UnicodeDecodeError, ValueError):
                pass
    return content.decode("latin-1")
