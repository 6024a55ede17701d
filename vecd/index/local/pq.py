"""PQ: product quantization. A search scans short codes of all vectors, and compares the best candidates exactly.

A vector is rotated and split into subvectors of a few components, and each subvector is replaced by the number of the
nearest of 16 centroids (Jégou, Douze and Schmid, 2011, "Product Quantization for Nearest Neighbor Search"). faiss scans
such 4-bit codes with SIMD table lookups ("fast scan"; André, Kermarrec and Le Scouarnec, 2015). Codes are independent
of each other, so adding a row is an append, deleting or filtering a row is a mask, and duplicates do no harm.

The number of candidates is decided for each query, from the exact comparisons (rerank_misses.py). If more misses are
expected than the target recall permits, eight times as many candidates are compared, until a scan of all vectors is
cheaper. So a query that the codes approximate badly takes longer, but meets the recall.

Cosine is compared as Euclidean distance: for vectors of length 1 the order is the same. Subtracting the mean of the
vectors does not change distances, and only the differences are encoded: vectors in a narrow cone are approximated as
well as any others. For `dot` the mean is subtracted from the stored vectors only, which shifts all scores of a query by
the same amount.

A few rows have a much larger quantization error than the rest (vectors of extreme length, rows added after the data
drifted). Their estimates are useless, so these `outliers` are always compared exactly. When there are many, the
structure is worn, and is trained again.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .. import brute_force
from ..kind import IndexKind, Parameter
from ..rows import Allowed, Floats, Labels, Rows
from ..structure import Effort, Spec
from .fast_scan import FastScanCodes
from .growable_matrix import GrowableMatrix
from .rerank_misses import expected_misses

#: Up to this number of dimensions a code has 4 bits per component: with few subvectors, more bits are needed and cheap.
_DIMENSION_SMALL: Final = 64

#: The initial number of candidates: the minimum, and per hit; and its growth factor.
_CANDIDATES_MIN, _CANDIDATES_PER_HIT, _GROWTH = 256, 4, 8
#: The share of the permitted misses that one query may be expected to have.
_MISSES_SHARE = 0.5
#: Microseconds of a search: per subvector of a scanned code, per compared candidate, and per call.
_SUBVECTOR_US, _CANDIDATE_US, _CALL_US = 0.00004, 0.3, 50.0

#: A row is an outlier if its squared error exceeds this multiple of the mean of the build...
_OUTLIER_ERROR = 4.0
#: ...and the row is among this share with the largest errors. Rows that are added later have the same threshold.
_OUTLIER_SHARE = 0.01
#: The share of outliers from which the structure is worn.
_WORN_SHARE = 0.05
#: Rows that are added at a time: bounds the memory of rotated and decoded copies.
_EXTEND_ROWS = 8_192
#: Centroids per subvector: a 4-bit number.
_CENTROIDS: Final = 16
_SEED: Final = 20_110_101


class Pq:
    """Codes of `bits` bits per component, and the vectors as float32."""

    grows = True

    def __init__(self, spec: Spec) -> None:
        self.rows = Rows()
        self.dimension = spec.dimension
        self._space = spec.space
        self._by_distance = spec.metric != "dot"
        self._matrix = GrowableMatrix(spec.dimension)
        bits = int(spec.parameters["bits"]) or (4 if spec.dimension <= _DIMENSION_SMALL else 2)
        width = 4 // bits  # components of a subvector
        self._subvectors = -(-spec.dimension // width)
        self._rotation, self._mean = self._rotate(self._subvectors * width), np.zeros(spec.dimension, np.float32)
        self._codes = FastScanCodes(self._subvectors, width, by_distance=self._by_distance)
        self._outliers: list[int] = []  # row numbers, ascending
        self._error_mean = 0.0  # squared, of the rows of the build
        self._error_max = math.inf  # of a row that is not an outlier, squared
        self._errors: list[Floats] = []  # of the rows of the build, squared

    @property
    def memory_bytes(self) -> int:
        return self._matrix.nbytes + self._codes.nbytes + self._rotation.nbytes + self.rows.memory_bytes

    @property
    def worn(self) -> bool:
        return len(self._outliers) > max(_CANDIDATES_MIN, _WORN_SHARE * self.rows.count)

    def _rotate(self, size: int) -> Floats:
        """A random rotation, shape (dimension, size): it spreads information evenly over the subvectors."""
        random = np.random.default_rng(_SEED).standard_normal((size, size))
        orthogonal: npt.NDArray[np.float64] = np.linalg.qr(random)[0]
        return np.ascontiguousarray(orthogonal[: self.dimension]).astype(np.float32)

    def train(self, sample: Floats) -> None:
        self._mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        rows = self._rotated(sample)
        if len(rows) < _CENTROIDS:  # faiss refuses to learn more centroids than there are rows
            rows = np.resize(rows, (_CENTROIDS, rows.shape[1]))
        self._codes.train(rows)

    def _rotated(self, vectors: Floats) -> Floats:
        rotated: Floats = np.matmul(vectors - self._mean, self._rotation, dtype=np.float32)
        return rotated

    def extend(self, labels: Labels, vectors: Floats) -> None:
        for start in range(0, len(labels), _EXTEND_ROWS):
            self._extend(labels[start : start + _EXTEND_ROWS], vectors[start : start + _EXTEND_ROWS])

    def _extend(self, labels: Labels, vectors: Floats) -> None:
        errors = self._codes.add(self._rotated(vectors))
        if math.isinf(self._error_max):
            self._errors.append(errors)
        else:
            self._outliers += (self.rows.count + np.flatnonzero(errors > self._error_max)).tolist()
        self._matrix.append(vectors)
        self.rows.append(labels)

    def finish(self) -> None:
        errors = np.concatenate(self._errors) if self._errors else np.empty(0, np.float32)
        self._errors = []
        if len(errors):
            self._error_mean = float(errors.mean())
            least = _OUTLIER_ERROR * self._error_mean
            self._error_max = max(least, float(np.quantile(errors, 1 - _OUTLIER_SHARE)))
            self._outliers = np.flatnonzero(errors > self._error_max).tolist()

    # --- searching --------------------------------------------------------------------------------------------------

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> tuple[Floats, Labels]:
        count = len(queries)
        scores, rows = np.empty((count, k), np.float32), np.empty((count, k), np.int64)
        left = np.arange(count)
        candidates = max(_CANDIDATES_MIN, _CANDIDATES_PER_HIT * k, effort.ef or 0)
        missed_max = math.inf if effort.ef else _MISSES_SHARE * (1 - effort.recall) * k / effort.factor
        rotated: Floats | None = None
        while k and len(left) and not effort.exact and missed_max > 0 and self._pays(candidates, allowed):
            rotated = self._rotated_queries(queries) if rotated is None else rotated
            answered = self._compare(queries, rotated, left, candidates, allowed, missed_max, scores, rows)
            left = left[~answered]
            candidates *= _GROWTH
        if k and len(left):
            scores[left], rows[left] = brute_force.nearest(self._matrix.rows, queries[left], k, allowed, self._space)
        return scores, self.rows.labels[rows]

    def _pays(self, candidates: int, allowed: Allowed) -> bool:
        """Whether this number of candidates costs less than a scan of the vectors."""
        count = self.rows.count
        ours = _CALL_US + _SUBVECTOR_US * self._subvectors * count + _CANDIDATE_US * (candidates + len(self._outliers))
        return candidates < allowed.count and ours < brute_force.cost_us(allowed, count)

    def _rotated_queries(self, queries: Floats) -> Floats:
        if self._by_distance:
            return self._rotated(queries)
        rotated: Floats = queries @ self._rotation
        return rotated

    def _compare(
        self, queries: Floats, rotated: Floats, left: Labels, candidates: int, allowed: Allowed, missed_max: float,
        scores: Floats, rows: Labels,
    ) -> npt.NDArray[np.bool_]:  # fmt: skip
        """Answers those of the queries `left` for which `candidates` rows are enough; returns which it answered."""
        estimates, near = self._codes.search(rotated[left], candidates, allowed)
        outliers = self._allowed_outliers(allowed)
        answered = np.zeros(len(left), np.bool_)
        k = scores.shape[1]
        for place, query in enumerate(left):
            its_rows = near[place]
            exact = self._matrix.scores(queries[query], its_rows, self._space)
            distances = self._distances(queries[query], exact)
            estimate = estimates[place]
            if missed_max < math.inf:
                prior = self._deviation(queries[query], float(estimate[-1]))
                if expected_misses(estimate, distances, k, prior) > missed_max:
                    continue
            if len(outliers):
                more = outliers[~np.isin(outliers, its_rows)]
                its_rows = np.concatenate((its_rows, more))
                exact = np.concatenate((exact, self._matrix.scores(queries[query], more, self._space)))
            best = np.lexsort((its_rows, -exact))[:k]
            scores[query], rows[query] = exact[best], its_rows[best]
            answered[place] = True
        return answered

    def _deviation(self, query: Floats, distance: float) -> float:
        """The expected deviation of estimates at this distance, for rows with the mean quantization error in a random
        direction."""
        error = math.sqrt(self._error_mean / len(self._mean))
        if not self._by_distance:
            return error * math.sqrt(float(query @ query))
        return 2 * error * math.sqrt(max(distance, self._error_mean, 0.0))

    def _distances(self, query: Floats, exact: Floats) -> Floats:
        """Converts exact scores to what codes estimate: squared distances, or negated products with centred rows."""
        if self._space == "l2":
            return -exact
        if not self._by_distance:
            return float(query @ self._mean) - exact
        return 1 + float(query @ query) - 2 * exact  # rows have length 1, except rows of zeros, which score 0 anyway

    def _allowed_outliers(self, allowed: Allowed) -> Labels:
        outliers = np.array(self._outliers, np.int64)
        return outliers if allowed.mask is None else outliers[allowed.mask[outliers]]

    def score(self, query: Floats, rows: Labels) -> Floats:
        return self._matrix.scores(query, rows, self._space)

    def sample(self, places: Labels) -> Floats:
        found: Floats = self._matrix.rows[self.rows.alive.nonzero()[0][places]]
        return found

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        return None


KIND: Final = IndexKind(
    "product quantization: a scan of short codes, and an exact comparison of the best candidates; approximate",
    Pq,
    rows_min=16_384,  # up to there an exact scan is as fast (tests/bench/kinds.py); so for all kinds
    train_rows=16_384,
    parameters={
        "bits": Parameter(
            0, "bits of a code per dimension; 0 means 4 up to 64 dimensions and 2 above", choices=(0, 1, 2, 4)
        )
    },
)
