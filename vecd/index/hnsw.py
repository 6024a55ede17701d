"""HNSW: a hierarchical navigable small world graph (Malkov and Yashunin, 2016, arXiv:1603.09320), faiss's.

faiss has no removal: dead rows stay in the graph as way marks and are masked as results. A filter is a mask too; the
fewer rows it lets through, the wider the search, by their share to the power of -0.4: recall then stays about where it
is (200,000 text vectors, ef 96: 0.980 unfiltered, 0.987 at a half, 0.981 at a tenth, 0.973 at a twentieth; the square
root took a quarter longer for 0.981 there). Where an exact scan of the rows that may be found is cheaper than that, it
is made instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernels, native
from .native import faiss
from .rows import Allowed, Floats, Labels, Rows
from .structure import Effort, Spec

#: Recall@10 of 0.977 on 200,000 text vectors with M 24 and ef_construction 128, 0.969 to 0.974 with 80 (a graph is
#: different each time it is built on several cores); M 16 needs 128 for that (tests/bench/hnsw.py).
EF_DEFAULT = 96

#: How many more rows, by share, a new graph has room for at least; mostly it becomes as many as it has.
_ROOM_SHARE = 0.25

#: See above.
_WIDENING = 0.4

#: Microseconds that a candidate of the walk costs on one core; against kernels.cost_us it decides: walk or scan.
_EF_US = 3.4


class Hnsw:
    """A graph of `m` links a vector over vectors held as float32 or float16."""

    grows = True

    def __init__(self, spec: Spec) -> None:

        self.rows = Rows()
        self.dimension = spec.dimension
        self._space = spec.space
        self._unfiltered: dict[int, Any] = {}  # faiss's parameters by width; making them takes a while
        self._half = spec.parameters["vectors"] == "float16"
        metric = faiss().METRIC_L2 if spec.space == "l2" else faiss().METRIC_INNER_PRODUCT
        self._index: Any
        if self._half:
            self._index = faiss().IndexHNSWSQ(
                spec.dimension, faiss().ScalarQuantizer.QT_fp16, spec.parameters["m"], metric
            )
            self._index.storage.is_trained = self._index.is_trained = True  # there is nothing to learn for float16
        else:
            self._index = faiss().IndexHNSWFlat(spec.dimension, spec.parameters["m"], metric)
        self._index.hnsw.efConstruction = spec.parameters["ef_construction"]

    @property
    def memory_bytes(self) -> int:
        hnsw = self._index.hnsw
        links = 4 * hnsw.neighbors.size() + 8 * hnsw.offsets.size() + 4 * hnsw.levels.size()
        return int(links + self._codes().nbytes + self.rows.memory_bytes)

    @property
    def worn(self) -> bool:
        return False

    def train(self, sample: Floats) -> None:
        pass

    def extend(self, labels: Labels, vectors: Floats) -> None:
        self._index.add(np.ascontiguousarray(vectors, np.float32))
        self.rows.append(labels)

    def finish(self) -> None:
        self._make_room()
        native.huge_pages(self._codes())
        native.huge_pages(self._links())

    def _make_room(self) -> None:
        """Room for more rows, taken while the structure is made and nobody waits for it: later, growing would copy all
        of it on the strand, 0.2 s for 200,000 x 256. What no row has touched takes no memory."""
        for vector in (faiss().downcast_index(self._index.storage).codes, self._index.hnsw.neighbors):
            size = vector.size()
            vector.resize(size + int(_ROOM_SHARE * size))
            room = faiss().rev_swig_ptr(vector.data(), vector.size())[size:]
            vector.resize(size)  # which keeps the room
            native.forget(room)

    def search(self, queries: Floats, k: int, allowed: Allowed, effort: Effort) -> tuple[Floats, Labels]:
        if not k:
            return np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        width = self._width(k, allowed, effort)
        if effort.exact or width is None:
            scores, rows = self._scan(queries, k, allowed)
        else:
            scores, rows = self._walk(queries, k, allowed, width)
            if rows.min() < 0:  # the walk met too few that may be found
                missed = np.flatnonzero((rows < 0).any(axis=1))
                scores[missed], rows[missed] = self._scan(queries[missed], k, allowed)
        return scores, self.rows.labels[rows]

    def _width(self, k: int, allowed: Allowed, effort: Effort) -> int | None:
        """How many candidates the walk keeps; None if a scan is cheaper, and no `ef` was asked for."""
        count = self.rows.count
        width = max(effort.ef or EF_DEFAULT * effort.factor, k) * (count / allowed.count) ** _WIDENING
        scan = effort.ef is None and kernels.cost_us(allowed, count) <= _EF_US * width
        return None if scan else math.ceil(width)

    def _walk(self, queries: Floats, k: int, allowed: Allowed, width: int) -> tuple[Floats, Labels]:

        if allowed.mask is not None:
            parameters = faiss().SearchParametersHNSW(efSearch=width, sel=allowed.selector)
        elif (parameters := self._unfiltered.get(width)) is None:
            parameters = self._unfiltered[width] = faiss().SearchParametersHNSW(efSearch=width)
        scores, rows = self._index.search(queries, k, params=parameters)
        return (-scores if self._space == "l2" else scores), rows

    def _scan(self, queries: Floats, k: int, allowed: Allowed) -> tuple[Floats, Labels]:

        if not self._half:
            return kernels.nearest(self._matrix(), queries, k, allowed, self._space)
        parameters = faiss().SearchParameters(sel=allowed.selector)
        scores, rows = self._index.storage.search(queries, k, params=parameters)
        return (-scores if self._space == "l2" else scores), rows

    def score(self, query: Floats, rows: Labels) -> Floats:
        return kernels.scores(self._matrix(), query, rows, self._space)

    def sample(self, places: Labels) -> Floats:
        found: Floats = self._matrix()[self.rows.alive.nonzero()[0][places]].astype(np.float32)
        return found

    def _codes(self) -> npt.NDArray[np.uint8]:
        """faiss's own bytes of the vectors; valid until the next `extend`."""

        codes = faiss().downcast_index(self._index.storage).codes
        found: npt.NDArray[np.uint8] = faiss().rev_swig_ptr(codes.data(), codes.size())
        return found

    def _links(self) -> npt.NDArray[np.int32]:
        """faiss's own links; valid until the next `extend`."""
        neighbors = self._index.hnsw.neighbors
        found: npt.NDArray[np.int32] = faiss().rev_swig_ptr(neighbors.data(), neighbors.size())
        return found

    def _matrix(self) -> npt.NDArray[Any]:
        return self._codes().view(np.float16 if self._half else np.float32).reshape(self.rows.count, self.dimension)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, npt.NDArray[Any]] | None:

        hnsw = self._index.hnsw
        return {
            "labels": self.rows.labels,
            "codes": self._codes(),
            "levels": faiss().rev_swig_ptr(hnsw.levels.data(), hnsw.levels.size()),
            "offsets": faiss().rev_swig_ptr(hnsw.offsets.data(), hnsw.offsets.size()),
            "neighbors": self._links(),
            "entry": np.array([hnsw.entry_point, hnsw.max_level], np.int64),
        }

    @classmethod
    def restore(cls, spec: Spec, arrays: dict[str, npt.NDArray[Any]]) -> Hnsw:
        """From what `arrays` gave. Raises ValueError for arrays that do not make a graph: nothing unchecked gets to
        native code, whatever the checksums said."""

        made = cls(spec)
        hnsw = made._index.hnsw
        counts = faiss().vector_to_array(hnsw.cum_nneighbor_per_level)
        _check_graph(arrays, counts, spec.dimension * (2 if made._half else 4))
        count = len(arrays["labels"])
        storage = faiss().downcast_index(made._index.storage)
        for vector, name in (
            (storage.codes, "codes"), (hnsw.levels, "levels"), (hnsw.offsets, "offsets"),
            (hnsw.neighbors, "neighbors"),
        ):  # fmt: skip
            vector.resize(len(arrays[name]))
            faiss().rev_swig_ptr(vector.data(), len(arrays[name]))[:] = arrays[name]
        storage.ntotal = made._index.ntotal = count
        hnsw.entry_point, hnsw.max_level = (int(each) for each in arrays["entry"])
        made.rows.append(arrays["labels"])
        made.finish()
        return made


