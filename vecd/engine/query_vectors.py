"""A cache of the vectors of queries: people and programs ask the same again, page after page, and a slow embedder takes
tens of milliseconds, or a request to a server, for each."""

from __future__ import annotations

from collections import OrderedDict

from .. import limits
from ..index.rows import Floats


class QueryVectors:
    """The vectors that were used last, by embedder and query, up to QUERY_VECTORS_BYTES. Used on the event loop."""

    def __init__(self) -> None:
        self._vectors: OrderedDict[tuple[str, str], Floats] = OrderedDict()  # the one used last is the last
        self._bytes = 0

    def get(self, embedder: str, text: str) -> Floats | None:
        """Shape (dimension,)."""
        vector = self._vectors.get((embedder, text))
        if vector is not None:
            self._vectors.move_to_end((embedder, text))
        return vector

    def put(self, embedder: str, text: str, vector: Floats) -> None:
        if (before := self._vectors.pop((embedder, text), None)) is not None:
            self._bytes -= _bytes(text, before)
        self._vectors[embedder, text] = vector
        self._bytes += _bytes(text, vector)
        while self._bytes > limits.QUERY_VECTORS_BYTES:
            (_, dropped), old = self._vectors.popitem(last=False)
            self._bytes -= _bytes(dropped, old)


def _bytes(text: str, vector: Floats) -> int:
    return int(vector.nbytes) + 4 * len(text) + 300  # with the objects around them
