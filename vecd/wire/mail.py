"""Mail, sans I/O: the messages of an mbox, and a message (RFC 5322, MIME) to a document.

The document has the Message-ID as its id, the subject as its title, and the text of the body; `from`, `to` and `date`
(RFC 3339, UTC) are its metadata. Mail is written by every program there is: what a header or a part says wrongly is
read as well as possible, and only a message without a subject and a text is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from .html_text import text_of

#: What is read of a message: its text comes first, and what is behind this are attachments.
_MESSAGE_BYTES: Final = limits.LINE_BYTES_MAX
_ADDRESSES_CHARS: Final = 4 * limits.KIB

_FROM: Final = re.compile(rb"From .*\d\d?:\d\d.*\d{4}")
_QUOTED_FROM: Final = re.compile(rb">+From ")
_IN_BRACKETS: Final = re.compile(r"<\s*([^<>]+?)\s*>")
#: Texts for programs.
_NO_TEXTS: Final = frozenset(("text/calendar", "text/css", "text/directory", "text/rtf", "text/vcard", "text/x-vcard"))


def messages(name: str, pieces: Iterator[bytes | None]) -> Iterator[tuple[int, bytes] | None]:
    """The messages of an mbox, each with the number of its first line (from 1), and without what marks it there.

    A line that begins with `From `, and has a time and a year, begins a message if it is the first or follows an empty
    one. A piece of None is passed on. Raises VecError `invalid_document` if the input does not begin with a message.
    """
    number, began, size = 0, 0, 0
    held: list[bytes] = []
    empty = True  # the line before
    for line in _lines(pieces):
        if line is None:
            yield None
            continue
        number += line.endswith(b"\n")
        if empty and line.startswith(b"From ") and _FROM.match(line):
            if began:
                yield began, b"".join(held)
            began, size = number, 0
            held.clear()
            empty = False
            continue
        empty = line in (b"\n", b"\r\n")
        if not began:
            if empty:
                continue
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"{name} is no mbox: it does not begin with a line such as 'From ann@example.com Thu Nov 26 2026'",
                "--format eml reads a single message",
                file=name,
            )
        size += len(line)
        if size <= _MESSAGE_BYTES:
            held.append(line[1:] if _QUOTED_FROM.match(line) else line)
    if began:
        yield began, b"".join(held)


def _lines(pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """Lines with their ends. One that is longer than a message comes in parts."""
    rest = b""
    for piece in pieces:
        if piece is None:
            yield None
            continue
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line + b"\n"
        if len(rest) > limits.MIB:
            yield rest
            rest = b""
    if rest:
        yield rest


def document_of(message: bytes) -> dict[str, Any]:
    """A message as an ingest record: `id`, `title`, `text` and `metadata`, as far as they are there.

    Raises VecError `invalid_document` for a message without a subject and a text.
    """
    try:
        document = _document(message_from_bytes(message[:_MESSAGE_BYTES]))
    except (MessageError, ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise VecError(Code.INVALID_DOCUMENT, f"the message cannot be parsed: {error!r:.200}") from error
    if not document.keys() & {"title", "text"}:
        raise VecError(Code.INVALID_DOCUMENT, "the message has no subject and no text", "is it mail?")
    return document


def _document(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = {}
    given = _header(message, "message-id")
    found = _IN_BRACKETS.search(given)
    message_id = found[1] if found is not None else given
    if message_id and len(message_id.encode()) <= limits.ID_BYTES_MAX:
        document["id"] = message_id
    if subject := _header(message, "subject"):
        document["title"] = subject.encode()[: limits.TITLE_BYTES_MAX].decode(errors="ignore")
    if text := _text(message).strip():
        document["text"] = text
    metadata = {name: _header(message, name)[:_ADDRESSES_CHARS] for name in ("from", "to")}
    metadata["date"] = _date(_header(message, "date"))
    if metadata := {name: value for name, value in metadata.items() if value}:
        document["metadata"] = metadata
    return document


# --- headers --------------------------------------------------------------------------------------------------------


def _header(message: Message, name: str) -> str:
    """The header as a line of text; several of one name are joined. Empty if there is none."""
    values = [str(value) for key, value in message.raw_items() if key.lower() == name]
    return ", ".join(filter(None, (" ".join(_decoded(value).split()) for value in values)))


def _decoded(value: str) -> str:
    """The value with its encoded words (RFC 2047) decoded. Bytes that are not ASCII are UTF-8, or else Latin-1."""
    if not value.isascii():
        value = _text_of(value.encode("utf-8", "surrogateescape"))
    if "=?" not in value:
        return value.replace("\0", "")
    try:
        parts = decode_header(value)
    except (MessageError, ValueError):
        return value.replace("\0", "")
    texts = [part if isinstance(part, str) else _text_of(part, charset) for part, charset in parts]
    return ("".join(texts).strip() or value).replace("\0", "")


def _date(value: str) -> str:
    """RFC 3339 in UTC; empty if it is no date."""
    try:
        date = parsedate_to_datetime(value)
        date = date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""
    return date.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _text_of(data: bytes, charset: str | None = None) -> str:
    if charset is not None and charset.lower() not in ("us-ascii", "ascii", "unknown-8bit"):
        try:
            return data.decode(charset, "replace")
        except (LookupError, ValueError):
            pass  # a charset that nobody knows
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


# --- the body -------------------------------------------------------------------------------------------------------


def _text(part: Message) -> str:
    """The text of a part and those within it. Of alternatives, plain text is taken before HTML."""
    if part.get_content_disposition() == "attachment":
        return ""
    within = part.get_payload()
    if isinstance(within, list):
        parts = [each for each in within if isinstance(each, Message)]
        if part.get_content_subtype() == "alternative":
            parts.sort(key=lambda each: each.get_content_type() != "text/plain")
            return next((text for each in parts if (text := _text(each))), "")
        return "\n\n".join(text for each in parts if (text := _text(each)))
    kind = part.get_content_type()
    # A part of several that is not divided has no boundary, and is text.
    if part.get_content_maintype() not in ("text", "multipart") or kind in _NO_TEXTS:
        return ""
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes):
        return ""
    text = _text_of(data, part.get_content_charset())
    if kind == "text/html":
        return text_of(text)
    return text.replace("\r\n", "\n").replace("\0", "").strip()
