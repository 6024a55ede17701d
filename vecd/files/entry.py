"""A file that was found, and the reasons for which one is skipped."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from ..durable_files import printable_path


class SkipReason(StrEnum):
    """Why a file or a folder was not read. The values are words for a summary: "12 binary, 3 hidden"."""

    IGNORED = "ignored"  # by .gitignore, .vecignore or an option; a folder counts once
    HIDDEN = "hidden"  # its name begins with a dot; a folder counts once
    LINK = "symbolic link"  # links are not followed unless an option says so
    LOOP = "link loop"  # a link to a folder that it is in
    SPECIAL = "not a file"  # a pipe, a socket or a device
    TOO_LARGE = "too large"
    BAD_NAME = "name too long"  # its id would be too long
    UNREADABLE = "unreadable"  # no permission, or a failing disk; also folders
    GONE = "gone"  # deleted between the listing and the reading
    BINARY = "binary"
    RECORDS = "table or NDJSON"  # its records are documents, not the file: an ingest of the file itself reads them
    EMPTY = "empty"
    NO_TEXT = "no text in it"  # a scanned PDF, a page of markup only
    DAMAGED = "damaged"  # not what its suffix says, or encrypted
    EXTRA = "extra missing"  # needs a package that is not installed; the message says which


class FileSkipped(Exception):
    """A file has no documents: `reason`, and what happened and what to do in words."""

    def __init__(self, reason: SkipReason, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint


class FileEntry(NamedTuple):
    """A file, as the listing found it. Names that are not UTF-8 have surrogates, as Python's `os` has them.

    An entry with `skipped` set is not to be read. Nothing is known of what is below a folder that is `unreadable`: its
    files may all be there.
    """

    path: str  # to open it: the root's path, and the relative one
    relative: str  # to the root; its name, if the root is the file
    id: str  # of its document
    size: int = 0  # bytes
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    device: int = 0
    directory: bool = False  # only with `skipped`
    skipped: SkipReason | None = None
    errno: int = 0  # of what could not be read


def id_of(path: str) -> str:
    r"""The id of a path's document: the path, in which bytes that are not UTF-8 and control characters are written as
    \xHH, and a backslash as two; so different paths have different ids."""
    if path.isascii() and path.isprintable() and "\\" not in path:
        return path
    path = path.replace("\\", "\\\\")
    text = printable_path(path)
    return "".join(each if each >= " " and each != "\x7f" else f"\\x{ord(each):02x}" for each in text)
