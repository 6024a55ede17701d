"""The one error root of the program, shared by the daemon, the client and the command line.

Rules: every error that reaches a person is a VecError; its code is stable (scripts match on it, the command line
turns it into an exit status); its message says what happened and where, its hint what to do. Foreign exceptions are
translated once, at the boundary where they arise, with `raise … from`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


class Code:
    """The stable codes. Adding one is fine; renaming one breaks somebody's script."""

    INVALID_REQUEST: Final = "invalid_request"  # a request's field is missing, mistyped or out of bounds
    INVALID_DOCUMENT: Final = "invalid_document"  # one document of a batch is refused; the others are not
    INVALID_FILTER: Final = "invalid_filter"  # a --where that cannot be read, or that compares what cannot be compared
    DIMENSION_MISMATCH: Final = "dimension_mismatch"  # a vector's length is not the library's
    NOT_FOUND: Final = "not_found"  # no such library or document
    EXISTS: Final = "exists"  # a library of that name is there already
    INVALID_CURSOR: Final = "invalid_cursor"  # a position in the log that cannot be read as one
    FOREIGN_CURSOR: Final = "foreign_cursor"  # a cursor of another log, or past this log's head
    COMPACTED: Final = "compacted"  # a position that was trimmed away; `oldest` is the first there is
    CONSUMER_HELD: Final = "consumer_held"  # another watcher has the consumer; try again later
    TOO_LARGE: Final = "too_large"  # an item of an answer that fits no frame
    PROTOCOL_ERROR: Final = "protocol_error"  # bytes that are no message; the connection ends
    FRAME_TOO_LARGE: Final = "frame_too_large"  # a frame over the limit; the connection ends
    UNSUPPORTED: Final = "unsupported"  # an op, an index kind or an embedder that this version lacks
    VERSION_MISMATCH: Final = "version_mismatch"  # client and daemon speak different protocol versions
    FORBIDDEN: Final = "forbidden"  # a peer of another user
    STALLED: Final = "stalled"  # a peer that neither reads nor finishes its frame; the connection ends
    BUSY: Final = "busy"  # a limit of the whole daemon is reached; try again later
    SHUTTING_DOWN: Final = "shutting_down"  # the daemon is stopping; try again later
    STORAGE_FAILED: Final = "storage_failed"  # the disk failed; nothing of the request is promised
    DISK_FULL: Final = "disk_full"  # no space left; nothing of the request was written
    INDEX_FAILED: Final = "index_failed"  # a library's index could not be loaded
    EMBEDDER_FAILED: Final = "embedder_failed"  # text could not be turned into vectors
    CANCELLED: Final = "cancelled"  # somebody said so, or what it hung on did not come about
    CRASHED: Final = "crashed"  # the daemon died while a job ran
    DAMAGED: Final = "damaged"  # what is stored does not agree with itself
    INTERNAL: Final = "internal"  # a bug; the daemon's log has the traceback
    NO_DAEMON: Final = "no_daemon"  # nobody listens on the socket
    DAEMON_FAILED: Final = "daemon_failed"  # a daemon was started and did not come up
    CONNECTION_LOST: Final = "connection_lost"  # the outcome of what was unanswered is unknown; sending again is safe
    TIMEOUT: Final = "timeout"  # the caller's own time ran out
    HANDLER_FAILED: Final = "handler_failed"  # a command that was to handle events; they come again
    REFUSED: Final = "system_refused"  # the operating system refused something: a file, a folder, a limit
    SETTINGS: Final = "invalid_settings"  # the configuration file or an environment variable


class VecError(Exception):
    """What went wrong (`message`), where (`details`: line, field, file …), what to do (`hint`), and a stable `code`."""

    def __init__(self, code: str, message: str, hint: str | None = None, /, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message

    def to_wire(self) -> dict[str, Any]:
        """The map that travels in an error reply: `code`, `message`, and `hint` and the details where there are any."""
        wire: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            wire["hint"] = self.hint
        wire.update(self.details)
        return wire

    @classmethod
    def from_wire(cls, wire: Any) -> VecError:
        """Rebuilds an error from a reply; tolerant, because the other side may be newer."""
        if not isinstance(wire, Mapping):
            return cls(Code.PROTOCOL_ERROR, f"the daemon sent an error that is no map: {wire!r:.80}")
        details = {str(k): v for k, v in wire.items() if k not in ("code", "message", "hint")}
        hint = wire.get("hint")
        return cls(
            str(wire.get("code", Code.INTERNAL)), str(wire.get("message", "")), str(hint) if hint else None, **details
        )


def nearest(word: str, known: Mapping[str, Any] | frozenset[str] | list[str] | tuple[str, ...]) -> str | None:
    """The known word that `word` was probably meant to be, or None."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None
