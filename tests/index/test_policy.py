"""The maintenance policy, as a table: figures in, decision out. No index, no thread, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vecd.index.policy import Action, Decision, Figures, StructureFigures, Tuning, decide, drain_s

TUNING = Tuning()
QUIET = Figures(structure=StructureFigures(rows=100_000, dead=0, can_be_saved=True, saved_rows=100_000), rows_min=8_192)
SEARCHED = replace(QUIET, since_search_s=0.01)
NOTHING = Decision(Action.NOTHING)


def of_structure(figures: Figures = QUIET, **changes: object) -> Figures:
    assert figures.structure is not None
    return replace(figures, structure=replace(figures.structure, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figures", "decision"),
    [
        (QUIET, NOTHING),
        (Figures(), NOTHING),
        # a build
        (Figures(tail=8_191, rows_min=8_192), NOTHING),
        (Figures(tail=8_192, rows_min=8_192), Decision(Action.BUILD, True, "growth")),
        (Figures(tail=8_192, rows_min=8_192, damaged=True), Decision(Action.BUILD, True, "damaged")),
        (Figures(tail=8_192, rows_min=8_192, builds=False), NOTHING),
        (Figures(tail=8_192, rows_min=8_192, builds_stopped=True), NOTHING),
        (Figures(tail=8_192, rows_min=8_192, retry_in_s=0.1), NOTHING),
        (Figures(tail=8_192, rows_min=8_192, running=True), NOTHING),
        (Figures(tail=8_192, rows_min=8_192, closed=True), NOTHING),
        (of_structure(dead=20_000), NOTHING),
        (of_structure(dead=20_001), Decision(Action.BUILD, True, "compaction")),
        (of_structure(worn=True), Decision(Action.BUILD, True, "drift")),
        (of_structure(replace(QUIET, tail=100_000)), Decision(Action.BUILD, True, "growth")),
        (of_structure(replace(QUIET, tail=9_999), grows=False), NOTHING),
        (of_structure(replace(QUIET, tail=10_000), grows=False), Decision(Action.BUILD, True, "growth")),
        # draining
        (replace(QUIET, tail=1), Decision(Action.DRAIN)),
        (replace(QUIET, tail=8_193), Decision(Action.DRAIN, urgent=True)),
        (replace(QUIET, tail=8_193, since_drain_s=0.001), Decision(Action.DRAIN)),
        (replace(SEARCHED, tail=100, since_drain_s=0.1), Decision(Action.NOTHING, wake_in_s=TUNING.pause_s)),
        (replace(SEARCHED, tail=100, since_drain_s=10), Decision(Action.DRAIN)),
        (replace(SEARCHED, tail=8_192, since_drain_s=0.1), Decision(Action.DRAIN)),
        (replace(SEARCHED, tail=100, since_drain_s=0.1, settling=True), Decision(Action.DRAIN)),
        (replace(QUIET, tail=1, builds_stopped=True), Decision(Action.DRAIN)),
        (replace(QUIET, tail=1, running=True), NOTHING),
        # packing, measuring, saving
        (replace(QUIET, tail_worn=True, measurable=True), Decision(Action.PACK_TAIL)),
        (replace(QUIET, measurable=True, measure_in_s=1), Decision(Action.MEASURE, urgent=True)),
        (replace(SEARCHED, measurable=True), Decision(Action.MEASURE, urgent=True)),
        (replace(SEARCHED, measurable=True, measure_in_s=1), Decision(Action.NOTHING, wake_in_s=TUNING.quiet_s)),
        (of_structure(rows=109_999), NOTHING),
        (of_structure(rows=110_000), Decision(Action.SAVE, urgent=True)),
        (of_structure(rows=4_999, saved_rows=0), NOTHING),
        (of_structure(rows=5_000, saved_rows=0), Decision(Action.SAVE, urgent=True)),
        (of_structure(rows=5_000, saved_rows=0, can_be_saved=False), NOTHING),
        # requests
        (replace(QUIET, builds_requested=1, saves_requested=1), Decision(Action.BUILD_REQUESTED, urgent=True)),
        (replace(QUIET, saves_requested=1, tail=1), Decision(Action.SAVE_REQUESTED, urgent=True)),
        (replace(QUIET, saves_requested=1, running=True), NOTHING),
        (replace(QUIET, builds_requested=1, builds_stopped=True, running=True), Decision(Action.REFUSE_REQUESTS)),
        (replace(QUIET, saves_requested=1, closed=True), Decision(Action.REFUSE_REQUESTS)),
        (replace(QUIET, settling=True, closed=True), Decision(Action.REFUSE_REQUESTS)),
        (replace(QUIET, settling=True), Decision(Action.REPORT_SETTLED)),
        (replace(QUIET, settling=True, text_running=True), NOTHING),
        (replace(QUIET, settling=True, measurement_waits=True), NOTHING),
        (replace(QUIET, settling=True, measurable=True), Decision(Action.MEASURE, urgent=True)),
        # full text runs beside a build, and not after closing
        (replace(QUIET, text_due=True, running=True), Decision(Action.MAINTAIN_TEXT, urgent=True)),
        (replace(QUIET, text_due=True, closed=True), NOTHING),
    ],
)
def test_what_is_done_next_follows_from_the_figures(figures: Figures, decision: Decision) -> None:
    assert decide(figures, TUNING) == decision
    assert decision.due == (decision.action is not Action.NOTHING)


def test_draining_slices_grow_with_a_pressing_tail_up_to_the_longest() -> None:
    assert drain_s(10, TUNING, quiet=False) == TUNING.slice_s
    assert drain_s(4 * TUNING.tail_pressing, TUNING, quiet=False) == 4 * TUNING.slice_s
    assert drain_s(1_000 * TUNING.tail_pressing, TUNING, quiet=False) == TUNING.quiet_slice_s
    assert drain_s(10, TUNING, quiet=True) == TUNING.quiet_slice_s
