"""Maintenance: carries out the decisions of the policy, beside the searches and writes of a LiveIndex.

Short tasks run in a turn, a slice at a time, when nothing else waits: draining the tail into the structure, packing the
tail, measuring recall. Draining adapts to the load. A row in the tail costs a search 40 ns, but moving it takes half a
millisecond of a core: while searches arrive, there is a pause between slices.

Long tasks run in the background, one at a time, and are handed over in a turn:

- loading, started by the first turn: from the snapshot and the store (builder.py). Writes that are posted during a load
  are applied afterwards; those that the load has read are skipped by their seq, or by their labels.
- building a new structure from the store, at low priority on all cores: when the tail has outgrown the structure, when
  a fifth of the structure is deleted, or on request. During a build the old structure answers and the tail grows;
  removed labels are noted, and masked in the new structure.
- saving a snapshot. While it is written, no rows are added to the structure.

Methods run in the LiveIndex's turns, unless they say otherwise.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any, NamedTuple

from ..errors import Code, VecError
from . import builder, futures, native, policy
from .fulltext.live_text import LiveText
from .kinds import KINDS
from .live_vectors import LiveVectors
from .local.flat import Flat
from .mailbox import Mailbox
from .policy import Action, Decision, Figures, StructureFigures, Tuning
from .pools import Pools
from .recall_tracker import RecallTracker
from .source import Rebuilt, Source
from .structure import Spec

log = logging.getLogger("vecd.index")


class BuildRequest(NamedTuple):
    """A requested build. It is cancelled once `stopped` returns true."""

    spec: Spec
    future: Future[Rebuilt]
    stopped: Callable[[], bool]


class Maintenance:
    """The maintenance of one LiveIndex."""

    def __init__(
        self,
        vectors: LiveVectors,
        text: LiveText,
        recall: RecallTracker,
        mailbox: Mailbox,
        pools: Pools,
        source: Source,
        tuning: Tuning,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """`on_failure` is called, on any thread, when the vectors cannot be loaded."""
        self._vectors, self._text, self._recall = vectors, text, recall
        self._mailbox, self._pools, self._source, self._tuning = mailbox, pools, source, tuning
        self._on_failure = on_failure
        self.seq: int | None = None  # the vectors include the log up to here; None before they are loaded
        self.generation = 0  # of the vectors, as Stored.generation
        self.searched_at = 0.0
        self.rests = False  # something is due, but pauses while searches arrive
        self.builds_requested: deque[BuildRequest] = deque()
        self.saves_requested: list[Future[int]] = []
        self.settling: list[Future[None]] = []
        self._saved_rows = 0  # rows of the structure that are in its snapshot
        self._drained_at = 0.0
        self._retry_at = 0.0  # after a failed build or save: no other before this time
        self._timer: threading.Timer | None = None  # wakes the mailbox after a pause
        self._timer_at = 0.0
        # Set by any thread:
        self.damage: str | None = None  # why the snapshot could not be used
        self.running: str | None = None  # the task in the background
        self._progress = 0.0
        self.closed = False  # no task starts any more, and the one in the background is cancelled
        self.builds_stopped = False
        self.close_reason = VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "try again later")

    # --- any thread -------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[Future[Any]]:
        """The futures of all requests."""
        return [*self.settling, *self.saves_requested, *(request.future for request in self.builds_requested)]

    @property
    def build_progress(self) -> float | None:
        """The progress of a running build, from 0 to 1."""
        running = self.running
        return self._progress if running is not None and running.startswith("building") else None

    def describe(self) -> str | None:
        """The running task, for `vec status`."""
        structure = self._vectors.structure
        if (progress := self.build_progress) is not None:
            return f"{self.running}, {progress:.0%}"
        if self.running is None and structure is not None and structure.grows and len(self._vectors.tail):
            return "draining"
        return self.running

    def save_at_stop(self) -> None:
        """Saves the structure if it has enough new rows. Call only after the last turn. Raises OSError."""
        structure = self._structure_figures()
        if structure is not None and policy.save_pays(structure, self._tuning.save_rows_at_stop):
            self._save()

    # --- deciding ---------------------------------------------------------------------------------------------------

    @property
    def retries(self) -> bool:
        """Whether a failed build or save waits for its next attempt."""
        return time.monotonic() < self._retry_at

    def decide(self) -> Decision:
        """Decides what to do next. Sets the timer for a pause."""
        decision = policy.decide(self._figures(), self._tuning)
        self.rests = decision.wake_in_s is not None
        if decision.wake_in_s is not None:
            self._set_timer(decision.wake_in_s)
        return decision

    def advance(self, *, idle: bool) -> bool:
        """Does one slice of what is due, if idle or urgent. Returns whether something is due."""
        decision = self.decide()
        if decision.due and (idle or decision.urgent):
            self._carry_out(decision)
        return decision.due

    def _figures(self) -> Figures:
        now = time.monotonic()
        vectors = self._vectors
        kind = KINDS[vectors.spec.kind]
        measurable = vectors.structure is not None and not kind.exact and self._recall.measurable()
        return Figures(
            structure=self._structure_figures(),
            tail=len(vectors.tail),
            tail_worn=vectors.tail.worn,
            builds=kind.make is not None,
            rows_min=self._rows_min(vectors.spec),
            damaged=self.damage is not None,
            running=self.running is not None,
            text_due=self._text.due(),
            text_running=self._text.busy,
            measurable=measurable,
            measurement_waits=self._recall.waits,
            builds_requested=len(self.builds_requested),
            saves_requested=len(self.saves_requested),
            settling=bool(self.settling),
            builds_stopped=self.builds_stopped,
            closed=self.closed,
            since_search_s=now - self.searched_at,
            since_drain_s=now - self._drained_at,
            retry_in_s=self._retry_at - now,
            measure_in_s=self._recall.next_in_s,
        )

    def _structure_figures(self) -> StructureFigures | None:
        structure = self._vectors.structure
        if structure is None:
            return None
        can_be_saved = self._source.path is not None and KINDS[self._vectors.spec.kind].restore is not None
        rows = structure.rows
        return StructureFigures(rows.count, rows.dead, structure.grows, structure.worn, self._saved_rows, can_be_saved)

    def _rows_min(self, spec: Spec) -> int:
        """The minimum number of rows for a structure."""
        return max(1, KINDS[spec.kind].rows_min if self._tuning.rows_min is None else self._tuning.rows_min)

    def _set_timer(self, wait_s: float) -> None:
        """Wakes the mailbox after that time, or sooner if a timer runs already."""
        at = time.monotonic() + wait_s
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = threading.Timer(wait_s, self._ring), at
        self._timer.daemon = True
        try:
            self._timer.start()
        except RuntimeError:  # the system gives no thread: the next search or write wakes the mailbox
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._mailbox.wake()

    # --- in a turn --------------------------------------------------------------------------------------------------

    def _carry_out(self, decision: Decision) -> None:
        match decision.action:
            case Action.REFUSE_REQUESTS:
                self._refuse()
            case Action.MAINTAIN_TEXT:
                self._text.begin()
            case Action.BUILD_REQUESTED:
                request = self.builds_requested.popleft()
                if request.future.set_running_or_notify_cancel():
                    self._begin_build(request, "requested")
            case Action.SAVE_REQUESTED:
                self._begin_requested_saves()
            case Action.BUILD:
                request = BuildRequest(self._vectors.spec, Future(), lambda: False)
                self._begin_build(request, decision.reason)
            case Action.DRAIN:
                self._drain()
            case Action.PACK_TAIL:
                self._vectors.tail.maintain()
            case Action.MEASURE:
                assert self._vectors.structure is not None
                self._recall.step(self._vectors.structure)
            case Action.SAVE:
                self._begin("saving", self._pools.builders, functools.partial(self._save_in_background, [self._save]))
            case Action.REPORT_SETTLED:
                futures.resolve(self.settling, None)
                self.settling.clear()
            case Action.NOTHING:
                pass

    def _refuse(self) -> None:
        futures.fail((request.future for request in self.builds_requested), self.close_reason)
        self.builds_requested.clear()
        if self.closed:
            futures.fail(self.settling, self.close_reason)
            futures.fail(self.saves_requested, self.close_reason)
            self.settling.clear()
            self.saves_requested.clear()

    def _drain(self) -> None:
        quiet = time.monotonic() - self.searched_at > self._tuning.quiet_s
        budget_s = policy.drain_s(len(self._vectors.tail), self._tuning, quiet=quiet)
        self._vectors.drain(budget_s, native.CORES if quiet else 1)
        self._drained_at = time.monotonic()

    # --- the background ---------------------------------------------------------------------------------------------

    def _begin(self, what: str, pool: Executor, work: Callable[[], None]) -> None:
        """Starts a background task; `_end` must be called in a turn when it has ended."""
        self.running, self._progress = what, 0.0
        self._vectors.note_removals(True)
        try:
            pool.submit(work)
        except RuntimeError:  # shut down
            self.closed = True

    def _end(self, failed: bool = False) -> None:
        self.running = None
        self._vectors.note_removals(False)
        self._retry_at = time.monotonic() + self._tuning.retry_s if failed else self._retry_at

    def begin_loading(self) -> None:
        """Starts to load the vectors."""
        self._begin("loading", self._pools.loaders, self._load)

    def _load(self) -> None:
        try:
            loaded = builder.load(self._vectors.spec, self._source, lambda: self.closed)
        except Exception as error:
            self._on_failure(error)
            return
        self.adopt(loaded)
        self._mailbox.wake()

    def adopt(self, loaded: builder.Loaded) -> None:
        """Takes over the loaded vectors. Until `seq` is set no turn uses them, so any thread may call this."""
        self._vectors.adopt(loaded)
        self.generation = loaded.generation
        self.damage = loaded.damage
        if loaded.structure is not None:
            self._saved_rows = loaded.structure.rows.count
        self._vectors.note_removals(False)
        self.running = None
        self.seq = loaded.seq

    def replace(self, vectors: Callable[[], Flat], generation: int) -> None:
        """Replaces all vectors by those of another generation. A build that is running starts again."""
        self._vectors.replace(vectors())
        self.generation = generation
        self._recall.structure_changed(other_index=True)
        self._saved_rows = 0

    def _begin_build(self, request: BuildRequest, reason: str) -> None:
        work = functools.partial(self._build, request, reason)
        self._begin(f"building: {reason}", self._pools.builders, work)

    def _build(self, request: BuildRequest, reason: str) -> None:
        spec, future, stopped = request
        started = time.perf_counter()
        try:
            vectors: int | None = None
            while vectors is None:
                built = builder.build(
                    spec,
                    self._source,
                    self._rows_min(spec),
                    lambda: self.builds_stopped or stopped(),
                    self._make_progress,
                )
                spec = built.spec
                vectors = self._mailbox.call(functools.partial(self._swap, spec, built)).result()
            native.trim_heap()  # frees the old structure and the tail
            has_snapshot = KINDS[spec.kind].restore is not None and not isinstance(built.structure, Flat)
            if not has_snapshot and self._source.path is not None:
                self._source.path.unlink(missing_ok=True)  # the old structure's
            report = Rebuilt(spec, vectors, time.perf_counter() - started, reason)
            self._source.rebuilt(report)
        except Exception as error:
            cancelled = isinstance(error, builder.BuildCancelled)
            if not self.builds_stopped and not cancelled:
                log.error("index not built", exc_info=error, extra={"kind": spec.kind, "reason": reason})
            self._mailbox.call(functools.partial(self._end, failed=not cancelled))
            future.set_exception(self.close_reason if cancelled else builder.failed(error))
            return
        self._mailbox.call(self._end).result()
        future.set_result(report)

    def _make_progress(self, share: float) -> None:
        self._progress = share

    def _swap(self, spec: Spec, built: builder.Built) -> int | None:
        """Takes a new structure into use; returns its rows. None, and nothing is done, if the vectors were replaced
        while it was built: it is to be built again."""
        if built.generation != self.generation:
            self._vectors.note_removals(True)
            return None
        other_index = spec != self._vectors.spec
        rows = self._vectors.swap(spec, built.structure, built.last_label)
        self._recall.structure_changed(other_index=other_index)
        self._saved_rows, self.damage = 0, None
        return rows

    def _begin_requested_saves(self) -> None:
        requested = list(self.saves_requested)
        self.saves_requested.clear()
        structure = self._structure_figures()
        saves = [] if (save := self._text.saving()) is None else [save]
        if structure is not None and policy.save_pays(structure, 1):
            saves.append(self._save)
        if saves:
            work = functools.partial(self._save_in_background, saves, requested)
            self._begin("saving", self._pools.builders, work)
        else:
            futures.resolve(requested, 0)

    def _save_in_background(self, saves: Sequence[Callable[[], int]], requested: Sequence[Future[int]] = ()) -> None:
        try:
            rows = max(save() for save in saves)
        except Exception as error:
            log.error("snapshot not saved", exc_info=error)
            self._mailbox.call(functools.partial(self._end, failed=True))
            futures.fail(requested, error)
        else:
            self._mailbox.call(self._end)
            futures.resolve(requested, rows)

    def _save(self) -> int:
        """Saves a snapshot of the structure; returns its rows. Raises OSError."""
        generation, structure = self.generation, self._vectors.structure  # in this order: `replace` may come between
        if structure is None:
            return 0
        assert self.seq is not None
        builder.save(self._vectors.spec, self._source, structure, self.seq, generation)
        self._saved_rows = structure.rows.count
        return self._saved_rows
