"""The first request of a connection and the check of its answer, and the error of a connection that has ended: what the
blocking and the asynchronous client share. No I/O, except for a look at the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..data_lock import folder_id
from ..durable_files import printable_path
from ..errors import Code, VecError
from ..wire.messages import check_protocol, encode, hello

#: The frame of the hello, which is always request 0.
HELLO: Final = encode(hello(f"vec {__version__}"))


def check_answer(answer: dict[str, Any], data: Path | None) -> None:
    """Raises VecError `version_mismatch`; or `invalid_settings` if the daemon that said hello serves another folder
    than `data` (None: any)."""
    check_protocol(answer.get("protocol"), who="daemon")
    served, name = answer.get("data"), answer.get("data_id")
    if data is None or not isinstance(served, str):
        return  # a daemon of an older version
    try:
        ours = folder_id(data)
    except OSError:
        ours = None
    if ours != name and served != printable_path(data):
        raise VecError(
            Code.SETTINGS,
            f"the daemon on this home's socket serves the data in {served}, but this home's data is in {data}",
            "use one socket per home: set VEC_HOME or XDG_RUNTIME_DIR for each, or set VEC_SOCKET",
        )


def lost_error(cause: Exception | None) -> VecError:
    """The error of a connection that ended without a reason from the daemon."""
    error = VecError(
        Code.CONNECTION_LOST,
        "the connection to the daemon was lost" + (f" ({cause})" if cause else ""),
        "the outcome of unanswered requests is unknown; it is safe to send them again",
    )
    error.__cause__ = cause
    return error
