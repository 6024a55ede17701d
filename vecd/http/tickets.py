"""Tickets: a short-lived stand-in for a key, for browsers, whose EventSource and WebSocket cannot send a header.

Rules:
- A ticket is in a URL, and URLs are logged, remembered and shared. So it works once, within TICKET_S, and only to open
  a stream or a WebSocket (GET).
- It has the rights of the key that requested it, and ends with it: what a ticket opened is closed when the key expires
  or is revoked.
- Tickets are in memory only, as their SHA-256.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .. import limits
from ..errors import Code, VecError
from .keys import digest_of

if TYPE_CHECKING:
    from .principal import Principal

PREFIX: Final = "vet_"
#: What a ticket looks like, wherever it stands.
PATTERN: Final = re.compile(rf"{PREFIX}[0-9A-Za-z_-]{{43}}")


class Tickets:
    """The unused tickets of one gateway."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._valid: dict[bytes, tuple[float, Principal]] = {}  # the oldest first
        self._of: Counter[str] = Counter()

    def issue(self, principal: Principal) -> str:
        """A new ticket with the principal's rights. Raises VecError `busy` beyond the bounds."""
        self._drop_expired()
        if len(self._valid) >= limits.TICKETS_MAX or self._of[principal.name] >= limits.TICKETS_OF_ONE_MAX:
            raise VecError(
                Code.BUSY,
                "too many tickets were requested and not used",
                f"request one when it is needed; each expires after {limits.TICKET_S:g} s",
                retry_after_s=limits.RETRY_AFTER_S,
            )
        ticket = PREFIX + secrets.token_urlsafe(32)
        self._valid[digest_of(ticket)] = self._now() + limits.TICKET_S, principal
        self._of[principal.name] += 1
        return ticket

    def redeem(self, ticket: str) -> Principal:
        """Whose ticket it is; it cannot be used again. Raises VecError `unauthorized`."""
        self._drop_expired()
        found = self._valid.pop(digest_of(ticket), None)
        if found is None:
            raise VecError(
                Code.UNAUTHORIZED,
                "the ticket is unknown, was used already, or has expired",
                f"a ticket works once, within {limits.TICKET_S:g} s: POST /v1/tickets with the key for a new one",
            )
        self._forget(found[1])
        return found[1]

    def __len__(self) -> int:
        return len(self._valid)

    def _drop_expired(self) -> None:
        now = self._now()
        while self._valid:
            digest, (expires, principal) = next(iter(self._valid.items()))
            if expires > now:
                return
            del self._valid[digest]
            self._forget(principal)

    def _forget(self, principal: Principal) -> None:
        self._of[principal.name] -= 1
        if not self._of[principal.name]:
            del self._of[principal.name]
