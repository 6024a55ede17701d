"""HNSW: a hierarchical navigable small world graph (Malkov and Yashunin, 2016, arXiv:1603.09320), faiss's.

What keeps its answers right on data that is not like a benchmark's:

- *Equal vectors.* Each distinct vector is one node with a list of rows (distinct_vectors.py). Equal vectors would link
  to each other only, and a walk that comes among them would not get out.
- *Masked rows.* faiss has no removal: deleted rows stay in the graph, and a filter is a mask too. The walk is made as
  if there was no mask and returns all `ef` nodes nearest to the query. If k allowed rows are among them, these are the
  nearest allowed rows. If not, because the query lies where rows are masked, the walk is repeated wider, and where an
  exact scan costs no more than that, the scan is made.
- *Hard queries.* A walk is repeated wider, from other entry points, or replaced by a scan, if its answer is doubtful
  (hard_queries.py).
- *Cones.* Embeddings often have a common mean and a small spread. Vectors of length 1 are linked by their L2 distance,
  which ranks as the cosine does and is computed from differences: an inner product rounds the differences away. For
  float16, and for the metric dot, the mean of the first vectors is subtracted from what is stored. This changes no
  ranking; float16 then rounds the spread and not the mean, and inner products link by the spread.

Scores are computed from the vectors that are held, and not taken from the walk.
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
from .hard_queries import CONTRASTED, JUDGED, HardQueryDetector, NearestNodes

#: Candidates that a walk keeps; tests/bench/hnsw.py measures its recall and time.
EF_DEFAULT = 96
#: How much wider each next walk is.
_WIDER = 4
#: Under a mask, the allowed nodes that a walk should meet, for each row that is wanted: at the far end of what it
#: keeps, a walk misses more.
_MET_PER_ROW = 2
#: Microseconds that a candidate of the walk costs on one core; against brute_force.cost_us it decides: walk or scan.
_EF_US = 3.4
#: A doubtful answer is replaced by a scan that costs at most so many first walks; otherwise by a wider walk.
_SCAN_WALKS = 6

#: faiss's search_type: one walk from all entries.
_ALL_ENTRIES_AT_ONCE = 2

#: How many more rows, by share, a new graph has room for at least; mostly it becomes as many as it has.
_ROOM_SHARE = 0.25


class Hnsw:
    """A graph of `m` links a node over vectors held as float32 or float16."""

    grows = True

    def __init__(self, spec: Spec) -> None:

        self.rows = Rows()
        self.dimension = spec.dimension
        self._metric = spec.metric
        self._copies = DistinctVectors()
        self._parameters: dict[int, Any] = {}  # faiss's by width; making them takes a while
        self._half = spec.parameters["vectors"] == "float16"
        #: What is subtracted from all vectors; None until the first rows are here.
        self._centre: Floats | None = None
        self._zero: int | None = None  # for cosine: the node of the rows of zeros
        self._doubt = HardQueryDetector(spec.dimension, spec.metric)
        self._finished = False
        self._view: npt.NDArray[Any] | None = None  # of faiss's memory, as long as it stays where it is
        metric = faiss().METRIC_INNER_PRODUCT if spec.metric == "dot" else faiss().METRIC_L2
        self._index: Any
        if self._half:
            self._index = faiss().IndexHNSWSQ(
                spec.dimension, faiss().ScalarQuantizer.QT_fp16, spec.parameters["m"], metric
            )
            self._index.storage.is_trained = self._index.is_trained = True  # there is nothing to learn for float16
        else:
            self._index = faiss().IndexHNSWFlat(spec.dimension, spec.parameters["m"], metric)
        self._storage: Any = faiss().downcast_index(self._index.storage)
        self._index.hnsw.efConstruction = spec.parameters["ef_construction"]

    @property
    def memory_bytes(self) -> int:
        hnsw = self._index.hnsw
        links = 4 * hnsw.neighbors.size() + 8 * hnsw.offsets.size() + 4 * hnsw.levels.size()
        beside = self._copies.memory_bytes + self._doubt.memory_bytes + self.rows.memory_bytes
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
            centred = self._half or self._metric == "dot"
            mean = vectors.mean(axis=0, dtype=np.float64) if centred else np.zeros(self.dimension)
            self._centre = mean.astype(np.float32)
        shifted = vectors - self._centre + np.float32(0)  # and -0.0 becomes 0.0: they are equal
        coded = shifted.astype(np.float16) if self._half else shifted
        before = self._copies.nodes
        new = self._copies.add(coded, self._matrix())
        if new.any():
            self._view = None
            self._index.add(np.ascontiguousarray(shifted[new]))
        self.rows.append(labels)
        if self._metric == "cosine" and self._zero is None and len(zeros := np.flatnonzero(~vectors.any(axis=1))):
            self._zero = int(self._copies.node_of[-len(labels) :][zeros[0]])
        if new.any():
            self._doubt.extend(before, self._matrix())
        if self._finished:
            self._measure(self._doubt.nodes_to_measure(before, self._copies.nodes))

    def finish(self) -> None:
        self._view = None
        for vector in (self._storage.codes, self._index.hnsw.neighbors):
            _make_room(vector, vector.size())
        self._finish()

    def _finish(self) -> None:
        native.huge_pages(self._codes())
        native.huge_pages(self._links())
        self._finished = True
        self._measure(self._doubt.first_nodes_to_measure(self._copies.nodes))

    def _measure(self, nodes: Labels) -> None:
        """Notes how far these stored vectors are from their tenth neighbours."""
        if self._metric == "dot" or not len(nodes) or self._copies.nodes <= 2 * EF_DEFAULT:
            return
        vectors = self._matrix()[nodes].astype(np.float32)
        found = self._walked(vectors, EF_DEFAULT, JUDGED + 1, None)  # the nearest is the vector itself
        self._doubt.measured(found.distances[:, JUDGED])

    # --- searching --------------------------------------------------------------------------------------------------

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> tuple[Floats, Labels]:
        scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if k:
            pending = np.arange(len(queries))
            if not effort.exact:
                pending = self._walk(queries, allowed, effort, scores, rows)
            if len(pending):
                scores[pending], rows[pending] = self._scan(queries[pending], k, allowed)
        return scores, self.rows.labels[rows]

    def _walk(self, queries: Floats, allowed: Allowed, effort: Effort, scores: Floats, rows: Labels) -> Labels:
        """Writes the answers of walks into scores and rows. Returns the places of the queries that are left to a
        scan."""
        k, nodes = rows.shape[1], self._copies.nodes
        pending = np.arange(len(queries))
        ef = effort.ef
        wanted = max(ef or int(EF_DEFAULT * effort.factor), k, _MET_PER_ROW * k * self.rows.count // allowed.count)
        width = first = min(wanted, nodes)
        scan_us = brute_force.cost_us(allowed, self.rows.count)
        if ef is None and scan_us <= _EF_US * first:
            return pending
        cheap = scan_us <= _EF_US * _SCAN_WALKS * first
        mask = None if allowed.mask is None else self._copies.mask(allowed.mask)
        points = self._points(queries)
        near = self._doubt.near(points)
        while len(pending):
            its_near = NearestNodes(near.nodes[pending], near.distances[pending])
            # Under a mask all that the walk keeps is looked at, and else as much as tells a hard query.
            count = width if mask is not None else min(width, max(k + 1, CONTRASTED))
            found = self._walked(points[pending], width, count, None if width == first else its_near)
            good = self._answer(queries[pending], pending, found, allowed.mask, mask, scores, rows)
            good &= ~self._doubt.doubtful(found, its_near, k, first=ef is None and width == first, cheap=cheap)
            pending = pending[~good]
            if width == nodes or scan_us <= _EF_US * max(_WIDER * width, _SCAN_WALKS * first):
                break
            width = min(_WIDER * width, nodes)
        return pending

    def _points(self, queries: Floats) -> Floats:
        """The queries as the graph compares them. An inner product ranks centred rows as it ranks the rows themselves,
        so that for dot the query stays where it is."""
        assert self._centre is not None
        return queries if self._metric == "dot" else queries - self._centre

    def _walked(self, points: Floats, width: int, count: int, entries: NearestNodes | None) -> NearestNodes:
        """The nearest nodes, `count` of them, by walks of this width; from these entries, if there are any, and else
        from the graph's own."""
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
        self._index.hnsw.efSearch = width  # how many candidates are kept; the parameters say when to stop
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
        """Writes the answers of the queries, which have these places in scores and rows, from the allowed nodes that
        were found. Returns which have k rows; for the others the walk met too few."""
        k = rows.shape[1]
        good = found.nodes[:, -1] >= 0
        if mask is None and self._zero is None and not self._copies.any and good.all():
            rows[pending] = found.nodes[:, :k]
            scores[pending] = self._scores(queries, found.nodes[:, :k])
            return good
        usable = found.nodes >= 0
        if mask is not None:
            usable &= mask[found.nodes]
        zero_allowed = self._zero is not None and (mask is None or bool(mask[self._zero]))
        if self._zero is not None:  # its L2 distance is not that of a cosine of 0
            usable &= found.nodes != self._zero
        if not self._copies.any:
            good &= np.count_nonzero(usable, axis=1) >= k
            picked = np.argsort(~usable[good], axis=1, kind="stable")[:, :k]
            nodes = its_rows = np.take_along_axis(found.nodes[good], picked, 1)
        else:
            nodes, its_rows = np.empty((len(pending), k), np.int64), np.empty((len(pending), k), np.int64)
            for place in np.flatnonzero(good):
                near = found.nodes[place][usable[place]]
                places, those = self._copies.rows_of(near, k, row_mask)
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
        """Of these nodes, shape (n, k), for each query."""
        vectors = self._matrix()[nodes]
        if self._metric == "l2":
            found: Floats = -np.square(vectors - self._points(queries)[:, None, :]).sum(axis=2)
            return found
        products: Floats = (vectors.astype(np.float32, copy=False) @ queries[:, :, None])[:, :, 0]
        return products + self._offsets(queries)

    def _offsets(self, queries: Floats) -> Floats:
        """What the centre adds to the inner products of each query, shape (n, 1)."""
        assert self._centre is not None
        offsets: Floats = (queries.astype(np.float64) @ self._centre.astype(np.float64)).astype(np.float32)
        return offsets[:, None]

    def _scan(self, queries: Floats, k: int, allowed: Allowed) -> tuple[Floats, Labels]:
        its = allowed
        if self._copies.any:
            mask = None if allowed.mask is None else self._copies.mask(allowed.mask)
            its = Allowed(self._copies.nodes if mask is None else int(np.count_nonzero(mask)), mask)
        its_k = min(k, its.count)
        if self._metric == "l2" or (self._metric == "cosine" and self._zero is None and not self._half):
            # In a narrow cone, float32 inner products of vectors of length 1 differ by less than their rounding.
            scores, nodes = brute_force.nearest(self._matrix(), self._points(queries), its_k, its, "l2")
            if self._metric == "cosine":
                scores = self._scores(queries, nodes)
        else:
            if self._half:
                scores, nodes = self._scan_half(queries, its_k, its)
            else:
                scores, nodes = brute_force.nearest(self._matrix(), queries, its_k, its, "ip")
            scores = scores + self._offsets(queries)
        if not self._copies.any:
            return scores, nodes
        all_scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        best = np.argsort(-scores, axis=1, kind="stable")
        for place, order in enumerate(best):
            places, rows[place] = self._copies.rows_of(nodes[place][order], k, allowed.mask)
            all_scores[place] = scores[place][order][places]
        return all_scores, rows

    def _scan_half(self, queries: Floats, k: int, allowed: Allowed) -> tuple[Floats, Labels]:
        """By inner product: the L2 distance of a row of zeros, or of one that float16 rounds, is not that of its
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
        found: Floats = self._scores(query[None], self._copies.node_of[rows].astype(np.int64)[None])[0]
        return found

    def sample(self, places: Labels) -> Floats:
        assert self._centre is not None
        nodes = self._copies.node_of[self.rows.alive.nonzero()[0][places]]
        found: Floats = self._matrix()[nodes].astype(np.float32) + self._centre
        return found

    def _codes(self) -> npt.NDArray[np.uint8]:
        """faiss's own bytes of the vectors; valid until the next `extend`."""

        codes = self._storage.codes
        found: npt.NDArray[np.uint8] = faiss().rev_swig_ptr(codes.data(), codes.size())
        return found

    def _links(self) -> npt.NDArray[np.int32]:
        """faiss's own links; valid until the next `extend`."""
        neighbors = self._index.hnsw.neighbors
        found: npt.NDArray[np.int32] = faiss().rev_swig_ptr(neighbors.data(), neighbors.size())
        return found

    def _matrix(self) -> npt.NDArray[Any]:
        """The vectors of the nodes, less the centre, shape (nodes, dimension); valid until the next `extend`."""
        if self._view is None:
            self._view = self._codes().view(np.float16 if self._half else np.float32).reshape(-1, self.dimension)
        return self._view

    # --- snapshots --------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:

        hnsw = self._index.hnsw
        assert self._centre is not None
        return {
            "labels": self.rows.labels,
            "nodes": self._copies.node_of,
            "centre": self._centre,
            "codes": self._codes(),
            "levels": faiss().rev_swig_ptr(hnsw.levels.data(), hnsw.levels.size()),
            "offsets": faiss().rev_swig_ptr(hnsw.offsets.data(), hnsw.offsets.size()),
            "neighbors": self._links(),
            "entry": np.array([hnsw.entry_point, hnsw.max_level], np.int64),
        }

    @classmethod
    def restore(cls, spec: Spec, arrays: Mapping[str, npt.NDArray[Any]]) -> Hnsw:
        """From what `arrays` gave. Those of a snapshot's file are read straight into faiss's memory, the large ones
        with room for more rows. Raises ValueError for arrays that do not make a graph: native code works on nothing
        unchecked, whatever the checksums said."""

        made = cls(spec)
        hnsw, storage = made._index.hnsw, made._storage
        if {name: snapshot_file.dtype_of(arrays, name) for name in arrays} != DTYPES:
            raise ValueError("it does not hold the arrays of a graph")
        held = {name: arrays[name] for name in ("labels", "nodes", "centre", "entry")}
        for vector, name in (
            (storage.codes, "codes"), (hnsw.neighbors, "neighbors"), (hnsw.levels, "levels"), (hnsw.offsets, "offsets"),
        ):  # fmt: skip
            size = snapshot_file.count_of(arrays, name)
            if name in ("codes", "neighbors"):
                _make_room(vector, size)
            else:
                vector.resize(size)
            held[name] = faiss().rev_swig_ptr(vector.data(), size) if size else np.empty(0, DTYPES[name])
            snapshot_file.read_into(arrays, name, held[name])
        counts = faiss().vector_to_array(hnsw.cum_nneighbor_per_level)
        check(held, counts, spec.dimension, 2 if made._half else 4)
        storage.ntotal = made._index.ntotal = len(held["levels"])
        hnsw.entry_point, hnsw.max_level = (int(each) for each in held["entry"])
        made._view = None
        made._centre = held["centre"]
        made._copies.restore(held["nodes"], made._matrix())
        if spec.metric == "cosine":
            zeros = np.float32(0) - made._centre
            made._zero = made._copies.find(zeros.astype(made._matrix().dtype), made._matrix())
        made.rows.append(held["labels"])
        made._doubt.extend(0, made._matrix())
        made._finish()
        return made


def _make_room(vector: Any, size: int) -> None:
    """Gives a vector of faiss's that size, and room for more rows, while the structure is made and nobody waits for it:
    later, growing would copy all of it on the strand, 0.2 s for 200,000 x 256. What no row has touched takes no
    memory."""
    vector.resize(size + int(_ROOM_SHARE * size))
    room = faiss().rev_swig_ptr(vector.data(), vector.size())[size:]
    vector.resize(size)  # which keeps the room
    native.forget(room)


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
    "a graph that is walked towards the query; approximate",
    Hnsw,
    Hnsw.restore,
    rows_min=8_192,
    format=2,
    parameters={
        "m": Parameter(24, "links of a vector", 4, 128),
        "ef_construction": Parameter(128, "candidates looked at when a vector is linked", 16, 2_000),
        "vectors": Parameter("float32", "how vectors are held in the graph", choices=("float32", "float16")),
    },
    check=_check,
)
