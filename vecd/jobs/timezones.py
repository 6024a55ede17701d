"""Time zones for schedules: by name, and the system's zone as the C library determines it.

The system's zone is that of TZ, or else of /etc/localtime. TZ may be the name of a zone, the path of a zone file, or a
POSIX rule such as `CET-1CEST,M3.5.0,M10.5.0/3`. The C library silently uses UTC for a zone that it cannot read. Here
that is an error: a schedule would run at the wrong time.
"""

from __future__ import annotations

import io
import os
import re
import struct
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from ..errors import Code, VecError

LOCALTIME: Final = Path("/etc/localtime")

#: std offset [dst [offset] [,start,end]], as in POSIX. Zero-based day numbers are not supported, because zoneinfo
#: and the C library count them differently.
_RULE: Final = re.compile(
    r"(?P<std>[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d{1,3}(:\d{2}){0,2}"
    r"(?P<dst>([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)([+-]?\d{1,3}(:\d{2}){0,2})?)?"
    r"(?P<when>(,[MJ][^,]+){2})?"
)
#: A TZif file of version 2 without transitions: two headers with one UTC type each; the footer has the rule.
_HEADER: Final = struct.pack(">4sc15x6L", b"TZif", b"2", 0, 0, 0, 0, 1, 4) + struct.pack(">lBB4s", 0, 0, 0, b"UTC")


def named(name: str) -> ZoneInfo:
    """The zone with this name in the system's tzdata. Raises VecError `invalid_request`."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise VecError(
            Code.INVALID_REQUEST,
            f"unknown time zone {name!r:.60}",
            "use a name such as Europe/Berlin, from the system's tzdata",
            field="zone",
        ) from error


def local() -> tzinfo:
    """The system's time zone. Raises VecError `invalid_request` if it cannot be read."""
    text = os.environ.get("TZ")
    if text is None:
        return _localtime()
    name = text.removeprefix(":")
    if not name:
        return UTC
    try:
        if name.startswith("/"):
            return _read(Path(name))
        if (folder := os.environ.get("TZDIR")) and (Path(folder) / name).is_file():
            return _read(Path(folder) / name)
    except (OSError, ValueError) as error:
        raise _unreadable(f"TZ is {text!r:.80}, and that file is not a time zone ({error})") from error
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return _rule(name)


def local_name() -> str:
    """The name of `local`; the value of TZ if that cannot be read."""
    try:
        return str(local())
    except VecError:
        return os.environ.get("TZ", str(LOCALTIME))


def _localtime() -> tzinfo:
    try:
        _, _, name = os.path.realpath(LOCALTIME).partition("/zoneinfo/")
        if name:
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass  # a link to another place: the file itself is read
    try:
        return _read(LOCALTIME)
    except FileNotFoundError:
        return UTC
    except (OSError, ValueError) as error:
        raise _unreadable(f"{LOCALTIME} is not a time zone ({error})") from error


def _read(path: Path) -> ZoneInfo:
    """Reads a TZif file. Raises OSError, or ValueError for any other file."""
    with path.open("rb") as file:
        try:
            return ZoneInfo.from_file(file, key=str(path))
        except (struct.error, EOFError, IndexError) as error:
            raise ValueError("it is truncated") from error


def _rule(rule: str) -> ZoneInfo:
    match = _RULE.fullmatch(rule)
    if match is None:
        raise _unreadable(f"TZ is {rule!r:.80}, which is not a zone name, a path or a POSIX rule")
    if match["dst"] and not match["when"]:
        raise _unreadable(f"TZ is {rule!r:.80}, which has daylight saving time, but not its start and end")
    try:
        return ZoneInfo.from_file(io.BytesIO(_HEADER + _HEADER + f"\n{rule}\n".encode("ascii")), key=rule)
    except (ValueError, struct.error) as error:
        raise _unreadable(f"TZ is {rule!r:.80}, which is not a POSIX rule ({error})") from error


def _unreadable(what: str) -> VecError:
    return VecError(
        Code.INVALID_REQUEST,
        f"the daemon's time zone cannot be determined: {what}",
        "use --zone, or start the daemon with, for example, TZ=Europe/Berlin",
        field="zone",
    )
