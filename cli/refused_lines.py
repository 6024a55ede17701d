"""Reports the rejected lines of an ingest: the first of each kind one by one, the others as a sum with their places.

Errors are of one kind if their messages are equal but for what they quote, numbers, and what a parser says in
parentheses. Sums come at the end, and while input keeps coming, every SUM_S seconds: somebody may be watching a stream
without end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vecd.errors import VecError
from vecd.wire.ingest_batch import Place

#: Lines of one kind that are reported one by one.
SHOWN_MAX: Final = 10
#: How long the others wait for their sum.
SUM_S: Final = 10.0
#: Kinds that are told apart; errors of further ones are one kind.
_KINDS_MAX: Final = 100

_VARYING: Final = re.compile(r"""'[^']*'|"[^"]*"|\(.*\)|[0-9][0-9.,e+-]*""")


@dataclass(slots=True)
class _Kind:
    """Errors of one kind."""

    count: int = 0
    held: int = 0  # those that wait for their sum
    first: Place | None = None  # of those
    last: Place | None = None
    message: str = ""  # of the first of those


class RefusedLines:
    """One run. `say` prints a line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._kinds: dict[str, _Kind] = {}
        self._sum_at = time.monotonic() + SUM_S

    def add(self, place: Place, error: VecError, hint: str | None) -> None:
        """Reports a line, now or in a sum. `hint` is what to do, instead of that of the error."""
        name = f"{error.code} {_VARYING.sub('', error.message)}"
        if name not in self._kinds and len(self._kinds) >= _KINDS_MAX:
            name = "other"
        kind = self._kinds.setdefault(name, _Kind())
        kind.count += 1
        what = f"{error.message}{f'; {hint}' if hint else ''} ({error.code})"
        if kind.count <= SHOWN_MAX:
            self._say(f"vec: {_name(place.file)}:{place.number}: {what}")
            return
        if kind.first is None:
            kind.first, kind.message = place, what
        kind.held, kind.last = kind.held + 1, place

    def sum_up(self, *, end: bool = False) -> None:
        """Reports the sums; before the end, only if they are due."""
        now = time.monotonic()
        if not end and now < self._sum_at:
            return
        self._sum_at = now + SUM_S
        for name, kind in self._kinds.items():
            if kind.first is None or kind.last is None:
                continue
            first, last = kind.first, kind.last
            to = (
                ""
                if last == first
                else f" to {_name(last.file) + ':' if last.file != first.file else ''}{last.number:,}"
            )
            like = "other errors" if name == "other" else "errors like that" if kind.held > 1 else "error like that"
            self._say(
                f"vec: {_name(first.file)}:{first.number}{to}: {kind.held:,} more {like}, such as: {kind.message}"
            )
            kind.held, kind.first, kind.last = 0, None, None


def _name(file: str) -> str:
    """The name of a file, on one line."""
    return file.replace("\n", "\\n")