def _check_graph(arrays: dict[str, npt.NDArray[Any]], links_below: npt.NDArray[Any], code_bytes: int) -> None:
    """`links_below`: by level, how many links a vector has on all levels below it."""
    dtypes = {
        "labels": np.int64, "codes": np.uint8, "levels": np.int32, "offsets": np.uint64, "neighbors": np.int32,
        "entry": np.int64,
    }  # fmt: skip
    if arrays.keys() != dtypes.keys() or any(arrays[name].dtype != dtype for name, dtype in dtypes.items()):
        raise ValueError("it does not hold the arrays of a graph")
    labels, levels, offsets, neighbors = (arrays[name] for name in ("labels", "levels", "offsets", "neighbors"))
    count = len(labels)
    if not count or len(levels) != count or len(offsets) != count + 1 or len(arrays["entry"]) != 2:
        raise ValueError("its arrays do not have the same number of rows")
    entry, level = arrays["entry"].tolist()
    sound = (
        len(arrays["codes"]) == count * code_bytes
        and labels[0] >= 0
        and (np.diff(labels) > 0).all()
        and levels.min() >= 1
        and levels.max() < len(links_below)
        and offsets[0] == 0
        and (np.diff(offsets.astype(np.int64)) == links_below[levels]).all()
        and offsets[-1] == len(neighbors)
        and neighbors.min(initial=-1) >= -1
        and neighbors.max(initial=-1) < count
        and 0 <= entry < count
        and level == levels.max() - 1 == levels[entry] - 1
    )
    if not sound:
        raise ValueError("its arrays contradict each other")
    # A link on a level leads to a vector that has that level: the walk reads there.
    for at in range(1, int(level) + 1):
        here = (levels > at).nonzero()[0]
        first, last = int(links_below[at]), int(links_below[at + 1])
        linked = neighbors[offsets[here].astype(np.int64)[:, None] + np.arange(first, last)]
        if (levels[linked[linked >= 0]] <= at).any():
            raise ValueError("a link leads to a level that is not there")
