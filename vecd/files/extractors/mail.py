"""E-mail: a message, or the messages of an mbox, each a document (vecd/wire/mail.py reads them)."""

from __future__ import annotations

from typing import Any

from ...errors import VecError
from ...wire.mail import document_of, messages
from ..entry import FileSkipped, SkipReason
from . import Extracted, suffix_of


def extract(content: bytes, name: str) -> list[Extracted]:
    if suffix_of(name) == ".mbox":
        try:
            found = [
                (number, message) for each in messages(name, iter((content,))) if each for number, message in (each,)
            ]
        except VecError as error:
            raise FileSkipped(SkipReason.DAMAGED, error.message) from error
        extracted = [_extracted(message, number) for number, message in found]
        documents = [each for each in extracted if each is not None]
    else:
        only = _extracted(content, None)
        documents = [] if only is None else [only]
    if not documents:
        raise FileSkipped(SkipReason.NO_TEXT, "no message in it has a subject or a text")
    return documents


def _extracted(message: bytes, number: int | None) -> Extracted | None:
    """A message; `number` is the line of the mbox where it begins. None if it has nothing to be found by."""
    try:
        document = document_of(message)
    except VecError:
        return None
    title: str | None = document.get("title")
    text: str = document.get("text") or title or ""
    metadata: dict[str, Any] = document.get("metadata", {})
    if (message_id := document.get("id")) is not None:
        metadata["message_id"] = message_id
    lines = None if number is None else [number] * (text.count("\n") + 1)
    return Extracted(text, title, "", lines, number is not None, metadata, None if number is None else message_id)
