"""Parameters that several endpoints share."""

from __future__ import annotations

from typing import Final

from .endpoint import Parameter
from .schemas import COMPONENTS, STRING, array

LIBRARY: Final = Parameter(
    "library", "path", COMPONENTS["NewLibrary"]["properties"]["name"], "The name of a library.", required=True
)
WHERE: Final = Parameter(
    "where", "query", array(STRING), "Only documents that match this filter. Can be repeated: all must match."
)
