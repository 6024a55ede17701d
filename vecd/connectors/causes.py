"""What an error of a client library means: libraries wrap the operating system's error in texts of their own."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from typing import Final

_NUMBER: Final = re.compile(r"\b(?:Error|Errno) ([0-9]{1,3})\b")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def reason(error: BaseException) -> str:
    """The cause in few words: "Connection refused"."""
    for each in causes(error):
        if isinstance(each, socket.gaierror):
            return str(each.strerror)
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno)
    text = str(error)
    if (number := _NUMBER.search(text)) is not None:  # the error itself is lost
        return os.strerror(int(number[1]))
    return " ".join(text.split()).rstrip(".")[:300] or type(error).__name__
