"""HNSW: faiss's hierarchical navigable small world graph (Malkov and Yashunin, 2016, arXiv:1603.09320).

Real data differs from benchmarks. These measures keep the recall:

- *Duplicates.* Each distinct vector is one node with a list of rows (distinct_vectors.py). Otherwise equal vectors link
  only to each other, and a search that reaches them does not get out.
- *Masked rows.* faiss cannot remove rows: deleted rows stay in the graph, and a filter is a mask too. The graph search
  ignores the mask and returns the `ef` nodes nearest to the query. If k allowed rows are among them, these are the
  nearest allowed rows. If not, because rows near the query are masked, the search is repeated with a larger `ef`, or
  replaced by an exact scan where that costs no more.
- *Hard queries.* A search whose answer is doubtful (hard_queries.py) is repeated with a larger `ef`, from other entry
  points, or replaced by a scan.
- *Cones.* Embeddings often have a common mean and a small variance. Vectors of length 1 are linked by L2 distance,
  which ranks as the cosine does, but is computed from differences: an inner product rounds the differences away. For
  float16, and for the metric dot, the mean of the first vectors is subtracted from stored vectors. This does not change
  the ranking; float16 then rounds the difference from the mean, and inner products link by it.

Scores are computed from the stored vectors, not taken from the graph search.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import Code, VecError
from .. import brute_force, native, snapshot_file
from ..kind import IndexKind, Parameter
from ..native import faiss
from ..rows import Allowed, Bools, Floats, Labels, Rows
from ..structure import Effort, Spec
from .distinct_vectors import DistinctVectors
from .graph_validation import DTYPES, check
from .hard_queries import CONTRAST_HIT, REFERENCE_HIT, HardQueryDetector, NearestNodes

#: The default of ef; tests/bench/hnsw.py measures its recall and time.
EF_DEFAULT = 96
#: The factor from one ef to the next.
_WIDER = 4
#: With a mask, the allowed nodes to find per wanted row: a search misses more among its farthest candidates.
_FOUND_PER_ROW = 2
#: Microseconds per candidate of a graph search on one core; compared with brute_force.cost_us.
_EF_US = 3.4
#: A doubtful answer is replaced by a scan if that costs at most this number of first searches; else by a wider search.
_SCAN_SEARCHES = 6

#: faiss's search_type: one search from all entry points.
_ALL_ENTRIES_AT_ONCE = 2

#: The minimum spare capacity of a new graph, as a share of its rows; usually the capacity is doubled.
_SPARE_SHARE = 0.25


class Hnsw:
    """A graph of `m` links per node over float32 or float16 vectors."""

    grows = True

    def __init__(self, spec: Spec) -> None:
        self.rows = Rows()
        self.dimension = spec.dimension
        self._metric = spec.metric
        self._distinct = DistinctVectors()
        self._parameters: dict[int, Any] = {}  # faiss's parameters by ef; making them is slow
        self._float16 = spec.parameters["vectors"] == "float16"
        #: Subtracted from all vectors; None before the first rows.
        self._centre: Floats | None = None
        self._zero: int | None = None  # for cosine: the node of rows of zeros
        self._detector = HardQueryDetector(spec.dimension, spec.metric)
        self._finished = False
        self._view: npt.NDArray[Any] | None = None  # of faiss's memory, until it is reallocated
        metric = faiss().METRIC_INNER_PRODUCT if spec.metric == "dot" else faiss().METRIC_L2
        self._index: Any
        if self._float16:
            self._index = faiss().IndexHNSWSQ(
                spec.dimension, faiss().ScalarQuantizer.QT_fp16, spec.parameters["m"], metric
            )
            self._index.storage.is_trained = self._index.is_trained = True  # float16 needs no training
        else:
            self._index = faiss().IndexHNSWFlat(spec.dimension, spec.parameters["m"], metric)
        self._storage: Any = faiss().downcast_index(self._index.storage)
        self._index.hnsw.efConstruction = spec.parameters["ef_construction"]

    @property
    def memory_bytes(self) -> int:
        hnsw = self._index.hnsw
        links = 4 * hnsw.neighbors.size() + 8 * hnsw.offsets.size() + 4 * hnsw.levels.size()
        beside = self._distinct.memory_bytes + self._detector.memory_bytes + self.rows.memory_bytes
        return int(links + self._codes().nbytes + beside)

    @property
    def worn(self) -> bool:
        return False

    def train(self, sample: Floats) -> None:
        pass

    def extend(self, labels: Labels, vectors: Floats) -> None:
        if not len(labels):
            return
        if self._centre is None:
            centred = self._float16 or self._metric == "dot"
            mean = vectors.mean(axis=0, dtype=np.float64) if centred else np.zeros(self.dimension)
            self._centre = mean.astype(np.float32)
        shifted = vectors - self._centre + np.float32(0)  # -0.0 becomes 0.0: they are equal
        coded = shifted.astype(np.float16) if self._float16 else shifted
        before = self._distinct.nodes
        new = self._distinct.add(coded, self._matrix())
        if new.any():
            self._view = None
            self._index.add(np.ascontiguousarray(shifted[new]))
        self.rows.append(labels)
        if self._metric == "cosine" and self._zero is None and len(zeros := np.flatnonzero(~vectors.any(axis=1))):
            self._zero = int(self._distinct.node_of[-len(labels) :][zeros[0]])
        if new.any():
            self._detector.extend(before, self._matrix())
        if self._finished:
            self._measure(self._detector.nodes_to_measure(before, self._distinct.nodes))

    def finish(self) -> None:
        self._view = None
        for vector in (self._storage.codes, self._index.hnsw.neighbors):
            _reserve(vector, vector.size())
        self._finish()

    def _finish(self) -> None:
        native.huge_pages(self._codes())
        native.huge_pages(self._links())
        self._finished = True
        self._measure(self._detector.first_nodes_to_measure(self._distinct.nodes))

    def _measure(self, nodes: Labels) -> None:
        """Measures the distances of these stored vectors to their tenth neighbours."""
        if self._metric == "dot" or not len(nodes) or self._distinct.nodes <= 2 * EF_DEFAULT:
            return
        vectors = self._matrix()[nodes].astype(np.float32)
        found = self._nearest_nodes(vectors, EF_DEFAULT, REFERENCE_HIT + 1, None)  # the nearest is the vector itself
        self._detector.measured(found.distances[:, REFERENCE_HIT])

    # --- searching --------------------------------------------------------------------------------------------------

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> tuple[Floats, Labels]:
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if k:
            pending = np.arange(len(queries))
            if not effort.exact:
                pending = self._answer_by_graph(queries, allowed, effort, scores, rows)
            if len(pending):
                scores[pending], rows[pending] = self._scan(queries[pending], k, allowed)
        return scores, self.rows.labels[rows]

    def _answer_by_graph(
        self, queries: Floats, allowed: Allowed, effort: Effort, scores: Floats, rows: Labels
    ) -> Labels:
        """Writes the answers of graph searches into scores and rows. Returns the places of the queries that need a
        scan."""
        k, nodes = rows.shape[1], self._distinct.nodes
        pending = np.arange(len(queries))
        ef = effort.ef
        wanted = max(ef or int(EF_DEFAULT * effort.factor), k, _FOUND_PER_ROW * k * self.rows.count // allowed.count)
        width = first = min(wanted, nodes)
        scan_us = brute_force.cost_us(allowed, self.rows.count)
        if ef is None and scan_us <= _EF_US * first:
            return pending
        cheap = scan_us <= _EF_US * _SCAN_SEARCHES * first
        mask = None if allowed.mask is None else self._distinct.mask(allowed.mask)
        points = self._points(queries)
        near = self._detector.near(points)
        while len(pending):
            witnesses = NearestNodes(near.nodes[pending], near.distances[pending])
            # With a mask all candidates are needed; else as many as detect a hard query.
            count = width if mask is not None else min(width, max(k + 1, CONTRAST_HIT))
            found = self._nearest_nodes(points[pending], width, count, None if width == first else witnesses)
            good = self._answer(queries[pending], pending, found, allowed.mask, mask, scores, rows)
            good &= ~self._detector.doubtful(found, witnesses, k, first=ef is None and width == first, cheap=cheap)
            pending = pending[~good]
            if width == nodes or scan_us <= _EF_US * max(_WIDER * width, _SCAN_SEARCHES * first):
                break
            width = min(_WIDER * width, nodes)
        return pending

    def _points(self, queries: Floats) -> Floats:
        """The queries in the space of the graph. An inner product ranks centred rows as it ranks the rows, so for dot
        queries are not centred."""
        assert self._centre is not None
        return queries if self._metric == "dot" else queries - self._centre

    def _nearest_nodes(self, points: Floats, width: int, count: int, entries: NearestNodes | None) -> NearestNodes:
        """The `count` nearest nodes, by graph searches with ef = `width`, from these entry points, or by default from
        that of the graph."""
        parameters = self._parameters.get(width)
        if parameters is None:
            parameters = self._parameters[width] = faiss().SearchParametersHNSW(efSearch=width)
        if entries is None:
            distances, nodes = self._index.search(points, count, params=parameters)
            return NearestNodes(nodes, distances)
        distances = np.empty((len(points), count), np.float32)
        nodes = np.empty((len(points), count), np.int64)
        starts = np.ascontiguousarray(entries.nodes, np.int32)
        start_distances = np.ascontiguousarray(entries.distances)
        self._index.hnsw.efSearch = width  # the number of candidates; the parameters say when to stop
        pointer = faiss().swig_ptr
        self._index.search_level_0(
            len(points), pointer(points), count, pointer(starts), pointer(start_distances), pointer(distances),
            pointer(nodes), starts.shape[1], _ALL_ENTRIES_AT_ONCE, parameters,
        )  # fmt: skip
        return NearestNodes(nodes, distances)

    def _answer(
        self, queries: Floats, pending: Labels, found: NearestNodes, row_mask: Bools | None, mask: Bools | None,
        scores: Floats, rows: Labels,
    ) -> Bools:  # fmt: skip
        """Writes the answers of the queries, which have these places in scores and rows, from the allowed found nodes.
        Returns which have k rows; for the others too few were found."""
        k = rows.shape[1]
        good = found.nodes[:, -1] >= 0
        if mask is None and self._zero is None and not self._distinct.has_duplicates and good.all():
            rows[pending] = found.nodes[:, :k]
            scores[pending] = self._scores(queries, found.nodes[:, :k])
            return good
        usable = found.nodes >= 0
        if mask is not None:
            usable &= mask[found.nodes]
        zero_allowed = self._zero is not None and (mask is None or bool(mask[self._zero]))
        if self._zero is not None:  # its L2 distance does not correspond to a cosine of 0
            usable &= found.nodes != self._zero
        if not self._distinct.has_duplicates:
            good &= np.count_nonzero(usable, axis=1) >= k
            picked = np.argsort(~usable[good], axis=1, kind="stable")[:, :k]
            nodes = its_rows = np.take_along_axis(found.nodes[good], picked, 1)
        else:
            nodes, its_rows = np.empty((len(pending), k), np.int64), np.empty((len(pending), k), np.int64)
            for place in np.flatnonzero(good):
                near = found.nodes[place][usable[place]]
                places, those = self._distinct.rows_of(near, k, row_mask)
                good[place] = len(those) == k
                if good[place]:
                    nodes[place], its_rows[place] = near[places], those
            nodes, its_rows = nodes[good], its_rows[good]
        answered = pending[good]
        if len(answered):
            rows[answered] = its_rows
            scores[answered] = self._scores(queries[good], nodes)
            if zero_allowed:
                good[good] = scores[answered].min(axis=1) >= 0
        return good

    def _scores(self, queries: Floats, nodes: Labels) -> Floats:
        """The scores of these nodes, shape (n, k), for each query."""
        vectors = self._matrix()[nodes]
        if self._metric == "l2":
            found: Floats = -np.square(vectors - self._points(queries)[:, None, :]).sum(axis=2)
            return found
        products: Floats = (vectors.astype(np.float32, copy=False) @ queries[:, :, None])[:, :, 0]
        return products + self._offsets(queries)

    def _offsets(self, queries: Floats) -> Floats:
        """The contribution of the centre to the inner products of each query, shape (n, 1)."""
        assert self._centre is not None
        offsets: Floats = (queries.astype(np.float64) @ self._centre.astype(np.float64)).astype(np.float32)
        return offsets[:, None]

    def _scan(self, queries: Floats, k: int, allowed: Allowed) -> tuple[Floats, Labels]:
        its = allowed
        if self._distinct.has_duplicates:
            mask = None if allowed.mask is None else self._distinct.mask(allowed.mask)
            its = Allowed(self._distinct.nodes if mask is None else int(np.count_nonzero(mask)), mask)
        its_k = min(k, its.count)
        if self._metric == "l2" or (self._metric == "cosine" and self._zero is None and not self._float16):
            # In a narrow cone, float32 inner products of vectors of length 1 differ by less than their rounding error.
            scores, nodes = brute_force.nearest(self._matrix(), self._points(queries), its_k, its, "l2")
            if self._metric == "cosine":
                scores = self._scores(queries, nodes)
        else:
            if self._float16:
                scores, nodes = self._scan_float16(queries, its_k, its)
            else:
                scores, nodes = brute_force.nearest(self._matrix(), queries, its_k, its, "ip")
            scores = scores + self._offsets(queries)
        if not self._distinct.has_duplicates:
            return scores, nodes
        all_scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        best = np.argsort(-scores, axis=1, kind="stable")
        for place, order in enumerate(best):
            places, rows[place] = self._distinct.rows_of(nodes[place][order], k, allowed.mask)
            all_scores[place] = scores[place][order][places]
        return all_scores, rows

    def _scan_float16(self, queries: Floats, k: int, allowed: Allowed) -> tuple[Floats, Labels]:
        """Scans by inner product: the L2 distance of a row of zeros, or of a rounded row, does not correspond to its
        cosine."""
        storage = self._storage
        storage.metric_type = faiss().METRIC_INNER_PRODUCT
        try:
            found: tuple[Floats, Labels] = storage.search(
                queries, k, params=faiss().SearchParameters(sel=allowed.selector)
            )
        finally:
            storage.metric_type = faiss().METRIC_L2
        return found

    def score(self, query: Floats, rows: Labels) -> Floats:
        found: Floats = self._scores(query[None], self._distinct.node_of[rows].astype(np.int64)[None])[0]
        return found

    def sample(self, places: Labels) -> Floats:
        assert self._centre is not None
        nodes = self._distinct.node_of[self.rows.alive.nonzero()[0][places]]
        found: Floats = self._matrix()[nodes].astype(np.float32) + self._centre
        return found

    def _codes(self) -> npt.NDArray[np.uint8]:
        """A view of faiss's bytes of the vectors; valid until the next `extend`."""
        codes = self._storage.codes
        found: npt.NDArray[np.uint8] = faiss().rev_swig_ptr(codes.data(), codes.size())
        return found

    def _links(self) -> npt.NDArray[np.int32]:
        """A view of faiss's links; valid until the next `extend`."""
        neighbors = self._index.hnsw.neighbors
        found: npt.NDArray[np.int32] = faiss().rev_swig_ptr(neighbors.data(), neighbors.size())
        return found

    def _matrix(self) -> npt.NDArray[Any]:
        """A view of the centred vectors of the nodes, shape (nodes, dimension); valid until the next `extend`."""
        if self._view is None:
            self._view = self._codes().view(np.float16 if self._float16 else np.float32).reshape(-1, self.dimension)
        return self._view

    # --- snapshots --------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:
        hnsw = self._index.hnsw
        assert self._centre is not None
        return {
            "labels": self.rows.labels,
            "nodes": self._distinct.node_of,
            "centre": self._centre,
            "codes": self._codes(),
            "levels": faiss().rev_swig_ptr(hnsw.levels.data(), hnsw.levels.size()),
            "offsets": faiss().rev_swig_ptr(hnsw.offsets.data(), hnsw.offsets.size()),
            "neighbors": self._links(),
            "entry": np.array([hnsw.entry_point, hnsw.max_level], np.int64),
        }

    @classmethod
    def restore(cls, spec: Spec, arrays: Mapping[str, npt.NDArray[Any]]) -> Hnsw:
        """Restores a graph from `arrays`. Arrays of a snapshot file are read directly into faiss's memory, large ones
        with spare capacity. Raises ValueError for arrays that do not form a valid graph: they are checked, in spite of
        the checksums, before native code uses them."""
        made = cls(spec)
        hnsw, storage = made._index.hnsw, made._storage
        if {name: snapshot_file.dtype_of(arrays, name) for name in arrays} != DTYPES:
            raise ValueError("it does not have the arrays of a graph")
        held = {name: arrays[name] for name in ("labels", "nodes", "centre", "entry")}
        for vector, name in (
            (storage.codes, "codes"), (hnsw.neighbors, "neighbors"), (hnsw.levels, "levels"), (hnsw.offsets, "offsets"),
        ):  # fmt: skip
            size = snapshot_file.count_of(arrays, name)
            if name in ("codes", "neighbors"):
                _reserve(vector, size)
            else:
                vector.resize(size)
            held[name] = faiss().rev_swig_ptr(vector.data(), size) if size else np.empty(0, DTYPES[name])
            snapshot_file.read_into(arrays, name, held[name])
        counts = faiss().vector_to_array(hnsw.cum_nneighbor_per_level)
        check(held, counts, spec.dimension, 2 if made._float16 else 4)
        storage.ntotal = made._index.ntotal = len(held["levels"])
        hnsw.entry_point, hnsw.max_level = (int(each) for each in held["entry"])
        made._view = None
        made._centre = held["centre"]
        made._distinct.restore(held["nodes"], made._matrix())
        if spec.metric == "cosine":
            zeros = np.float32(0) - made._centre
            made._zero = made._distinct.find(zeros.astype(made._matrix().dtype), made._matrix())
        made.rows.append(held["labels"])
        made._detector.extend(0, made._matrix())
        made._finish()
        return made


