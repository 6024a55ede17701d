"""A fake store for tests of indexes: vectors in a dict, whose writes are sent to a LiveIndex.

Expected results are computed by brute force in float64, from the definition of each metric.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecd import limits
from vecd.errors import VecError
from vecd.index import METRICS, kinds
from vecd.index.live_index import LiveIndex
from vecd.index.policy import Tuning
from vecd.index.pools import Pools, make_pools
from vecd.index.requests import SearchOptions, Write
from vecd.index.rows import Bools, Floats, Labels, Selection
from vecd.index.source import Rebuilt, Stored, StoredText
from vecd.index.structure import Spec

#: Timeout of all waits; far more than any needs.
WAIT_S: Final = 60.0

#: The tested configurations: name -> index kind and parameters.
KINDS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "hnsw float32": ("hnsw", {"m": 4, "ef_construction": 16}),
    "hnsw float16": ("hnsw", {"m": 4, "ef_construction": 16, "vectors": "float16"}),
    "pq": ("pq", {}),
    "pq 1 bit": ("pq", {"bits": 1}),
    "flat": ("flat", {}),
    "lsh": ("lsh", {"bits": 64}),
    "kdtree": ("kdtree", {"leaf_size": 2}),
}

#: Unsupported combinations: a k-d tree needs a distance, and float16 is for vectors of norm 1 only.
REFUSED: Final = {("kdtree", "dot"), ("hnsw float16", "dot"), ("hnsw float16", "l2")}
COMBINATIONS: Final = [(name, metric) for name in KINDS for metric in METRICS if (name, metric) not in REFUSED]

Answer = tuple[Floats, Labels]


def spec(name: str, metric: str, dimension: int, **parameters: Any) -> Spec:
    """The Spec of a configuration in `KINDS`; `parameters` override its own."""
    kind, its_parameters = KINDS[name]
    return Spec(dimension, metric, kind, kinds.checked(kind, metric, {**its_parameters, **parameters}))


class Gate:
    """A callable that reports that it is reached, and blocks until the gate is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.open.wait(WAIT_S)

    def wait(self) -> None:
        assert self.reached.wait(WAIT_S)


class _State:
    """The vectors as of one seq."""

    def __init__(self, source: MemorySource, seq: int, vectors: dict[int, Floats]) -> None:
        self._source = source
        self._vectors = vectors
        self.seq = seq
        self.generation = source.generation
        self.dimension = None
        self.labels: Labels = np.fromiter(vectors, np.int64, len(vectors))  # assigned in order, so they ascend
        self.firsts = self.labels  # every document has one chunk

    def pages(self, labels: Labels) -> Iterator[tuple[Labels, Floats]]:
        for start in range(0, len(labels), self._source.page_rows):
            self._source.before_page()
            self._source.pages_read += 1
            page = labels[start : start + self._source.page_rows]
            vectors = np.stack([self._vectors[label] for label in page.tolist()])
            vectors.flags.writeable = False  # as those from a database
            yield page, vectors


