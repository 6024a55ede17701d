"""A toy kind of index whose searches are answered by another thread: one file, and one entry in `kinds.MODULES`."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from vecd.index import brute_force
from vecd.index.kind import IndexKind, Parameter
from vecd.index.rows import Allowed, Floats, Labels, Rows
from vecd.index.structure import Effort, Hits, Spec


class Toy:
    """A list of vectors in this process, searched by a thread that the tests can hold up or break."""

    grows = True
    worn = False
    made: ClassVar[list[Toy]] = []

    def __init__(self, spec: Spec) -> None:
        self.rows = Rows()
        self.delay = int(spec.parameters["delay"])
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None
        self.searches: list[tuple[int, int]] = []  # of each, how many queries and their k
        self.threads: set[int] = set()
        self._space = spec.space
        self._matrix: Floats = np.empty((0, spec.dimension), np.float32)
        self._pool = ThreadPoolExecutor(1)
        Toy.made.append(self)

    @property
    def memory_bytes(self) -> int:
        return self._matrix.nbytes

    def train(self, sample: Floats) -> None:
        raise AssertionError("needs no training")

    def extend(self, labels: Labels, vectors: Floats) -> None:
        self._matrix = np.concatenate((self._matrix, vectors))
        self.rows.append(labels)

    def finish(self) -> None:
        pass

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> Future[Hits]:
        self.searches.append((len(queries), k))
        matrix, labels = self._matrix, self.rows.labels.copy()
        copied = Allowed(allowed.count, None if allowed.mask is None else allowed.mask.copy())
        return self._pool.submit(self._answer, queries.copy(), k, matrix, labels, copied)

    def _answer(self, queries: Floats, k: int, matrix: Floats, labels: Labels, allowed: Allowed) -> Hits:
        assert self.open.wait(60)
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        scores, rows = brute_force.nearest(matrix, queries, k, allowed, self._space)
        return scores, labels[rows]

    def score(self, query: Floats, rows: Labels) -> Floats:
        return brute_force.scores(self._matrix, query, rows, self._space)

    def sample(self, places: Labels) -> Floats:
        found: Floats = self._matrix[self.rows.alive.nonzero()[0][places]]
        return found

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        return None


KIND: Final = IndexKind(
    "another thread compares every vector",
    Toy,
    rows_min=4,
    parameters={"delay": Parameter(7, "a number without an effect", 0, 9)},
)
