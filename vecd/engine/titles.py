"""How similar the titles of documents are to a query, by the library's own embedder.

A title says what a document is about, and the vector of a chunk of a long document says little of it. So the best hits
of a hybrid search get a score for their titles.

Titles repeat from search to search, and their vectors are kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import limits
from ..index.rows import Floats
from ..text.embedders import Embedder


class TitleVectors:
    """Vectors of titles, by embedder and title. Thread-safe: what two threads make at once is the same."""

    def __init__(self) -> None:
        self._young: dict[tuple[str, str], Floats] = {}
        self._old: dict[tuple[str, str], Floats] = {}

    def similarities(self, name: str, embedder: Embedder, query: Floats, titles: Sequence[str]) -> Floats:
        """The cosines of the vectors of a query, shape (dimension,) and of length 1, and of titles: shape
        (len(titles),). Blocks; raises VecError."""
        young, old = self._young, self._old
        vectors: dict[str, Floats] = {}
        for title in titles:
            if (kept := young.get((name, title), old.get((name, title)))) is not None:
                vectors[title] = kept
        missing = [title for title in dict.fromkeys(titles) if title not in vectors]
        if missing:
            vectors |= zip(missing, embedder.embed(missing), strict=True)
        if len(young) + len(vectors) > limits.TITLE_VECTORS_MAX // 2:
            self._old, self._young = young, {}
        self._young |= {(name, title): vector for title, vector in vectors.items()}
        similar: Floats = np.stack([vectors[title] for title in titles]) @ query
        return similar