class MemorySource:
    """A store of one library: the current vectors by label, a seq, and the reports of rebuilds."""

    def __init__(self, its_spec: Spec, path: Path | None = None, page_rows: int = 4_096) -> None:
        self.spec = its_spec
        self.path = path
        self.page_rows = page_rows
        self.identity: dict[str, Any] = {"library": 1}
        self.text_path: Path | None = None
        self.text_identity: dict[str, Any] = {}
        self.vectors: dict[int, Floats] = {}
        self.seq = 0
        self.last_label = 0
        self.generation = 0
        self.reports: list[Rebuilt] = []
        self.promise = limits.RECALL
        self.recalls: list[dict[str, Any]] = []
        self.before_page: Callable[[], None] = lambda: None
        self.reads = self.pages_read = 0
        self._lock = threading.Lock()

    def commit(self, vectors: Floats | None = None, removed: Iterable[int] = ()) -> Write:
        """Adds vectors under new labels, and removes others; returns the Write for a LiveIndex."""
        rows = np.empty((0, self.spec.dimension), np.float32) if vectors is None else vectors
        gone = list(removed)
        with self._lock:
            labels = np.arange(len(rows), dtype=np.int64) + self.last_label + 1
            for label in gone:
                del self.vectors[label]
            self.vectors.update(zip(labels.tolist(), rows, strict=True))
            self.last_label += len(rows)
            self.seq += 1
            return Write(self.seq, labels, rows, gone)

    @contextmanager
    def read(self) -> Iterator[Stored]:
        with self._lock:
            state = _State(self, self.seq, dict(self.vectors))
            self.reads += 1
        yield state

    @contextmanager
    def read_text(self) -> Iterator[StoredText]:
        raise AssertionError("these tests have no full-text searches")
        yield

    def rebuilt(self, report: Rebuilt) -> None:
        self.reports.append(report)
        self.spec = report.spec

    def recall_changed(self, report: dict[str, Any]) -> None:
        self.recalls.append(report)


class Driven:
    """A LiveIndex over a source. A write is committed to the source first, as in the daemon."""

    def __init__(
        self,
        source: MemorySource,
        tuning: Tuning | None = None,
        pools: Pools | None = None,
        its_spec: Spec | None = None,
    ) -> None:
        self.source = source
        self.failed: list[LiveIndex] = []
        self._pools = pools or make_pools()
        self._owns_pools = pools is None
        self.live = LiveIndex(its_spec or source.spec, self._pools, source, self.failed.append, tuning)

    def write(self, vectors: npt.ArrayLike | None = None, removed: Iterable[int] = ()) -> list[int]:
        """Writes vectors and removals; returns the labels of the vectors."""
        rows = None if vectors is None else np.array(vectors, np.float32)
        if rows is not None:
            rows.flags.writeable = False
        write = self.source.commit(rows, removed)
        self.live.write(write)
        labels: list[int] = write.labels.tolist()
        return labels

    def search(self, query: npt.ArrayLike, k: int, *, here: bool = False, **options: Any) -> Answer:
        """Searches, and waits. `here`: this thread takes the index's turn, if it is free."""
        if here:
            found = self.live.search(query, SearchOptions(k, **options), wake=False)
            self.live.turn()
            return found.result(WAIT_S)
        return self.live.search(query, SearchOptions(k, **options)).result(WAIT_S)

    def labels(self, *, here: bool = False) -> set[int]:
        """The labels of all vectors in the index."""
        return set(self.search(np.zeros(self.source.spec.dimension), 1_000_000, here=here)[1].tolist())

    def together(self, searches: Sequence[tuple[npt.ArrayLike, SearchOptions]]) -> list[Answer]:
        """Searches that one turn answers: they are queued while another search blocks the index."""
        gate = Gate()

        def hold() -> Selection:
            gate()
            raise VecError("held", "this search only blocks the index")

        holding = self.live.search(np.zeros(self.source.spec.dimension), SearchOptions(1, select=hold))
        gate.wait()
        futures = [self.live.search(query, options) for query, options in searches]
        gate.open.set()
        assert isinstance(holding.exception(WAIT_S), VecError)
        return [future.result(WAIT_S) for future in futures]

    def settle(self) -> dict[str, Any]:
        """Waits until all maintenance is done; returns the index's description."""
        self.live.settle().result(WAIT_S)
        return self.live.describe()

    def stop(self, *, save: bool = False) -> None:
        """Stops like the daemon; without `save`, like a crash."""
        self.live.close()
        if self._owns_pools:
            self._pools.close()
            if save:
                self.live.save()


