"""Helpers for libraries of vectors: random vectors, writing, waiting for the index, scores by brute force."""

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
    """Random vectors in clusters, as those of texts, with different norms."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(1 + count // 50, dimension))
    vectors = centres[random.integers(0, len(centres), count)] + 0.3 * random.normal(size=(count, dimension))
    return np.asarray(vectors * random.uniform(0.5, 2, size=(count, 1)), np.float32)


def create(client: Client, name: str, **fields: Any) -> str:
    """Creates a library without an embedder."""
    client.request("library.create", library=name, **{"embedder": "none", **fields})
    return name


def put(client: Client, library: str, documents: Iterable[Document]) -> None:
    """Writes any number of documents; asserts that all are accepted."""
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
    """The state of a library's index, from `vec status`."""
    (found,) = (each for each in client.status()["libraries"] if each["name"] == library)
    state: dict[str, Any] = found["memory"]
    return state


def structured(client: Client, library: str) -> dict[str, Any]:
    """Waits until all vectors are in the structure, and saved; returns `memory`.

    A structure that cannot grow is only rebuilt when the tail is long enough, and an ingest of many vectors is several
    commits. So this requests a rebuild for a remaining tail.
    """
    any_vector = np.ones(client.request("library.show", library=library)["dimension"], np.float32)
    list(client.search(vector=any_vector, k=1, library=library))

    def done() -> dict[str, Any] | None:
        (found,) = (each for each in client.status()["libraries"] if each["name"] == library)
        state: dict[str, Any] = found["memory"]
        if not state["structure"] or state["maintenance"] is not None:
            return None
        if state["tail"] and found["index"] == "kdtree":
            client.request("library.rebuild", library=library)
        return None if state["tail"] else state

    return until(done, "the structure")


def scores(matrix: Matrix, query: Matrix, metric: str) -> npt.NDArray[np.float64]:
    """The score of each row, in double precision, from the definition of the metric."""
    vectors, asked = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "l2":
        distances: npt.NDArray[np.float64] = -np.linalg.norm(vectors - asked, axis=1)
        return distances
    products: npt.NDArray[np.float64] = vectors @ asked
    return products if metric == "dot" else products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
