"""LiveIndex: a library's vectors and full text, searchable while they change, for every kind of structure.

It is composed of independent parts:

    Mailbox        the queue of requests (mailbox.py)
    LiveVectors    a structure, a tail and tombstones (live_vectors.py)
    LiveText       full text (fulltext/live_text.py)
    RecallTracker  measures recall, and sets the effort that keeps the promise (recall_tracker.py)
    Maintenance    draining, building, saving (maintenance.py), as decided by a pure policy (policy.py)

One owner at a time. A LiveIndex is an actor on a small pool of threads that all libraries share. Requests wait in the
mailbox, and one thread at a time handles them, in turns:

    1. all waiting writes, in commit order
    2. calls, such as the swap of a structure
    3. the waiting searches, as one batch
    4. when nothing waits, one slice of maintenance

Nothing else touches the structure, so it needs no lock. Because writes come first in a turn, a search sees every write
that was posted before it: a write may be acknowledged as soon as it has been posted.

A search can be by vector, by words, or both, with a filter. It is answered in one turn, so the answer is consistent: it
shows the state at one seq. (The content of a label never changes, so data that is read later is of the same state.) An
asynchronous structure answers later: its hits still show the state of the turn that asked, the turn does not wait, and
a later turn completes the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import Code, VecError
from . import builder, futures, native
from .fulltext.inverted_index import TermQuery
from .fulltext.live_text import LiveText
from .kinds import KINDS
from .live_vectors import LiveVectors
from .local.flat import Flat
from .mailbox import Mailbox
from .maintenance import BuildRequest, Maintenance
from .policy import Tuning
from .pools import Pools
from .recall_tracker import RecallTracker, selectivity
from .requests import Answer, Search, SearchOptions, Write
from .rows import DEEPER, Floats, Labels, Ranked, Selection
from .source import Rebuilt, Source
from .structure import Hits, Spec

T = TypeVar("T")


class _Partial(NamedTuple):
    """Searches of which an asynchronous structure has not answered the vector part yet."""

    searches: list[Search]
    answers: list[Answer]  # without `near`
    selection: Selection | None


class LiveIndex:
    """A library's vectors and full text, searchable while they change."""

    def __init__(
        self,
        spec: Spec,
        pools: Pools,
        source: Source,
        on_failure: Callable[[LiveIndex], None],
        tuning: Tuning | None = None,
    ) -> None:
        """`on_failure` is called, on any thread, when it cannot answer any more; the caller makes a new one."""
        self._on_failure = on_failure
        self._source = source
        self._mailbox = Mailbox(pools.strands, self._pool_turn, lambda: self._loaded, self._pool_closed)
        self._vectors = LiveVectors(spec)
        self._text = LiveText(source, pools.loaders, pools.builders, self._mailbox.call, self._fail)
        self._recall = RecallTracker(source, self._measurable_again)
        self._maintenance = Maintenance(
            self._vectors, self._text, self._recall, self._mailbox, pools, source, tuning or Tuning(), self._fail
        )
        self._calm = False  # nothing was due, and only searches have arrived since
        self._without_text: list[Search] = []  # they wait until full text is loaded
        self._unanswered: dict[Future[Hits], _Partial] = {}  # by the future that an asynchronous structure gave

    # --- any thread -------------------------------------------------------------------------------------------------

    @property
    def spec(self) -> Spec:
        return self._vectors.spec

    @property
    def failure(self) -> VecError | None:
        """Why it cannot answer any more."""
        return self._mailbox.failure

    @property
    def ready(self) -> bool:
        """Whether the vectors are loaded."""
        return self._loaded and self.failure is None

    @property
    def text_ready(self) -> bool:
        """Whether full text is loaded."""
        return self._text.ready

    @property
    def exact(self) -> bool:
        """Whether every search is exact at the moment."""
        return self._vectors.exact

    @property
    def build_progress(self) -> float | None:
        """The progress of a running build, from 0 to 1; None if there is none."""
        return self._maintenance.build_progress

    @property
    def _loaded(self) -> bool:
        return self._maintenance.seq is not None

    def write(self, write: Write) -> None:
        """Posts a write. All searches that are posted later see it."""
        self._mailbox.post_write(write)

    def search(self, query: npt.ArrayLike, options: SearchOptions, wake: bool = True) -> Future[Hits]:
        """The k best for one query of shape (dimension,): scores and labels of shape (min(k, n),), best first; n is the
        number of vectors, or of those that the selection contains. `wake` as in `ask`.

        The future raises VecError `index_failed` if the vectors could not be loaded, or the error of `select`.
        """
        found: Future[Hits] = Future()

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
        words: TermQuery | None,
        options: SearchOptions,
        wake: bool = True,
        title: str | None = None,
        second: Ranked | None = None,
    ) -> Future[Answer]:
        """The best by vector, for a query of shape (dimension,), by words, or both; `title` is a term that represents a
        whole title, for an additional search. `second` is a ranking by another index, of an earlier state: the answer
        has what is still alive of it. A caller that does not `wake` the index calls `turn` next.

        The future raises VecError `index_failed` if the index could not be loaded, `dimension_mismatch` if its vectors
        have another dimension than the query, or the error of `select`.
        """
        search = Search(query, words, title, options, asked=options.k, second=second)
        self._mailbox.post_search(search, wake=wake)
        return search.future

    def turn(self) -> None:
        """Takes one turn on the calling thread, if no other thread has it. This saves a caller that has just posted
        searches two thread switches."""
        if self._mailbox.claim():
            self._turn(hurried=True)

    def begin_empty(self, seq: int, generation: int = 0) -> None:
        """Replaces loading for a library without chunks as of that seq. Call before anything is posted."""
        self._text.begin_empty(seq)
        tail = Flat(self.spec.dimension, self.spec.space)
        self._maintenance.adopt(builder.Loaded(seq, None, tail, np.empty(0, np.int64), generation))

    def loaded(self) -> Future[None]:
        """Done when it is loaded. Raises VecError `index_failed`."""
        if not self.ready:
            return self._mailbox.call(lambda: None)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def rebuild(self, spec: Spec | None = None, stopped: Callable[[], bool] = lambda: False) -> Future[Rebuilt]:
        """Builds a new structure, as `spec` if given, while searches and writes continue. The future is done when the
        new structure is in use and logged. The build is cancelled once `stopped` returns true."""
        future: Future[Rebuilt] = Future()
        requested = self._maintenance.builds_requested
        return self._request(future, lambda: requested.append(BuildRequest(spec or self.spec, future, stopped)))

    def snapshot(self) -> Future[int]:
        """Saves structure and text for the next start, however little is new. The future has the number of saved rows,
        of the larger of the two; 0 if there was nothing new, or nothing that can be saved."""
        future: Future[int] = Future()
        return self._request(future, lambda: self._maintenance.saves_requested.append(future))

    def settle(self) -> Future[None]:
        """Done when no maintenance is left: everything is drained, built and saved."""
        future: Future[None] = Future()
        return self._request(future, lambda: self._maintenance.settling.append(future))

    def sample(self, count: int, seed: int = 0) -> Future[Floats]:
        """Up to `count` vectors of the structure, shape (n, dimension): those that approximate searches find."""
        return self._mailbox.call(lambda: self._vectors.sample(count, seed))

    def labels(self) -> Future[Labels]:
        """The labels of all living vectors, ascending."""
        return self._mailbox.call(lambda: self._vectors.alive)

    def text_labels(self) -> Future[Labels | None]:
        """The labels of all chunks in full text, ascending; None if it is not in memory."""
        return self._mailbox.call(lambda: self._text.labels)

    def describe(self) -> dict[str, Any]:
        """For `vec status`; the figures may be a turn old."""
        described: dict[str, Any] = {
            "state": "failed" if self.failure else "ready" if self._loaded else "loading",
            **self._vectors.describe(),
            "maintenance": self._maintenance.describe(),
            "text": self._text.describe(),
        }
        if self._maintenance.damage is not None:
            described["damage"] = self._maintenance.damage
        return described

    def recall_report(self) -> dict[str, Any] | None:
        """The measured recall of real searches; None before the first measurement."""
        return self._recall.report()

    def certainty(self, answer: Answer) -> dict[str, Any]:
        """How reliable the vector part of an answer is: exact, or the measured recall of earlier queries."""
        report = self._recall.report() or {}
        certain = {"exact": answer.exact, "recall": 1.0 if answer.exact else report.get("mean")}
        return {**certain, "promise": self._source.promise, "met": answer.exact or report.get("met")}

    def stop_building(self) -> None:
        """Cancels a running build and starts no other; searches and writes continue."""
        self._maintenance.builds_stopped = True
        if self._loaded:
            self._mailbox.call(lambda: None)  # a turn that fails the requests for one

    def close(self, why: VecError | None = None) -> None:
        """Cancels background tasks; callers that wait for a load get the error `why`."""
        self._maintenance.close_reason = why or self._maintenance.close_reason
        self._maintenance.closed = self._maintenance.builds_stopped = True
        self._text.close()
        if self._loaded:
            self._mailbox.call(lambda: None)  # a turn that fails the requests

    def save(self) -> None:
        """Saves structure and text for the next start, if enough is new. Call only after the last turn. Raises
        OSError."""
        if self.failure is None:
            self._text.save()
            self._maintenance.save_at_stop()

    def _request(self, future: Future[T], post: Callable[[], Any]) -> Future[T]:
        """Posts a request in a turn; its future fails if there is no further turn."""

        def posted(done: Future[Any]) -> None:
            if (error := done.exception()) is not None:
                futures.fail([future], error)

        self._mailbox.call(post).add_done_callback(posted)
        return future

    def _pool_closed(self) -> None:
        self._maintenance.closed = True

    # --- turns ------------------------------------------------------------------------------------------------------

    def _pool_turn(self) -> None:
        native.one_core_once()
        self._turn()

    def _turn(self, hurried: bool = False) -> None:
        """`hurried`: a caller waits for this thread, so maintenance is left to the next turn."""
        maintenance = self._maintenance
        if self.failure is not None:
            self._fail_unanswered(self.failure)
            return
        if not self._loaded and maintenance.running is None:
            maintenance.begin_loading()
        turn = self._mailbox.take(limits.SEARCHES_A_TURN)
        if turn is None:
            return
        writes, calls, waiting = turn
        if self._text.ready and self._without_text:
            waiting, self._without_text = [*self._without_text, *waiting], []
        searches = [each for each in waiting if each.future.running() or each.future.set_running_or_notify_cancel()]
        try:
            for write in writes:
                self._apply(write)
            for call in calls:
                call.run()
            if searches:
                self._answer(searches)
            idle = not (writes or calls or searches)
            self._calm = self._calm and not writes and not calls
            retries = maintenance.retries  # before the decision, so that a pause that ends in between is not missed
            more = not self._calm and (maintenance.decide().due if hurried else maintenance.advance(idle=idle))
            more = more or (self._text.ready and bool(self._without_text))
            self._calm = not more and not maintenance.rests and not retries
        except Exception as error:
            self._fail(error, [*(search.future for search in searches), *(call.future for call in calls)])
            return
        if maintenance.closed:
            self._fail_without_text(maintenance.close_reason)
        self._mailbox.release(again=more)

    def _apply(self, write: Write) -> None:
        assert self._maintenance.seq is not None
        # Generations only grow, and are read with the vectors. A write may replace vectors without a seq of its own.
        if write.replaced is not None and write.replaced.generation > self._maintenance.generation:
            self._maintenance.replace(*write.replaced)
        if write.seq <= self._maintenance.seq and not write.always:
            return
        removed = self._vectors.apply(write)
        if write.words is not None:
            self._text.write(write.seq, write.labels, write.words, removed)
        self._maintenance.seq = max(write.seq, self._maintenance.seq)

    def _answer(self, searches: list[Search]) -> None:
        self._maintenance.searched_at = time.monotonic()
        if not self._text.ready and (early := [each for each in searches if each.words is not None]):
            self._without_text += early
            self._text.want()
            searches = [each for each in searches if each.words is None]
        wrong = [each for each in searches if each.query is not None and len(each.query) != self.spec.dimension]
        if wrong:  # the vectors were replaced after the search was asked
            message = f"the library holds {self.spec.dimension}-dimension vectors"
            futures.fail((each.future for each in wrong), VecError(Code.DIMENSION_MISMATCH, message))
            searches = [each for each in searches if each not in wrong]
        groups: dict[tuple[SearchOptions, int], list[Search]] = {}
        for search in searches:
            groups.setdefault((search.options, search.asked), []).append(search)
        for (options, asked), group in groups.items():
            try:
                selection = options.select() if options.select is not None else None
            except VecError as error:
                futures.fail((search.future for search in group), error)
                continue
            self._answer_group(group, options, asked, selection)

    def _answer_group(
        self, group: list[Search], options: SearchOptions, asked: int, selection: Selection | None
    ) -> None:
        assert self._maintenance.seq is not None
        seq, generation = self._maintenance.seq, self._maintenance.generation
        exact = options.exact or self.exact or self._recall.effort(options, "all").exact
        queries = [search.query for search in group if search.query is not None]
        hits = self._nearest(np.stack(queries), options, asked, selection) if queries else None
        if isinstance(hits, Future):
            answers = [
                Answer(
                    seq,
                    None,
                    *self._by_words(search, options, selection),
                    exact,
                    generation,
                    self._alive(search.second),
                )
                for search in group
            ]
            self._unanswered[hits] = _Partial(group, answers, selection)
            hits.add_done_callback(lambda done: self._mailbox.call(partial(self._complete_later, done)))
            return
        place = 0
        for search in group:
            near: Ranked | None = None
            if search.query is not None:
                assert hits is not None
                near = self._ranked(search, hits[0][place], hits[1][place], selection)
                place += 1
            found = self._by_words(search, options, selection)
            second = self._alive(search.second)
            search.future.set_result(Answer(seq, near, *found, exact, generation, second))

    def _alive(self, ranked: Ranked | None) -> Ranked | None:
        """The chunks of a ranking that are alive."""
        if ranked is None:
            return None
        alive = self._vectors.holds(ranked.labels)
        return Ranked(ranked.scores[alive], ranked.labels[alive], ranked.documents[alive])

    def _by_words(
        self, search: Search, options: SearchOptions, selection: Selection | None
    ) -> tuple[Ranked | None, Ranked | None]:
        """The best by the words of the query, and by its whole title."""
        worded = None if search.words is None else self._worded(search.words, options, selection)
        titled = None if search.title is None else self._worded(TermQuery((search.title,)), options, selection)
        return worded, titled

    def _complete_later(self, done: Future[Hits]) -> None:
        """Completes the searches that an asynchronous structure has answered, or failed."""
        waits = self._unanswered.pop(done, None)
        if waits is None:
            return
        try:
            hits = done.result()
        except BaseException as error:
            futures.fail((search.future for search in waits.searches), builder.failed(error))
            return
        place = 0
        documents = self._vectors.documents
        for search, answer in zip(waits.searches, waits.answers, strict=True):
            near: Ranked | None = None
            if search.query is not None:
                scores, labels, k = hits[0][place], hits[1][place], search.options.k
                place += 1
                if not search.options.by_document:
                    near = Ranked(scores, labels, documents.of(labels))
                else:
                    near = documents.ranked(scores, labels, k, search.asked, waits.selection)
                if near is None:  # too few documents: starts over, because all hits must show the same state
                    search.asked *= DEEPER
                    self._mailbox.post_search(search)
                    continue
            search.future.set_result(answer._replace(near=near))

    def _ranked(self, search: Search, scores: Floats, labels: Labels, selection: Selection | None) -> Ranked:
        """The hits of one query, by chunk or by document as its options say."""
        options, documents = search.options, self._vectors.documents
        if not options.by_document:
            return Ranked(scores, labels, documents.of(labels))

        def deeper(k: int) -> Hits:
            assert search.query is not None
            found = self._nearest(search.query[None], options._replace(sampled=False), k, selection)
            assert not isinstance(found, Future)
            return found[0][0], found[1][0]

        return documents.best(scores, labels, options.k, selection, deeper)

    def _nearest(
        self, queries: Floats, options: SearchOptions, k: int, selection: Selection | None
    ) -> Hits | Future[Hits]:
        """The k best by vector; queries of shape (n, dimension)."""
        vectors = self._vectors
        queries = vectors.prepared(queries)
        allowed = vectors.allowed(selection)
        filters = selectivity(allowed, 0 if vectors.structure is None else vectors.structure.rows.count)
        hits = vectors.search(queries, k, selection, allowed, self._recall.effort(options, filters))
        if allowed is not None and not KINDS[self.spec.kind].exact:
            sampled = self._recall.note(queries, min(k, allowed.count), filters, options)
            self._calm = self._calm and not sampled
        return hits

    def _worded(self, words: TermQuery, options: SearchOptions, selection: Selection | None) -> Ranked:
        def find(k: int) -> Hits:
            return self._text.search(words, k, selection)

        scores, labels = find(options.k)
        documents = self._vectors.documents
        if not options.by_document:
            return Ranked(scores, labels, documents.of(labels))
        return documents.best(scores, labels, options.k, selection, find)

    def _measurable_again(self) -> None:
        """Any thread: an asynchronous structure has answered a measurement."""
        self._calm = False
        self._mailbox.wake()

    # --- the end ----------------------------------------------------------------------------------------------------

    def _fail_without_text(self, error: VecError) -> None:
        """Fails the searches that wait for full text."""
        if not self._text.ready:
            waiting, self._without_text = self._without_text, []
            futures.fail((search.future for search in waiting), error)

    def _fail_unanswered(self, error: VecError) -> None:
        """Fails all searches that a turn has taken but not answered."""
        self._fail_without_text(error)
        unanswered, self._unanswered = self._unanswered, {}
        for hits, waits in unanswered.items():
            hits.cancel()
            futures.fail((search.future for search in waits.searches), error)

    def _fail(self, error: BaseException, waiting: Sequence[Future[Any]] = ()) -> None:
        """Fails all requests. The caller of `on_failure` makes a new LiveIndex, which loads again. Any thread."""
        maintenance = self._maintenance
        # After closing, the store that was being read is closed too.
        stopped = maintenance.closed or isinstance(error, builder.BuildCancelled)
        failure = maintenance.close_reason if stopped else builder.failed(error)
        maintenance.closed = maintenance.builds_stopped = True
        futures_waiting = self._mailbox.fail(failure)
        self._on_failure(self)
        futures.fail((*waiting, *futures_waiting, *maintenance.waiting), failure)
