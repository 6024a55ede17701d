"""The blocking client: `from vecd.client import connect`. Imports the standard library and msgpack only.

with connect() as vec:
    vec.ingest([{"id": "a", "text": "rotate the logs every night"}])
    for hit in vec.search("log rotation", k=3):
        print(hit["score"], hit["document_id"])
"""

from .client import Client, explained
from .connect import connect
from .connection import Pending
from .watch import Message, Watch

__all__ = ["Client", "Message", "Pending", "Watch", "connect", "explained"]
