"""What to do if the first line of NDJSON, which was rejected, looks like another format."""

from __future__ import annotations

import re
from typing import Final

#: What a first line looks like -> what that is, and a file whose suffix says so.
_FILES: Final = (
    (re.compile(rb"%PDF-"), "PDF", "notes.pdf"),
    (re.compile(rb"PK\x03\x04"), "an Office or a zip file", "notes.docx"),
    (re.compile(rb"\s*<(!doctype html|html|head|body)\b", re.IGNORECASE), "HTML", "notes.html"),
    (re.compile(rb"""\.\\"|'\\"|\.(TH|Dd) """), "a man page", "notes.1"),
    (re.compile(rb"#!"), "a script", "notes.sh"),
    (re.compile(rb"#{1,6} |[-*+] \S|---\s*$|```|> \S"), "Markdown", "notes.md"),
)
#: What a first line looks like -> what that is, and its format.
_FORMATS: Final = (
    (re.compile(rb"From \S+ .*\d:\d\d"), "mail", "mbox"),
    (
        re.compile(rb"(Received|Return-Path|Delivered-To|From|To|Subject|Date|Message-ID|MIME-Version): "),
        "a message",
        "eml",
    ),
)


def format_hint(line: bytes) -> str | None:
    """A hint for people; None if the line looks like nothing that is known. `line` is its beginning."""
    stripped = line.strip()
    if stripped in (b"{", b"["):
        return "for an object over several lines: --format json"
    for pattern, what, name in _FILES:
        if pattern.match(line):
            return f"this looks like {what}: vec ingest {name} works by its suffix"
    for pattern, what, form in _FORMATS:
        if pattern.match(line):
            return f"this looks like {what}: --format {form}"
    if b"{" in stripped:
        return None
    if b"\t" in stripped or (b"," in stripped and b", " not in stripped):
        form = "tsv" if b"\t" in stripped else "csv"
        return f"for a table: --format {form}"
    if stripped.isascii() and len(stripped.split()) > 2:
        return "this looks like plain text: vec ingest notes.txt works by its suffix"
    return None
