"""LSH: locality-sensitive hashing with random hyperplanes, one bit each (Charikar, 2002, "Similarity estimation
techniques from rounding algorithms"). The vectors whose codes are nearest to the query's by Hamming distance are
compared exactly: as many as each query needs (rerank_misses.py), or all vectors where that is cheaper.

The meaning of a bit depends on the metric:

- cosine: the side of a hyperplane through the origin. The fraction of differing bits is proportional to the angle.
- l2: the side of a hyperplane through a vector of the data, so that near vectors are on the same side of most.
- dot: one additional component brings all vectors to the same length; then as cosine (Neyshabur and Srebro, 2015, "On
  symmetric and asymmetric LSHs for inner product search"). The larger this length, the less of a code depends on the
  vector, so it is less than the maximum: the few longer vectors are always compared exactly. When later vectors make
  them many, the structure is worn.

The hyperplanes are drawn from a fixed seed: the same rows make the same index.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import brute_force
from ..kind import IndexKind, Parameter
from ..native import faiss
from ..rows import Allowed, Floats, Labels, Rows
from ..structure import Effort, Spec
from .rerank_misses import expected_misses

#: Candidates that are compared exactly: the minimum, and the default per hit.
_CANDIDATES_MIN, _CANDIDATES_PER_HIT = 500, 20
#: Microseconds of a search on one core per scanned code, and per compared candidate.
_CODE_US, _CANDIDATE_US = 0.005, 0.6
#: The length of the codes with which _CODE_US was measured.
_BITS_MEASURED = 512
#: The growth factor of the candidates, and the share of the permitted misses that one query may be expected to have.
_GROWTH, _MISSES_SHARE = 8, 0.5
#: For dot: the share of rows that are too long for their codes in a new structure, and in a worn one.
_LONGER_SHARE, _WORN_SHARE = 0.05, 0.15
_SEED = 20_020_519


class Lsh:
    """Codes of `bits` bits in faiss's binary index, and the vectors themselves."""

    grows = True

    def __init__(self, spec: Spec) -> None:
        self.rows = Rows()
        self._spec = spec
        self._bits = int(spec.parameters["bits"])
        self._codes: Any = faiss().IndexBinaryFlat(self._bits)
        self._matrix: Floats = np.empty((0, spec.dimension), np.float32)  # with spare rows
        self._planes: Floats | None = None  # shape (dimension, bits), drawn with the first rows
        self._offsets: Floats = np.zeros(self._bits, np.float32)
        self._length = 0.0  # for dot: the common length of all vectors
        self._longer: Labels = np.empty(0, np.int64)  # for dot: the rows that are longer, ascending

    @property
    def memory_bytes(self) -> int:
        planes = 0 if self._planes is None else self._planes.nbytes
        return self._vectors.nbytes + self.rows.count * self._bits // 8 + planes + self.rows.memory_bytes

    @property
    def _vectors(self) -> Floats:
        return self._matrix[: self.rows.count]

    @property
    def worn(self) -> bool:
        return len(self._longer) > _WORN_SHARE * self.rows.count

    def train(self, sample: Floats) -> None:
        self._draw(sample)

    def extend(self, labels: Labels, vectors: Floats) -> None:
        if not len(labels):
            return
        if self._planes is None:
            self._draw(vectors)
        start = self.rows.count
        if start + len(labels) > len(self._matrix):
            grown = np.empty((max(start + len(labels), 2 * len(self._matrix)), self._spec.dimension), np.float32)
            grown[:start] = self._vectors
            self._matrix = grown
        self._matrix[start : start + len(labels)] = vectors
        self._codes.add(self._coded(vectors, stored=True))
        if self._spec.metric == "dot":
            longer = np.flatnonzero(np.linalg.norm(vectors.astype(np.float64), axis=1) > self._length)
            self._longer = np.concatenate((self._longer, start + longer))
        self.rows.append(labels)

    def finish(self) -> None:
        pass

    def _draw(self, vectors: Floats) -> None:
        random = np.random.default_rng(_SEED)
        dimension = self._spec.dimension + (self._spec.metric == "dot")
        self._planes = random.standard_normal((dimension, self._bits), np.float32)
        if self._spec.metric == "dot":
            self._length = float(np.quantile(np.linalg.norm(vectors.astype(np.float64), axis=1), 1 - _LONGER_SHARE))
        elif self._spec.metric == "l2":
            through = vectors[random.integers(0, len(vectors), self._bits)]
            self._offsets = np.einsum("ij,ji->i", through, self._planes)

    def _coded(self, vectors: Floats, *, stored: bool) -> npt.NDArray[np.uint8]:
        """The codes, shape (n, bits // 8)."""
        assert self._planes is not None
        if self._spec.metric == "dot":
            rest = np.zeros((len(vectors), 1))
            if stored:
                squares = np.square(vectors.astype(np.float64)).sum(axis=1, keepdims=True)
                rest = np.sqrt(np.maximum(self._length**2 - squares, 0))
            vectors = np.hstack((vectors, rest.astype(np.float32)))
        return np.packbits(vectors @ self._planes > self._offsets, axis=1)

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> tuple[Floats, Labels]:
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        left = np.arange(len(queries))
        candidates = max(k, effort.ef or max(_CANDIDATES_MIN, _CANDIDATES_PER_HIT * k))
        missed_max = math.inf if effort.ef else _MISSES_SHARE * (1 - effort.recall) * k / effort.factor
        by_hand = effort.ef is not None and effort.ef < allowed.count
        while k and len(left) and not effort.exact and (by_hand or self._pays(candidates, allowed)):
            answered = self._compare(queries, left, candidates, allowed, missed_max, scores, rows)
            left = left[~answered]
            candidates *= _GROWTH
        if k and len(left):
            found = brute_force.nearest(self._vectors, queries[left], k, allowed, self._spec.space)
            scores[left], rows[left] = found
        return scores, self.rows.labels[rows]

    def _compare(
        self, queries: Floats, left: Labels, candidates: int, allowed: Allowed, missed_max: float, scores: Floats,
        rows: Labels,
    ) -> npt.NDArray[np.bool_]:  # fmt: skip
        """Answers those of the queries `left` for which `candidates` rows are enough; returns which it answered."""
        parameters = faiss().SearchParameters(sel=allowed.selector)
        differing, near = self._codes.search(self._coded(queries[left], stored=False), candidates, params=parameters)
        answered = np.zeros(len(left), np.bool_)
        longer = self._longer if allowed.mask is None else self._longer[allowed.mask[self._longer]]
        k = scores.shape[1]
        for place, query in enumerate(left):
            exact = brute_force.scores(self._vectors, queries[query], near[place], self._spec.space)
            if missed_max < math.inf and self._missed(differing[place], -exact, k) > missed_max:
                continue
            compared = near[place]
            if len(longer):
                others = longer[~np.isin(longer, compared)]
                compared = np.concatenate((compared, others))
                exact = np.concatenate(
                    (exact, brute_force.scores(self._vectors, queries[query], others, self._spec.space))
                )
            best = np.lexsort((compared, -exact))[:k]
            scores[query], rows[query] = exact[best], compared[best]
            answered[place] = True
        return answered

    def _missed(self, differing: npt.NDArray[np.int32], distances: Floats, k: int) -> float:
        """The expected number of the k nearest among the rows that were not compared. `differing` are the Hamming
        distances to the query, ascending; a linear fit to the exact distances makes them estimates."""
        bits = differing.astype(np.float32)
        spread = float(bits.std())
        if not spread:
            return math.inf  # the codes do not distinguish these rows
        slope = float(np.mean((bits - bits.mean()) * (distances - distances.mean()))) / spread**2
        if slope <= 0:
            return math.inf
        estimates = float(distances.mean()) + slope * (bits - bits.mean())
        expected = expected_misses(estimates, distances, k, float((distances - estimates).std()))
        if self._spec.metric != "dot":
            return expected
        # Lengths differ, so inner products are not normally distributed around their estimates: a few are much larger.
        # If the outer half of the candidates has some of the k nearest, so have the rows beyond it.
        kth = np.partition(distances, k - 1)[k - 1]
        return max(expected, float(np.count_nonzero(distances[len(distances) // 2 :] <= kth)) / 2)

    def _pays(self, candidates: int, allowed: Allowed) -> bool:
        """Whether this number of candidates costs less than a scan of the vectors."""
        count = self.rows.count
        ours = _CODE_US * count * math.ceil(self._bits / _BITS_MEASURED)
        ours += _CANDIDATE_US * (candidates + len(self._longer))
        return candidates < allowed.count and ours < brute_force.cost_us(allowed, count)

    def score(self, query: Floats, rows: Labels) -> Floats:
        return brute_force.scores(self._vectors, query, rows, self._spec.space)

    def sample(self, places: Labels) -> Floats:
        return self._vectors[self.rows.alive.nonzero()[0][places]]

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        return None


KIND: Final = IndexKind(
    "bit codes from random hyperplanes; approximate",
    Lsh,
    rows_min=16_384,
    train_rows=16_384,
    parameters={"bits": Parameter(512, "bits of a code", 64, 8_192, step=8)},
)
