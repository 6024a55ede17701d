"""The maintenance policy of a LiveIndex: a pure function from figures to the next action.

It knows no index, thread or clock: `Figures` has all its input, as counts and seconds. maintenance.py gathers the
figures and carries out the decision.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Tuning:
    """When maintenance is due, and how much is done at once."""

    rows_min: int | None = None  # before a structure is built of a tail; None: the default of the kind
    dead_share_max: float = 0.2  # of a structure's rows, before it is rebuilt
    tail_share_max: float = 0.1  # of its rows, before a structure that cannot grow is rebuilt
    slice_s: float = 0.001  # of draining while searches arrive: two or three rows of a graph
    pause_s: float = 0.05  # without a search, after which draining does not pause
    quiet_slice_s: float = 0.02  # as slice_s, on all cores, after `quiet_s` without a search
    quiet_s: float = 1.0
    tail_pressing: int = 8_192  # rows from which draining gets its share of the time even while searches wait
    save_share: float = 0.1  # of new rows, before a structure is saved again
    save_rows_min: int = 5_000  # the minimum number of new rows for a snapshot
    save_rows_at_stop: int = 1_000  # the same, when the daemon stops
    retry_s: float = 60.0  # after a build or a save that failed


class Action(Enum):
    """What maintenance does next."""

    NOTHING = "nothing is due, or nothing that can be done now"
    REFUSE_REQUESTS = "fail the requests that will not be carried out"
    MAINTAIN_TEXT = "start a merge or a snapshot of full text"
    BUILD_REQUESTED = "start the oldest requested build"
    SAVE_REQUESTED = "start the requested snapshots"
    BUILD = "start a build"
    DRAIN = "move rows from the tail into the structure"
    PACK_TAIL = "remove deleted rows from the tail"
    MEASURE = "take one step of a recall measurement"
    SAVE = "start a snapshot of the structure"
    REPORT_SETTLED = "report that no maintenance is left"


class Decision(NamedTuple):
    """An action, and how urgent it is."""

    action: Action
    urgent: bool = False  # done even if searches or writes wait
    reason: str = ""  # of a build: growth, compaction, drift or damaged
    wake_in_s: float | None = None  # something is due but pauses while searches arrive; decide again then

    @property
    def due(self) -> bool:
        return self.action is not Action.NOTHING


@dataclass(frozen=True, slots=True)
class StructureFigures:
    """Figures of a structure."""

    rows: int  # living and deleted ones
    dead: int  # deleted ones
    grows: bool = True
    worn: bool = False
    saved_rows: int = 0  # that its snapshot holds
    can_be_saved: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """The input of the policy. Times are seconds."""

    structure: StructureFigures | None = None  # None: there is none
    tail: int = 0  # living rows in the tail
    tail_worn: bool = False  # whether the tail has enough deleted rows for packing to pay
    builds: bool = True  # whether the kind of index has structures at all
    rows_min: int = 1  # the minimum number of rows for a structure
    damaged: bool = False  # the structure's snapshot could not be used
    running: bool = False  # a load, build or save runs in the background
    text_due: bool = False  # a merge or snapshot of full text is due
    text_running: bool = False  # a load, merge or save of full text runs in the background
    measurable: bool = False  # the recall of a query can be measured
    measurement_waits: bool = False  # a measurement waits for an asynchronous structure
    builds_requested: int = 0
    saves_requested: int = 0
    settling: bool = False  # a caller waits until no maintenance is left
    builds_stopped: bool = False  # no build starts any more
    closed: bool = False  # no task starts any more
    since_search_s: float = 1e9
    since_drain_s: float = 1e9
    retry_in_s: float = 0.0  # after a failed build or save
    measure_in_s: float = 0.0  # before the next step of a measurement while searches arrive


def decide(figures: Figures, tuning: Tuning) -> Decision:
    """The next action. An action that only starts a background task is urgent: it takes no time."""
    refused = (figures.builds_stopped and figures.builds_requested) or (
        figures.closed and (figures.settling or figures.saves_requested)
    )
    if refused:
        return Decision(Action.REFUSE_REQUESTS)
    if not figures.closed and figures.text_due:
        return Decision(Action.MAINTAIN_TEXT, urgent=True)
    if figures.running or figures.closed:
        return Decision(Action.NOTHING)
    if figures.builds_requested:
        return Decision(Action.BUILD_REQUESTED, urgent=True)
    if figures.saves_requested:
        return Decision(Action.SAVE_REQUESTED, urgent=True)
    waits = figures.builds_stopped or figures.retry_in_s > 0
    if not waits and (reason := build_reason(figures, tuning)) is not None:
        return Decision(Action.BUILD, urgent=True, reason=reason)
    if figures.structure is not None and figures.structure.grows and figures.tail:
        if _drain_rests(figures, tuning):
            return Decision(Action.NOTHING, wake_in_s=tuning.pause_s)
        return Decision(Action.DRAIN, urgent=_drain_presses(figures, tuning))
    if figures.tail_worn:
        return Decision(Action.PACK_TAIL)
    if figures.measurable:
        if figures.since_search_s <= tuning.quiet_s and figures.measure_in_s > 0:
            return Decision(Action.NOTHING, wake_in_s=tuning.quiet_s)
        return Decision(Action.MEASURE, urgent=True)
    if not waits and figures.structure is not None:
        unsaved_max = max(tuning.save_rows_min, int(tuning.save_share * figures.structure.saved_rows))
        if save_pays(figures.structure, unsaved_max):
            return Decision(Action.SAVE, urgent=True)
    if figures.settling and not figures.text_running and not figures.measurement_waits:
        return Decision(Action.REPORT_SETTLED)
    return Decision(Action.NOTHING)


def build_reason(figures: Figures, tuning: Tuning) -> str | None:
    """Why a structure must be built now; None: it need not."""
    if not figures.builds:
        return None
    structure = figures.structure
    if structure is None:
        return None if figures.tail < figures.rows_min else "damaged" if figures.damaged else "growth"
    if structure.dead > tuning.dead_share_max * structure.rows:
        return "compaction"
    if structure.worn:
        return "drift"
    grown = max(figures.rows_min, structure.rows * (1 if structure.grows else tuning.tail_share_max))
    return "growth" if figures.tail >= grown else None


def save_pays(structure: StructureFigures, rows: int) -> bool:
    """Whether the structure has at least `rows` rows that are not in its snapshot."""
    return structure.can_be_saved and structure.rows - structure.saved_rows >= rows


def drain_s(tail: int, tuning: Tuning, *, quiet: bool) -> float:
    """The duration of one slice of draining. If writes are faster than draining, slices grow with the tail: otherwise
    the tail, and the time of each search, would grow without bound."""
    if quiet:
        return tuning.quiet_slice_s
    stretch = max(1.0, tail / max(1, tuning.tail_pressing))
    return min(tuning.quiet_slice_s, tuning.slice_s * stretch)


def _drain_rests(figures: Figures, tuning: Tuning) -> bool:
    """Whether draining pauses because searches arrive. The longer the tail, the shorter the pause."""
    if figures.settling or figures.since_search_s > tuning.pause_s or figures.tail >= tuning.tail_pressing:
        return False
    rest_s = tuning.slice_s * ((tuning.tail_pressing / figures.tail) ** 2 - 1)
    return figures.since_drain_s < rest_s


def _drain_presses(figures: Figures, tuning: Tuning) -> bool:
    """Whether the tail is so long that searches occasionally wait for a slice of draining."""
    tail, pressing = figures.tail, tuning.tail_pressing
    return tail > pressing and figures.since_drain_s > 5 * tuning.slice_s * pressing / tail
