"""LSH: each vector is a code of bits, one a random hyperplane (Charikar, 2002, "Similarity estimation techniques from
rounding algorithms"); the codes nearest to the query's by Hamming distance are compared exactly: for each query as many
as it needs (rerank_misses.py), or all vectors, where that is cheaper.

How the bits come to stand for each metric's notion of near:

- cosine: on which side of a hyperplane through the origin. Two vectors differ in a share of bits that is their angle.
- l2: the hyperplane goes through a vector of the data instead, so that what is near is on the same side of most.
- dot: vectors get one component more, which brings all to one length; then as cosine (Neyshabur and Srebro, 2015, "On
  symmetric and asymmetric LSHs for inner product search"). The larger that length, the less of a code is left for the
  vector, so that it is not the longest one's: the few that are longer are always compared exactly. When later ones make
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

#: Candidates that are compared exactly, at least; and by default for each hit that is wanted.
_CANDIDATES_MIN, _CANDIDATES_PER_HIT = 500, 20
#: Microseconds of a search on one core for a code looked at, and for a candidate compared.
_CODE_US, _CANDIDATE_US = 0.005, 0.6
#: What a code's bytes cost to look at, relative to the 512 bits that _CODE_US was measured with.
_BITS_MEASURED = 512
#: By how much the candidates grow, and the share of the misses permitted that one query may be expected to have.
_GROWTH, _MISSES_SHARE = 8, 0.5
#: For dot: the share of rows that are too long for their codes when the structure is new, and when it is worn.
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
        self._matrix: Floats = np.empty((0, spec.dimension), np.float32)  # with room to grow
        self._planes: Floats | None = None  # shape (dimension, bits), drawn when the first rows are here
        self._offsets: Floats = np.zeros(self._bits, np.float32)
        self._length = 0.0  # for dot: what all vectors are brought to
        self._longer: Labels = np.empty(0, np.int64)  # for dot: the rows that are longer than that, ascending

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
        """Answers the queries `left`, if comparing so many candidates exactly is enough; says which it answered."""
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
        """How many of the k nearest are to be expected among the rows that were not compared. `differing` are the bits
        in which the codes differ from the query's, ascending; stretched by the line that fits the distances best, they
        are estimates of these."""
        bits = differing.astype(np.float32)
        spread = float(bits.std())
        if not spread:
            return math.inf  # the codes tell none of these apart
        slope = float(np.mean((bits - bits.mean()) * (distances - distances.mean()))) / spread**2
        if slope <= 0:
            return math.inf
        estimates = float(distances.mean()) + slope * (bits - bits.mean())
        expected = expected_misses(estimates, distances, k, float((distances - estimates).std()))
        if self._spec.metric != "dot":
            return expected
        # Lengths differ, so inner products are not spread normally about their estimates: a few are much larger. If
        # the outer half of what was compared has some of the k nearest, those beyond it have, too.
        kth = np.partition(distances, k - 1)[k - 1]
        return max(expected, float(np.count_nonzero(distances[len(distances) // 2 :] <= kth)) / 2)

    def _pays(self, candidates: int, allowed: Allowed) -> bool:
        """Whether so many candidates cost less than a scan of the vectors."""
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
    "random hyperplanes make a code of bits of each vector; approximate",
    Lsh,
    rows_min=16_384,
    train_rows=16_384,
    parameters={"bits": Parameter(512, "hyperplanes", 64, 8_192, step=8)},
)
