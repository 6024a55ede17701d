"""The blocking client: `from vecd.client import connect`. Imports the standard library and msgpack only.

with connect() as vec:
    vec.ingest([{"id": "a", "text": "rotate the logs every night"}])
    for hit in vec.search("log rotation", k=3):
        print(hit["score"], hit["document_id"])
"""

from typing import TYPE_CHECKING, Any

from .client import Client, explained
from .connect import connect
from .connection import Pending

if TYPE_CHECKING:
    from .watch import Message, Watch

__all__ = ["Client", "Message", "Pending", "Watch", "connect", "explained"]


def __getattr__(name: str) -> Any:
    """Imports watch.py when a name of it is used: most runs of `vec` watch nothing."""
    if name in ("Message", "Watch"):
        from . import watch

        return getattr(watch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
