"""The saved mapping of a library: how the gateway makes documents of the objects that it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ..errors import Code, VecError
from ..wire.mapping import DocumentMapping
from .endpoint import Parameter

#: The parameter of endpoints that write documents.
MAPPING: Final = Parameter(
    "mapping", "query", {"type": "string", "enum": ["library", "none"], "default": "library"},
    "`none`: what is sent are documents, whatever mapping the library has.",
)  # fmt: skip


def wants_mapping(query: Mapping[str, Any]) -> bool:
    """Whether a request wants the library's mapping. Raises VecError `invalid_request`."""
    given = query.get("mapping", "library")
    if given not in ("library", "none"):
        raise VecError(Code.INVALID_REQUEST, f"mapping must be library or none, not {given!r:.80}", field="mapping")
    return bool(given == "library")


async def saved_mapping(request: Callable[..., Awaitable[dict[str, Any]]], library: str) -> DocumentMapping | None:
    """The library's mapping; None if it has none. `request` sends an op. Raises VecError `not_found`."""
    rules = (await request("library.settings", library=library))["mapping"]
    return DocumentMapping.parse(rules) if rules else None


def mapped(
    mapping: DocumentMapping | None,
    given: list[Any],
    refused: Mapping[int, VecError] = MappingProxyType({}),
) -> tuple[list[Any], dict[int, VecError]]:
    """The documents that objects become, and errors by position, `refused` among them."""
    documents, errors = list(given), dict(refused)
    for place, value in enumerate(given if mapping is not None else ()):
        if mapping is not None and isinstance(value, dict) and place not in errors:
            try:
                documents[place] = mapping.apply(value)
            except VecError as error:
                errors[place] = error
    return documents, errors