def _reserve(vector: Any, size: int) -> None:
    """Resizes a faiss vector, with spare capacity, while the structure is built and no search waits for it: growing it
    later on the strand would copy all of it, 0.2 s for 200,000 x 256. Unused capacity takes no memory."""
    vector.resize(size + int(_SPARE_SHARE * size))
    spare = faiss().rev_swig_ptr(vector.data(), vector.size())[size:]
    vector.resize(size)  # which keeps the capacity
    native.discard_pages(spare)


def _check(metric: str, parameters: Mapping[str, Any]) -> None:
    if parameters["vectors"] == "float16" and metric != "cosine":
        raise VecError(
            Code.UNSUPPORTED,
            f"the index 'hnsw': vectors cannot be float16 with the metric {metric!r}, because vectors of any length may"
            " exceed its range",
            "use --vectors float32, or the metric cosine",
            field="vectors",
        )


KIND: Final = IndexKind(
    "a hierarchical navigable small world graph; approximate",
    Hnsw,
    Hnsw.restore,
    rows_min=8_192,
    format=2,
    parameters={
        "m": Parameter(24, "links per vector", 4, 128),
        "ef_construction": Parameter(128, "candidates considered when a vector is linked", 16, 2_000),
        "vectors": Parameter("float32", "type in which the graph stores vectors", choices=("float32", "float16")),
    },
    check=_check,
)
