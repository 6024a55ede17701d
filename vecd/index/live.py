"""LiveIndex: a library's vectors and words, searchable while they change, whatever the kind of structure.

Of vectors, a LiveIndex is a *structure*, a *tail* and a mask of dead rows. Labels only ever grow, so the structure
holds every living label up to its last, and the tail (exact, any size) every one above. A write is searchable as soon
as it is copied to the tail; draining moves rows from the tail's front into the structure, a slice at a time.

One owner at a time. A LiveIndex is an actor on a small pool of threads that all libraries share (a strand): whoever
wants something leaves it here, and one thread at a time does, in turns:

    1. all writes that wait, in the order of their commits
    2. what else was left: a structure that is ready, a question
    3. the searches that wait, together as one batch
    4. when nothing waits, one slice of maintenance

Nothing else touches the structure, so there is no lock to get wrong. Because writes come first in a turn, a search
sees every write that was left here before it: a write may be acknowledged as soon as it has been left.

One search may ask for vectors, for words, or for both, under a filter. All of it is answered in one turn, so the answer
is of one moment: the state at one seq. (Rows never change under their label, so what is read of them later is of that
moment as well.)

What keeps it fast behind all that is in maintenance.py; the words are in fulltext/live_text.py.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import VecError
from . import brute_force, builder, native
from .fulltext.inverted_index import Query
from .kinds import KINDS
from .local.flat import Flat
from .maintenance import Maintenance, tell
from .messages import Answer, Options, Write
from .policy import Tuning
from .pools import Pools
from .rows import Allowed, Floats, Labels, Ranked, Selection
from .source import Rebuilt, Source
from .structure import Effort, Spec

T = TypeVar("T")

#: Shares of the rows that a filter permits, from which on it is of the class `most`, or `some`.
_MOST, _SOME = 0.5, 0.05
#: Searches for more are not measured: a step of a measurement takes the longer, the more are wanted.
_SAMPLED_K_MAX = 1_000


@dataclass(slots=True)
class _Search:
    query: Floats | None  # shape (dimension,)
    words: Query | None
    title: str | None
    options: Options
    future: Future[Answer]


class LiveIndex(Maintenance):
    """A library's vectors, searchable while they change."""

    def __init__(
        self,
        spec: Spec,
        pools: Pools,
        source: Source,
        on_failure: Callable[[LiveIndex], None],
        tuning: Tuning | None = None,
    ) -> None:
        super().__init__(spec, pools, source, tuning or Tuning())
        self._on_failure = on_failure
        self._calm = False  # nothing was due, and nothing but searches has come since
        self.failure: VecError | None = None
        self._lock = threading.Lock()  # guards the four below
        self._writes: deque[Write] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._searches: deque[_Search] = deque()
        self._scheduled = False
        self._without_text: list[_Search] = []  # the strand's own: they wait for the text

    # --- any thread -------------------------------------------------------------------------------------------------

    def write(self, write: Write) -> None:
        """Leaves a write; every search that is left after it sees it."""
        with self._lock:
            if self.failure is None:
                self._writes.append(write)
                self._schedule()

    def search(self, query: npt.ArrayLike, options: Options, wake: bool = True) -> Future[tuple[Floats, Labels]]:
        """The best for one query of shape (dimension,): scores and labels of shape (min(k, n),), best first; n is how
        many vectors there are, or how many the selection permits. `wake` as in `ask`.

        The future raises VecError `index_failed` if the vectors could not be loaded, or what `select` raised.
        """
        found: Future[tuple[Floats, Labels]] = Future()

        def pass_on(answered: Future[Answer]) -> None:
            if not found.set_running_or_notify_cancel():
                return
            if (error := answered.exception()) is not None:
                found.set_exception(error)
            else:
                near = answered.result().near
                assert near is not None
                found.set_result((near.scores, near.labels))

        self.ask(np.asarray(query, np.float32), None, options, wake).add_done_callback(pass_on)
        return found

    def ask(
        self,
        query: Floats | None,
        words: Query | None,
        options: Options,
        wake: bool = True,
        title: str | None = None,
    ) -> Future[Answer]:
        """The best by vector, for a query of shape (dimension,), by words, or both; `title` is a term that stands for a
        whole title, to be looked for beside the words. A caller that does not `wake` the strand calls `turn` next.

        The future raises VecError `index_failed` if the index could not be loaded, or what `select` raised.
        """
        future: Future[Answer] = Future()
        with self._lock:
            if self.failure is not None:
                future.set_exception(self.failure)
                return future
            self._searches.append(_Search(query, words, title, options, future))
            if wake:
                self._schedule()
        return future

    def turn(self) -> None:
        """For a thread that can wait: if nobody is on the strand, this thread is, for one turn. To whoever has just
        left searches here, that saves handing them to another thread and their answers back."""
        with self._lock:
            if self._scheduled or self.failure is not None:
                return
            self._scheduled = True
        self._turn(hurried=True)

    def begin_empty(self, seq: int) -> None:
        """Instead of loading: the library has no chunks as of that seq. Before anything else is left here."""
        self.text.begin_empty(seq)
        self._adopt(builder.Loaded(seq, None, Flat(self.spec.dimension, self.spec.space), np.empty(0, np.int64)))

    def loaded(self) -> Future[None]:
        """Done when it is loaded. Raises VecError `index_failed`."""
        if not self.ready:
            return self._call(lambda: None)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def rebuild(self, spec: Spec | None = None, stopped: Callable[[], bool] = lambda: False) -> Future[Rebuilt]:
        """Builds the structure anew, of another kind or with other parameters if `spec` says so, while searches and
        writes go on. The future is done when the new one is in use and logged; once `stopped` says so, it is given
        up."""
        future: Future[Rebuilt] = Future()
        asked = self._call(lambda: self._wanted.append((spec or self.spec, future, stopped)))
        asked.add_done_callback(lambda done: tell(future, error) if (error := done.exception()) else None)
        return future

    def snapshot(self) -> Future[int]:
        """Keeps structure and text for the next start, however little of them is new. The future has the rows that
        were saved, of the larger of the two: 0 if there was nothing new, or nothing that can be kept."""
        future: Future[int] = Future()
        asked = self._call(lambda: self._saving.append(future))
        asked.add_done_callback(lambda done: tell(future, error) if (error := done.exception()) else None)
        return future

    def settle(self) -> Future[None]:
        """Done when no maintenance is left to do: everything is drained, built and saved."""
        future: Future[None] = Future()
        asked = self._call(lambda: self._settling.append(future))
        asked.add_done_callback(lambda done: tell(future, error) if (error := done.exception()) else None)
        return future

    def sample(self, count: int, seed: int = 0) -> Future[Floats]:
        """Up to `count` of the structure's vectors, shape (n, dimension): those that are found approximately."""
        return self._call(lambda: self._sample(count, seed))

    def labels(self) -> Future[Labels]:
        """The labels of all vectors that are alive here, ascending."""
        return self._call(self._alive)

    def text_labels(self) -> Future[Labels | None]:
        """The labels of all chunks that full text has, ascending; None if it is not in memory."""
        return self._call(lambda: self.text.labels)

    def describe(self) -> dict[str, Any]:
        """For `vec status`; the figures may be a turn old."""
        structure, tail = self._structure, self._tail
        rows = structure.rows if structure is not None else None
        maintenance = self._aside
        if maintenance is not None and maintenance.startswith("building"):
            maintenance = f"{maintenance}, {self._progress:.0%}"
        if maintenance is None and structure is not None and structure.grows and len(tail):
            maintenance = "draining"
        described: dict[str, Any] = {
            "state": "failed" if self.failure else "loading" if self._seq is None else "ready",
            "vectors": self._count,
            "structure": len(rows) if rows is not None else 0,
            "tail": len(tail),
            "dead": tail.dead + (rows.dead if rows is not None else 0),
            "memory_bytes": tail.memory_bytes + (structure.memory_bytes if structure is not None else 0),
            "maintenance": maintenance,
            "text": self.text.describe(),
        }
        if self._damage is not None:
            described["damage"] = self._damage
        return described

    @property
    def built(self) -> float | None:
        """The share that is done of a build that is going on."""
        aside = self._aside
        return self._progress if aside is not None and aside.startswith("building") else None

    @property
    def ready(self) -> bool:
        return self._seq is not None and self.failure is None

    @property
    def exact(self) -> bool:
        """Whether every search is exact just now."""
        return self._structure is None or KINDS[self.spec.kind].exact

    def recall_report(self) -> dict[str, Any] | None:
        """How the recall promise is kept by the searches that came; None while nothing has been measured."""
        return self._monitor.report()

    def certainty(self, answer: Answer) -> dict[str, Any]:
        """How sure an answer's vector half is: exact, or of what recall the queries were that have been measured."""
        report = self._monitor.report() or {}
        sure = {"exact": answer.exact, "recall": 1.0 if answer.exact else report.get("mean")}
        return {**sure, "promise": self._source.promise, "met": answer.exact or report.get("met")}

    def stop_building(self) -> None:
        """Gives up a build that is going on, and begins no other; searches and writes go on."""
        self._no_more_builds = True
        if self._seq is not None:
            self._call(lambda: None)  # a turn that tells those who wait for one

    def close(self, why: VecError | None = None) -> None:
        """Gives up what is going on aside; who waits for a load is told why."""
        self._farewell = why or self._farewell
        self._closed = self._no_more_builds = True
        self.text.close()
        if self._seq is not None:
            self._call(lambda: None)  # a turn that tells those who wait for a build

    def save(self) -> None:
        """Keeps structure and text for the next start, if there is enough new in them. Only when the strands have
        ended. Raises OSError."""
        if self.failure is None:
            self.text.save()
            if self._save_due(self._tuning.save_rows_at_stop):
                self._save()

    def _call(self, call: Callable[[], T]) -> Future[T]:
        """Has the strand do this, once it is loaded."""
        future: Future[T] = Future()
        with self._lock:
            if self.failure is not None:
                future.set_exception(self.failure)
                return future
            self._calls.append((call, future))
            self._schedule()
        return future

    def _wake(self) -> None:
        with self._lock:
            self._schedule()

    def _schedule(self) -> None:
        """With the lock held."""
        if not self._scheduled:
            self._scheduled = True
            try:
                self._pools.strands.submit(self._strand_turn)
            except RuntimeError:  # the pool is shut down: nobody waits any more
                self._closed = True

    # --- the strand -------------------------------------------------------------------------------------------------

    def _strand_turn(self) -> None:
        native.one_core_once()
        self._turn()

    def _turn(self, hurried: bool = False) -> None:
        """`hurried`: somebody waits for this very thread, so that maintenance is left to the next turn."""
        if self.failure is not None:
            self._end_waits()
            return
        if self._seq is None and self._aside is None:
            self._begin("loading", self._pools.loaders, self._load)
        with self._lock:
            if self._seq is None:  # all waits for the load, which schedules the next turn
                self._scheduled = False
                return
            writes, self._writes = self._writes, deque()
            calls, self._calls = self._calls, deque()
            waiting = [self._searches.popleft() for _ in range(min(len(self._searches), limits.SEARCHES_A_TURN))]
        if self.text.ready and self._without_text:
            waiting, self._without_text = [*self._without_text, *waiting], []
        searches = [each for each in waiting if each.future.running() or each.future.set_running_or_notify_cancel()]
        try:
            for write in writes:
                self._apply(write)
            for call, future in calls:
                _settle(future, call)
            if searches:
                self._answer(searches)
            idle = not (writes or calls or searches)
            self._calm = self._calm and not writes and not calls
            more = not self._calm and (self._due() is not None if hurried else self._maintain(idle))
            more = more or (self.text.ready and bool(self._without_text))
            self._calm = not more and not self._resting and time.monotonic() >= self._retry_at
        except Exception as error:
            self._fail(error, [*(search.future for search in searches), *(future for _, future in calls)])
            return
        if self._closed and not self.text.ready:
            self._end_waits()
        with self._lock:
            self._scheduled = False
            if self._writes or self._calls or self._searches or more:
                self._schedule()  # to the end of the pool's queue: other libraries have their turn

    def _end_waits(self) -> None:
        """Tells those who wait for the text that it will not come."""
        waiting, self._without_text = self._without_text, []
        for search in waiting:
            tell(search.future, self.failure or self._farewell)

    def _apply(self, write: Write) -> None:
        assert self._seq is not None
        if write.seq <= self._seq:
            return
        removed = np.array(write.removed, np.int64)
        if len(removed):
            self._tail.remove(removed)
            if self._structure is not None:
                self._structure.rows.remove(removed)
            if self._aside is not None:
                self._removed.append(removed)
        # A structure is built from the store, which may be ahead of what has been left here.
        new = int(np.searchsorted(write.labels, self._last_label, "right"))
        if new < len(write.labels):
            self._tail.add(write.labels[new:], builder.prepared(self.spec, write.vectors[new:]))
            self._last_label = int(write.labels[-1])
        self._documents.add(write.labels if write.firsts is None else write.firsts)
        self._documents.remove(removed)
        if write.words is not None:
            self.text.write(write.seq, write.labels, write.words, removed)
        self._recount()
        self._seq = write.seq

    def _answer(self, searches: list[_Search]) -> None:
        self._searched_at = time.monotonic()
        if not self.text.ready and (early := [each for each in searches if each.words is not None]):
            self._without_text += early  # until it is loaded
            self.text.want()
            searches = [each for each in searches if each.words is None]
        groups: dict[Options, list[_Search]] = {}
        for search in searches:
            groups.setdefault(search.options, []).append(search)
        for options, group in groups.items():
            try:
                selection = options.select() if options.select is not None else None
            except VecError as error:
                for search in group:
                    search.future.set_exception(error)
                continue
            self._answer_group(group, options, selection)

    def _answer_group(self, group: list[_Search], options: Options, selection: Selection | None) -> None:
        assert self._seq is not None
        queries = [search.query for search in group if search.query is not None]
        near = iter(self._nearest(np.stack(queries), options, selection) if queries else ())
        exact = options.exact or self.exact or self._effort(options, "all").exact
        for search in group:
            its_near = next(near) if search.query is not None else None
            worded = self._worded(search.words, options, selection) if search.words is not None else None
            titled = self._worded(Query((search.title,)), options, selection) if search.title is not None else None
            search.future.set_result(Answer(self._seq, its_near, worded, titled, exact))

    def _nearest(self, queries: Floats, options: Options, selection: Selection | None) -> list[Ranked]:
        """By vector; queries of shape (n, dimension)."""
        scores, labels = self._find(queries, options, selection)
        if not options.by_document:
            return [Ranked(*each, self._documents.of(each[1])) for each in zip(scores, labels, strict=True)]

        def deeper(place: int) -> Callable[[int], tuple[Floats, Labels]]:
            def find(k: int) -> tuple[Floats, Labels]:
                deep = options._replace(k=k, sampled=False)
                found = self._find(queries[place : place + 1], deep, selection)
                return found[0][0], found[1][0]

            return find

        return [
            self._documents.best(each_scores, each_labels, options.k, selection, deeper(place))
            for place, (each_scores, each_labels) in enumerate(zip(scores, labels, strict=True))
        ]

    def _worded(self, words: Query, options: Options, selection: Selection | None) -> Ranked:
        def find(k: int) -> tuple[Floats, Labels]:
            return self.text.search(words, k, selection)

        scores, labels = find(options.k)
        if not options.by_document:
            return Ranked(scores, labels, self._documents.of(labels))
        return self._documents.best(scores, labels, options.k, selection, find)

    def _find(self, queries: Floats, options: Options, selection: Selection | None) -> tuple[Floats, Labels]:
        queries = np.ascontiguousarray(builder.prepared(self.spec, queries))
        found = []
        if self._structure is not None:
            allowed = self._structure.rows.allowed(selection)
            k = min(options.k, allowed.count)
            selectivity = _selectivity(allowed, self._structure.rows.count)
            effort = self._effort(options, selectivity)
            with native.threads_for(len(queries)):
                found.append(self._structure.search(queries, k, allowed, effort))
            sampled = options.sampled and 0 < k <= _SAMPLED_K_MAX
            if sampled and options.ef is None and not (options.exact or KINDS[self.spec.kind].exact):
                self._note(queries, options, selectivity)
        if len(self._tail) or not found:
            found.append(self._tail.search(queries, options.k, selection))
        scores, labels = found[0]
        if len(found) > 1:
            scores = np.concatenate([each[0] for each in found], axis=1)
            labels = np.concatenate([each[1] for each in found], axis=1)
        scores, labels = brute_force.best(scores, labels, options.k)
        if self.spec.space == "l2":
            scores = -np.sqrt(np.maximum(-scores, 0))
        return scores, labels

    def _effort(self, options: Options, selectivity: str) -> Effort:
        recall = self._source.promise if options.recall is None else options.recall
        factor = self._monitor.factor(selectivity)
        exact = options.exact or recall >= 1 or (factor == math.inf and options.ef is None)
        return Effort(recall, max(1.0, factor) if factor < math.inf else 1.0, options.ef, exact)

    def _note(self, queries: Floats, options: Options, selectivity: str) -> None:
        """Has the recall of some of these searches measured, when there is time."""
        for query in queries:
            if self._monitor.note(query, options.k, selectivity, options.select):
                self._calm = False

    def _alive(self) -> Labels:
        if self._structure is None:
            return self._tail.alive
        rows = self._structure.rows
        return np.concatenate((rows.labels[rows.alive], self._tail.alive))

    def _sample(self, count: int, seed: int) -> Floats:
        if self._structure is None or not len(self._structure.rows):
            return np.empty((0, self.spec.dimension), np.float32)
        places = np.random.default_rng(seed).integers(0, len(self._structure.rows), count)
        return self._structure.sample(np.unique(places))

    def _fail(self, error: BaseException, waiting: Sequence[Future[Any]] = ()) -> None:
        """The next search loads anew."""
        stopped = self._closed or isinstance(error, builder.Stopped)  # closed: what was being read has been closed too
        failure = self._farewell if stopped else builder.failed(error)
        with self._lock:
            self.failure = failure
            self._closed = self._no_more_builds = True
            futures = [*waiting, *(future for _, future in self._calls), *(each.future for each in self._searches)]
            self._searches.clear()
            self._writes.clear()
            self._calls.clear()
            self._scheduled = False
            self._schedule()  # a turn that tells those who wait for the text; they are the strand's own
        self._on_failure(self)
        for future in (*futures, *self._settling, *self._saving, *(future for _, future, _ in self._wanted)):
            tell(future, failure)


def _selectivity(allowed: Allowed, rows: int) -> str:
    """The class of filters that a search belongs to: each has an effort of its own."""
    if allowed.mask is None:
        return "all"
    return "most" if allowed.count >= _MOST * rows else "some" if allowed.count >= _SOME * rows else "few"


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    """Does a call for whoever waits on the future."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except Exception as error:
        future.set_exception(error)
