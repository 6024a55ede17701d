"""Libraries of vectors: drawing them, writing them, waiting for the index, the right scores by brute force."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from vecd.client import Client

from .waiting import until

Matrix = npt.NDArray[np.float32]
Document = dict[str, Any]


def drawn(count: int, dimension: int, seed: int = 1) -> Matrix:
    """Vectors in clusters, as those of texts are, of different lengths."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(1 + count // 50, dimension))
    vectors = centres[random.integers(0, len(centres), count)] + 0.3 * random.normal(size=(count, dimension))
    return np.asarray(vectors * random.uniform(0.5, 2, size=(count, 1)), np.float32)


def create(client: Client, name: str, **fields: Any) -> str:
    """A library of vectors of one's own."""
    client.request("library.create", library=name, **{"embedder": "none", **fields})
    return name


def put(client: Client, library: str, documents: Iterable[Document]) -> None:
    """Writes any number of documents, all of which are taken."""
    waiting = list(documents)
    for start in range(0, len(waiting), 4_000):
        answer = client.ingest(waiting[start : start + 4_000], library)
        assert answer["failed"] == 0, answer["errors"]


def rows(matrix: Matrix, start: int = 0) -> list[Document]:
    """Row n as document n."""
    return [{"id": str(row), "vector": vector, "metadata": {"n": row}} for row, vector in enumerate(matrix, start)]


def ids(hits: Iterable[Document]) -> list[str]:
    return [hit["document_id"] for hit in hits]


def memory(client: Client, library: str) -> dict[str, Any]:
    """What `vec status` says of a library's index."""
    (found,) = (each for each in client.status()["libraries"] if each["name"] == library)
    said: dict[str, Any] = found["memory"]
    return said


def structured(client: Client, library: str) -> dict[str, Any]:
    """Waits until all vectors are in the structure, and saved; returns what `memory` says then.

    A structure that cannot grow is built again when enough has come since, and an ingest of many vectors is several
    commits; so what is left of them outside is asked for.
    """
    any_vector = np.ones(client.request("library.show", library=library)["dimension"], np.float32)
    list(client.search(vector=any_vector, k=1, library=library))

    def done() -> dict[str, Any] | None:
        (found,) = (each for each in client.status()["libraries"] if each["name"] == library)
        said: dict[str, Any] = found["memory"]
        if not said["structure"] or said["maintenance"] is not None:
            return None
        if said["tail"] and found["index"] == "kdtree":
            client.request("library.rebuild", library=library)
        return None if said["tail"] else said

    return until(done, "the structure")


def scores(matrix: Matrix, query: Matrix, metric: str) -> npt.NDArray[np.float64]:
    """The score of every row, in double precision, by the definition of the metric."""
    vectors, asked = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        distances: npt.NDArray[np.float64] = -np.linalg.norm(vectors - asked, axis=1)
        return distances
    products: npt.NDArray[np.float64] = vectors @ asked
    return products if metric == "dot" else products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
