"""What exit statuses and error codes mean, and what to do about them: `vec --explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vecd.errors import Code, VecError, nearest

#: Exit status -> what it means.
STATUSES: Final[dict[int, str]] = {
    0: "Success.",
    1: "Failure, for example because the output cannot be written.",
    2: "Usage error: an option, an argument, a setting or a request is invalid.",
    3: "Partial success: some lines or queries were rejected, the others done; or a watch skipped something.",
    4: "Not found.",
    5: "History lost: the cursor belongs to another log, or events after it have been trimmed.",
    69: "No daemon is running, or it cannot start.",
    75: "Temporary failure: try again later.",
    124: "Timed out.",
    130: "Interrupted by Ctrl-C (SIGINT), or a job was cancelled.",
    141: "The reader of standard output closed it, as `vec list | head` does.",
    143: "Terminated by SIGTERM, after the running command finished.",
}

#: Error code -> what has happened, and what to do.
CODES: Final[dict[str, tuple[str, str]]] = {
    Code.INVALID_REQUEST: (
        "An option, an argument or a field of a request is missing, of the wrong type, or out of bounds.",
        "The message names it; `vec help COMMAND` lists what a command takes.",
    ),
    Code.INVALID_DOCUMENT: (
        "A document was refused; the others of its batch were written.",
        "The message names the line and the field. vec-ingest(1) describes documents.",
    ),
    Code.INVALID_FILTER: (
        "A --where cannot be parsed, or compares values of two types.",
        "A caret shows the place. vec-search(1) describes filters.",
    ),
    Code.DIMENSION_MISMATCH: (
        "A vector has another length than the library's.",
        "`vec library show NAME` shows the dimension; use one model for a library.",
    ),
    Code.NOT_FOUND: (
        "No library, document, job, consumer or connector of that name exists.",
        "The command `list` of that kind names those that exist.",
    ),
    Code.EXISTS: ("The name is taken.", "Choose another, or remove the existing one."),
    Code.INVALID_CURSOR: ("The text is not a position in the log.", "Copy a cursor from an event, whole."),
    Code.FOREIGN_CURSOR: (
        "The cursor belongs to another log: the store is a new one, or was restored from an older backup.",
        "Begin again: --from beginning, or --snapshot for the current documents.",
    ),
    Code.COMPACTED: (
        "The events after the position were trimmed.",
        "Begin at the oldest event, or with a snapshot: vec watch --on-gap oldest|snapshot.",
    ),
    Code.CONSUMER_HELD: ("Another watch uses the consumer.", "`vec consumers list` shows who; end it, or try again."),
    Code.TOO_LARGE: ("An item of an answer, or a request, is too large.", "Ask for less at once."),
    Code.PROTOCOL_ERROR: ("The other end does not speak the protocol.", "Check the socket or the URL."),
    Code.FRAME_TOO_LARGE: ("A message exceeds the limit of a frame.", "Send fewer documents at once."),
    Code.UNSUPPORTED: (
        "This version lacks the operation, the kind of index, or the embedder.",
        "Restart the daemon if you have just upgraded; `vec doctor` lists the extras that are installed.",
    ),
    Code.VERSION_MISMATCH: ("Client and daemon speak different protocols.", "vec daemon restart"),
    Code.FORBIDDEN: (
        "The daemon is another user's, or the key does not allow the request.",
        "Set VEC_HOME to a folder of your own; `vec keys list` shows what keys allow.",
    ),
    Code.UNAUTHORIZED: (
        "The gateway wants a key.",
        "Set VEC_KEY_FILE, or use --key-file; `vec keys create` makes one.",
    ),
    Code.STALLED: (
        "The daemon, or a client, did not answer, read or send in time.",
        "`vec daemon logs` may say why; a stopped process continues with kill -CONT.",
    ),
    Code.BUSY: ("A limit of the daemon or of the system is reached.", "Try again later; the message names the limit."),
    Code.SHUTTING_DOWN: ("The daemon is stopping.", "Try again: the next command starts a new one."),
    Code.STORAGE_FAILED: (
        "The disk failed; the request may or may not have taken effect.",
        "Check the disk; then `vec verify`. `vec restore` puts a backup in place of the store.",
    ),
    Code.DISK_FULL: ("No space is left; nothing of the request was written.", "Free some space and try again."),
    Code.INDEX_FAILED: ("The index of a library could not be loaded.", "vec library rebuild NAME"),
    Code.EMBEDDER_FAILED: (
        "Text could not be turned into vectors.",
        "The message says why: a missing extra, a model, or a server that does not answer.",
    ),
    Code.CANCELLED: (
        "It was cancelled by a request, or a job that it waited for did not complete.",
        "vec jobs show ID",
    ),
    Code.CRASHED: ("The daemon, or the worker of a job, died while the job ran.", "vec daemon logs; vec jobs retry ID"),
    Code.LEASE_LOST: ("The job or connector has gone to another worker.", "Nothing: the other worker continues it."),
    Code.DAMAGED: (
        "Stored data fails a checksum.",
        "`vec verify` lists the damage; restore a backup: vec restore FILE",
    ),
    Code.INTERNAL: ("This is a bug in vecd.", "The traceback is in the log: vec daemon logs"),
    Code.NO_DAEMON: (
        "No process listens on the socket.",
        "Start one with `vec daemon start`; `vec doctor` looks further.",
    ),
    Code.DAEMON_FAILED: ("A daemon was started, but did not become ready.", "The message has the end of its log."),
    Code.CONNECTION_LOST: (
        "The connection ended before the answer; the outcome of the request is unknown.",
        "Repeat it: to send the same documents again changes nothing.",
    ),
    Code.TIMEOUT: ("The time that was given for it is over.", "Give more with --timeout."),
    Code.HANDLER_FAILED: (
        "A command that handles events failed.",
        "Its output says why; the events are delivered again.",
    ),
    Code.REFUSED: (
        "The operating system refused a file, a folder or a limit.",
        "The message names it; check owner, mode and free space.",
    ),
    Code.SETTINGS: (
        "The configuration file or an environment variable is invalid.",
        "`vec config` shows all values, and where each comes from.",
    ),
}


def explained(text: str, status_of: Mapping[str, int]) -> str:
    """What an exit status or an error code means; `status_of` has the exit status of each code; 1 for those that it has
    not. Raises VecError `invalid_request` for anything else."""
    if text.isdecimal() and int(text) in STATUSES:
        status = int(text)
        codes = [code for code in CODES if status_of.get(code, 1) == status]
        lines = [f"Exit status {status}: {STATUSES[status]}"]
        return "\n".join([*lines, *(f"  {code:<18} {CODES[code][0]}" for code in codes)])
    if text in CODES:
        what, remedy = CODES[text]
        return f"{text}, exit status {status_of.get(text, 1)}: {what}\n{remedy}"
    close = nearest(text, CODES)
    hint = f"did you mean {close!r}?" if close else f"exit statuses: {', '.join(map(str, STATUSES))}"
    raise VecError(Code.INVALID_REQUEST, f"{text!r:.60} is neither an exit status nor an error code", hint)
