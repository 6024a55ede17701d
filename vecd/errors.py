"""The error class of the whole program, shared by the daemon, the client and the command line, and its stable codes.

Rules: every error that reaches a person is a VecError. Its code is stable: scripts match on it, the command line maps
it to an exit status, and it determines whether the request may be retried. Its message says what happened and where,
its hint what to do. Foreign exceptions are translated once, where they arise, with `raise … from`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from . import limits


class Code:
    """The stable error codes. New ones may be added; renaming one breaks scripts."""

    INVALID_REQUEST: Final = "invalid_request"  # a request's field is missing, mistyped or out of bounds
    INVALID_DOCUMENT: Final = "invalid_document"  # one document of a batch is refused; the others are accepted
    INVALID_FILTER: Final = "invalid_filter"  # a --where with a syntax error, or that compares values of two types
    DIMENSION_MISMATCH: Final = "dimension_mismatch"  # a vector's length is not the library's
    NOT_FOUND: Final = "not_found"  # no such library or document
    EXISTS: Final = "exists"  # a library or schedule of that name already exists
    INVALID_CURSOR: Final = "invalid_cursor"  # not a position in the log
    FOREIGN_CURSOR: Final = "foreign_cursor"  # a cursor of another log, or past this log's head
    COMPACTED: Final = "compacted"  # a position in the trimmed part of the log; `oldest` is the first valid one
    CONSUMER_HELD: Final = "consumer_held"  # another watch uses the consumer; try again later
    TOO_LARGE: Final = "too_large"  # an item of an answer exceeds a frame; a request needs too much memory
    PROTOCOL_ERROR: Final = "protocol_error"  # the bytes are not a message; the connection ends
    FRAME_TOO_LARGE: Final = "frame_too_large"  # a frame over the limit; the connection ends
    UNSUPPORTED: Final = "unsupported"  # an op, an index kind or an embedder that this version lacks
    VERSION_MISMATCH: Final = "version_mismatch"  # client and daemon speak different protocol versions
    FORBIDDEN: Final = "forbidden"  # a peer of another user, or a key that does not allow the request
    UNAUTHORIZED: Final = "unauthorized"  # over HTTP: no key, or one that is unknown, revoked or expired
    STALLED: Final = "stalled"  # a peer that does not answer, read, or finish its frame; the connection ends
    BUSY: Final = "busy"  # a limit of the whole daemon is reached; try again later
    SHUTTING_DOWN: Final = "shutting_down"  # the daemon is stopping; try again later
    STORAGE_FAILED: Final = "storage_failed"  # the disk failed; the request may or may not have taken effect
    DISK_FULL: Final = "disk_full"  # no space left; nothing of the request was written
    INDEX_FAILED: Final = "index_failed"  # a library's index could not be loaded
    EMBEDDER_FAILED: Final = "embedder_failed"  # text could not be turned into vectors
    CANCELLED: Final = "cancelled"  # by a request, or because a job that it waited for did not complete
    CRASHED: Final = "crashed"  # the daemon, or the worker of a job, died while the job ran
    LEASE_LOST: Final = "lease_lost"  # the job, or the connector, is no longer the worker's
    DAMAGED: Final = "damaged"  # stored data fails a checksum or consistency check
    INTERNAL: Final = "internal"  # a bug; the daemon's log has the traceback
    NO_DAEMON: Final = "no_daemon"  # no process listens on the socket
    DAEMON_FAILED: Final = "daemon_failed"  # a daemon was started, but did not become ready
    CONNECTION_LOST: Final = "connection_lost"  # the outcome of unanswered requests is unknown; resending is safe
    TIMEOUT: Final = "timeout"  # the caller's timeout expired
    HANDLER_FAILED: Final = "handler_failed"  # a command that handles events failed; they are delivered again
    REFUSED: Final = "system_refused"  # the operating system refused a file, a folder, a limit
    SETTINGS: Final = "invalid_settings"  # the configuration file or an environment variable


#: Codes that mean that the connection has ended, and that a new one can continue. The outcome of unanswered requests is
#: unknown; resending them is safe.
DISCONNECTED: Final = frozenset((Code.CONNECTION_LOST, Code.SHUTTING_DOWN, Code.STALLED))

#: Codes whose cause is temporary, or can be removed: the same request may succeed later.
RETRYABLE: Final = DISCONNECTED | {
    Code.BUSY,
    Code.CONSUMER_HELD,
    Code.DISK_FULL,
    Code.EMBEDDER_FAILED,
    Code.INDEX_FAILED,
    Code.NO_DAEMON,
}


#: Items of a list or map in an error's details that are sent.
_ITEMS_MAX: Final = 100
#: Characters of a word for which `nearest` searches: longer words are not typing errors.
_NEAREST_CHARS_MAX: Final = 64
#: Approximate number of pairs of characters that `nearest` compares: a few hundredths of a second.
_NEAREST_STEPS_MAX: Final = 200_000
#: How similar (0 to 1, by difflib) a known word must be.
_NEAREST_RATIO: Final = 0.6


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

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in RETRYABLE

    @property
    def disconnected(self) -> bool:
        """Whether the connection has ended and a new one can continue."""
        return self.code in DISCONNECTED

    def to_wire(self, chars_max: int = limits.ERROR_CHARS_MAX) -> dict[str, Any]:
        """The map of an error reply: `code`, `message`, and `hint` and the details if there are any.

        It can always be encoded, and its size is bounded: an error quotes its input, which may be megabytes, or not be
        text. Strings are truncated to `chars_max` characters.
        """
        wire: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            wire["hint"] = self.hint
        wire.update(self.details)
        return {key: _bounded(value, chars_max) for key, value in wire.items()}

    @classmethod
    def from_wire(cls, wire: Any) -> VecError:
        """Builds an error from a reply; tolerates unknown content, because the daemon may be newer."""
        if not isinstance(wire, Mapping):
            return cls(Code.PROTOCOL_ERROR, f"the daemon sent an error that is not a map: {wire!r:.80}")
        details = {str(k): v for k, v in wire.items() if k not in ("code", "message", "hint")}
        hint = wire.get("hint")
        return cls(
            str(wire.get("code", Code.INTERNAL)), str(wire.get("message", "")), str(hint) if hint else None, **details
        )


def _bounded(value: Any, chars_max: int) -> Any:
    """The value in a form that can be encoded: strings are truncated, and types that msgpack lacks become strings."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    if isinstance(value, Mapping):
        return {_cut(str(key), chars_max): _bounded(each, chars_max) for key, each in list(value.items())[:_ITEMS_MAX]}
    if isinstance(value, (list, tuple)):
        return [_bounded(each, chars_max) for each in value[:_ITEMS_MAX]]
    return _cut(str(value), chars_max)


def _cut(text: str, chars_max: int) -> str:
    shown = text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"
    return shown if shown.isascii() else shown.encode("utf-8", "replace").decode()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar to `word`, or None.

    The comparison is quadratic in the lengths and linear in the number of known words, and all of these may come from
    a peer. So long words get None, and the search ends after a bounded number of steps with the best word found.
    """
    import difflib

    length = len(word)
    if not 0 < length <= _NEAREST_CHARS_MAX:
        return None
    left, close = _NEAREST_STEPS_MAX, []
    for each in known:
        if 2 * min(length, len(each)) < _NEAREST_RATIO * (length + len(each)):
            continue  # the lengths differ too much
        close.append(each)
        left -= length * len(each)
        if left < 0:
            break
    found = difflib.get_close_matches(word, close, n=1, cutoff=_NEAREST_RATIO)
    return found[0] if found else None