class Filter:
    """A Selection of numbered documents by a mask."""

    def __init__(self, basis: object, documents: Mapping[int, int], mask: Bools, last_label: int) -> None:
        self.basis = basis
        self.mask: Bools = np.append(mask, False)
        self.last_label = last_label
        self.documents = len(mask)
        self._documents = documents

    def numbers(self, labels: Labels) -> npt.NDArray[np.int32]:
        assert (np.diff(labels) > 0).all()
        assert not len(labels) or labels[-1] <= self.last_label
        return np.array([self._documents.get(label, -1) for label in labels.tolist()], np.int32)


class NeverCeasing:
    """Searches that never end: each submits the next while it is answered, so every turn of the index has one."""

    def __init__(self, driven: Driven) -> None:
        self._driven = driven
        self._enough = threading.Event()
        self._ended = threading.Event()
        self.asked = 0

    def __enter__(self) -> NeverCeasing:
        self._ask()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        assert self._ended.wait(WAIT_S)

    def _ask(self) -> None:
        self._driven.live.search(np.zeros(self._driven.source.spec.dimension), SearchOptions(1, select=self._select))

    def _select(self) -> Selection:
        self.asked += 1
        if self._enough.is_set():
            self._ended.set()
        else:
            self._ask()
        return Filter(self, {}, np.zeros(0, np.bool_), 0)


def true_scores(vectors: Floats, queries: Floats, metric: str) -> npt.NDArray[np.float64]:
    """The score of each vector for each query, from the definition of the metric."""
    rows, asked = vectors.astype(np.float64), queries.astype(np.float64)
    products: npt.NDArray[np.float64] = asked @ rows.T
    if metric == "dot":
        return products
    if metric == "l2":
        squares: npt.NDArray[np.float64] = np.square(asked).sum(axis=1)[:, None] - 2 * products
        squares += np.square(rows).sum(axis=1)
        distances: npt.NDArray[np.float64] = np.sqrt(np.maximum(squares, 0))
        return -distances
    lengths = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    cosines: npt.NDArray[np.float64] = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return cosines


def check(
    answer: Answer,
    query: Floats,
    k: int,
    vectors: Mapping[int, Floats],
    metric: str,
    *,
    exact: bool,
    half: bool = False,
) -> None:
    """Asserts that `answer` is valid for a search of the k nearest of `vectors`. `half`: they are stored as float16."""
    scores, labels = answer[0].astype(np.float64), answer[1].tolist()
    assert len(labels) == len(scores) == min(k, len(vectors)), "not as many hits as there are"
    assert len(set(labels)) == len(labels), "a label twice"
    assert vectors.keys() >= set(labels), "a dead, foreign or filtered-out label"
    if not labels:
        return
    # Different squared distances may have equal roots, so for l2 labels of equal scores need not be in order.
    pairs = [(-score, label if metric != "l2" else 0) for score, label in zip(scores.tolist(), labels, strict=True)]
    assert pairs == sorted(pairs), "not best first, or not in the order of the labels where scores are equal"
    matrix = np.stack([vectors[label] for label in labels])
    own = true_scores(matrix, query[None], metric)[0]
    close = _tolerance(np.stack(list(vectors.values())), query, metric, half)
    np.testing.assert_allclose(_even(scores, metric), _even(own, metric), rtol=0, atol=close)
    if exact:
        every = np.sort(true_scores(np.stack(list(vectors.values())), query[None], metric)[0])[::-1][: len(labels)]
        np.testing.assert_allclose(_even(scores, metric), _even(every, metric), rtol=0, atol=close)


def _even(scores: npt.NDArray[np.float64], metric: str) -> npt.NDArray[np.float64]:
    """Scores with a uniform error: near 0, the root of a squared distance has a large error."""
    return -np.square(scores) if metric == "l2" else scores


def _tolerance(vectors: Floats, query: Floats, metric: str, half: bool) -> float:
    longest, asked = float(np.linalg.norm(vectors, axis=1).max()), float(np.linalg.norm(query))
    scale = {"cosine": 1.0, "dot": longest * asked, "l2": (longest + asked) ** 2}[metric]
    return scale * (2e-3 if half else 2e-6)
