"""Who a request comes from, and the check of what that allows. Every endpoint makes this check (app.py)."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import Code, VecError
from .keys import SCOPES, Key


class Principal(NamedTuple):
    """Who asks, and what that allows."""

    name: str  # of the key; `anyone` where no key is needed; `nobody` where one is needed and none was presented
    scopes: frozenset[str]
    libraries: frozenset[str] | None  # None: all
    key: Key | None = None

    def check(self, scope: str, library: str | None = None) -> None:
        """Raises VecError `unauthorized` or `forbidden` if a request of that scope, on that library, is not allowed.
        Without a library, the request concerns all; one of scope `read` or `write` must look at `libraries` itself."""
        if scope == "open":
            return
        if not self.scopes:
            raise VecError(
                Code.UNAUTHORIZED,
                "this request needs a key",
                "send the header 'Authorization: Bearer KEY'; 'vec keys create' makes a key",
            )
        if scope not in self.scopes:
            raise VecError(
                Code.FORBIDDEN,
                f"the key {self.name!r} may not do this: it needs the scope {scope}",
                f"use a key that 'vec keys create --scope {scope}' made",
                scope=scope,
            )
        if self.libraries is None:
            return
        if library is None and scope == "admin":
            raise VecError(
                Code.FORBIDDEN,
                f"the key {self.name!r} is for some libraries only, and this request concerns all",
                "use a key that was made without --library",
            )
        if library is not None and library not in self.libraries:
            raise VecError(
                Code.FORBIDDEN,
                f"the key {self.name!r} is not for the library {library!r:.140}",
                f"use a key that was made with --library {library:.140}, or for all libraries",
                library=library,
            )


ANYONE: Final = Principal("anyone", frozenset(SCOPES), None)
NOBODY: Final = Principal("nobody", frozenset(), None)
