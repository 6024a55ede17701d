"""The MCP server of `vec mcp`: tools by which an assistant searches, reads and watches libraries, and may write.

Rules: stdout belongs to the protocol, so nothing else is printed there. A tool runs in a thread of its own, with a
connection of its own: a watch that waits delays no search, and a daemon that was restarted is found again. Only the
chosen libraries exist for the assistant, and without `writes` there is no tool that writes. Answers are bounded: they
end up in a context window. Only commands/mcp.py imports this module, because the SDK is an extra.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from vecd import __version__
from vecd.errors import Code, VecError

if TYPE_CHECKING:
    from vecd.client import Client

HITS_MAX: Final = 50
IDS_MAX: Final = 50
EVENTS_MAX: Final = 100
DOCUMENTS_MAX: Final = 500
#: The longest wait for an event; clients give up on a tool after a minute.
WAIT_S_MAX: Final = 30.0

_TYPES: Final = ("document.*", "library.*")
_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_WRITES: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
_INSTRUCTIONS: Final = (
    "Libraries of documents, found by meaning and by words. `search` first; `get` returns whole documents by the"
    " document_id of hits; `watch` tells what changed since a cursor."
)

Library = Annotated[str | None, Field(description="The library. Default: the only one, or all that may be used.")]


class Tools:
    """The tools; `libraries` are those that may be used, none: all."""

    def __init__(self, connect: Callable[[], Client], libraries: Sequence[str]) -> None:
        self._connect = connect
        self._libraries = list(libraries)

    def libraries(self) -> list[dict[str, Any]]:
        """List the libraries with the number of their documents."""
        with self._client() as client:
            keys = ("name", "documents", "chunks", "embedder", "dimension", "language")
            return [{key: each.get(key) for key in keys} for each in client.libraries() if self._may(each["name"])]

    def search(
        self,
        query: Annotated[str, Field(description="What to look for, in plain words.")],
        library: Library = None,
        k: Annotated[int, Field(ge=1, le=HITS_MAX, description="The maximum number of hits.")] = 10,
        where: Annotated[
            list[str] | None, Field(description="Filters on metadata, all of which must match: 'year >= 2020'.")
        ] = None,
    ) -> list[dict[str, Any]]:
        """Search by meaning and by words. A hit is a document with its best chunk; the best hit comes first."""
        with self._client() as client:
            chosen = self._chosen(library)
            scope: dict[str, Any] = {"library": chosen[0]} if len(chosen) == 1 else {"libraries": chosen or ["*"]}
            return list(client.search(query, k=k, where=where or (), group_by="document", **scope))

    def get(
        self,
        ids: Annotated[list[str], Field(min_length=1, max_length=IDS_MAX, description="The ids of documents.")],
        library: Library = None,
    ) -> list[dict[str, Any] | None]:
        """Return whole documents by id, in this order; null for one that does not exist."""
        with self._client() as client:
            return client.get(ids, self._one(library))

    def watch(
        self,
        after: Annotated[
            str | None, Field(description="The cursor of an earlier answer. Default: now, which answers a cursor.")
        ] = None,
        library: Library = None,
        wait_s: Annotated[float, Field(ge=0, le=WAIT_S_MAX, description="How long to wait for an event.")] = 0,
        limit: Annotated[int, Field(ge=1, le=EVENTS_MAX, description="The maximum number of events.")] = 50,
    ) -> dict[str, Any]:
        """Tell which documents were added, updated or deleted after a cursor: `events`, and the `cursor` for the next
        call."""
        with self._client() as client:
            feed = client.watch(
                after or "now", libraries=self._chosen(library), types=_TYPES, limit=limit, follow=wait_s > 0,
                timeout_s=wait_s or None,
            )  # fmt: skip
            events: list[dict[str, Any]] = []
            with feed:
                for event in feed:
                    events.append(event)
                    if not feed.ready or len(events) == limit:
                        break
            return {"events": events, "cursor": feed.cursor}

    def ingest(
        self,
        documents: Annotated[
            list[dict[str, Any]],
            Field(
                min_length=1,
                max_length=DOCUMENTS_MAX,
                description='Documents: {"id": …, "text": …}, optionally with "title" and an object "metadata". A'
                " document with an id that exists is replaced.",
            ),
        ],
        library: Library = None,
    ) -> dict[str, Any]:
        """Write documents, which can be found when this returns. Answers with counts, and with the documents that were
        refused."""
        with self._client() as client:
            return client.ingest(documents, self._one(library))

    # --- libraries --------------------------------------------------------------------------------------------------

    def _may(self, library: str) -> bool:
        return not self._libraries or library in self._libraries

    def _chosen(self, library: str | None) -> list[str]:
        """The libraries of a read; none: all. Raises VecError `forbidden`."""
        if library is None:
            return self._libraries
        if not self._may(library):
            usable = ", ".join(self._libraries)
            raise VecError(Code.FORBIDDEN, f"library {library!r:.60} is not open to this server", f"use {usable}")
        return [library]

    def _one(self, library: str | None) -> str:
        """The library of a read or write of one. Raises VecError."""
        chosen = self._chosen(library)
        if library is None and len(chosen) > 1:
            raise VecError(Code.INVALID_REQUEST, "name the library", f"one of {', '.join(chosen)}")
        return chosen[0] if chosen else "default"

    @contextmanager
    def _client(self) -> Iterator[Client]:
        """A connection; a VecError becomes an error that the assistant can read."""
        try:
            with self._connect() as client:
                yield client
        except VecError as error:
            hint = f". {error.hint}" if error.hint else ""
            raise ToolError(f"{error.message} ({error.code}){hint}") from error


def serve(connect: Callable[[], Client], libraries: Sequence[str], writes: bool) -> None:
    """Serves on stdin and stdout, until stdin ends. `connect` makes a connection for each call of a tool."""
    server = MCPServer("vec", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING")
    tools = Tools(connect, libraries)
    for read in (tools.libraries, tools.search, tools.get, tools.watch):
        server.tool(annotations=_READS)(read)
    if writes:
        server.tool(annotations=_WRITES)(tools.ingest)
    server.run("stdio")
