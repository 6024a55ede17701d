"""The delivery loop, with a feed in memory, a sink that fails as told, and a clock that only moves when it is read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vecd.delivery import AttemptFailed, DeadLetterFile, Delivery, DeliveryBatch, DeliveryOptions, Observer, Refused
from vecd.errors import Code, VecError


class Arrived(NamedTuple):
    """A message of the feed."""

    events: list[dict[str, Any]]
    cursor: str


def event(seq: int, type: str = "document.added") -> dict[str, Any]:
    return {"type": type, "seq": seq, "cursor": f"log:{seq}"}


def arrived(*events: dict[str, Any]) -> Arrived:
    return Arrived(list(events), events[-1]["cursor"])


def bookmark(seq: int) -> Arrived:
    return Arrived([], f"log:{seq}")


#: In a feed's script: nothing arrives for a moment.
QUIET = None


class EventSource:
    """Returns what its script says: a message, nothing for a moment, or an error."""

    def __init__(self, *script: Arrived | VecError | None) -> None:
        self.script = list(script)
        self.committed = "log:0"
        self.commits: list[tuple[str, int]] = []
        self.rewinds = 0
        self.waits: list[float | None] = []
        self.on_commit: Callable[[], None] = lambda: None

    @property
    def ended(self) -> bool:
        return not self.script

    def read(self, wait_s: float | None) -> Arrived | None:
        self.waits.append(wait_s)
        while self.script:
            next_ = self.script.pop(0)
            if isinstance(next_, VecError):
                raise next_
            if next_ is not None or wait_s is not None:
                return next_
        return None

    def commit(self, cursor: str, events: int) -> None:
        self.committed = cursor
        self.commits.append((cursor, events))
        self.on_commit()


class Stop(threading.Event):
    """Never really waits; keeps how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.stops_in_pause = False

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        if self.stops_in_pause:
            self.set()
        return self.is_set()


class Sink:
    """Fails as often as its script says, and keeps every attempt."""

    def __init__(self, *failures: Exception | None) -> None:
        self.failures = list(failures)
        self.attempts: list[DeliveryBatch[bytes]] = []
        self.on_deliver: Callable[[], None] = lambda: None

    def deliver(self, batch: DeliveryBatch[bytes]) -> None:
        self.attempts.append(batch)
        self.on_deliver()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure

    @property
    def seqs(self) -> list[list[int]]:
        return [[json.loads(line)["seq"] for line in batch.items] for batch in self.attempts]


class Letters:
    """Dead letters in memory."""

    def __init__(self) -> None:
        self.kept: list[tuple[DeliveryBatch[bytes], AttemptFailed]] = []

    def add(self, batch: DeliveryBatch[bytes], failure: AttemptFailed) -> None:
        self.kept.append((batch, failure))


class Seen(Observer[bytes]):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.retries: list[int] = []
        self.given_up: list[str] = []

    def retrying(self, batch: DeliveryBatch[bytes], failure: AttemptFailed, pause_s: float) -> None:
        self.retries.append(batch.attempt)

    def gave_up(self, batch: DeliveryBatch[bytes], failure: AttemptFailed) -> None:
        self.given_up.append(batch.cursor)


class Clock:
    """Moves by a step whenever it is read."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def lines(events: Sequence[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(each).encode() + b"\n" for each in events]


class Run:
    """A delivery and all that it is made of."""

    def __init__(
        self,
        feed: EventSource,
        sink: Sink,
        options: DeliveryOptions | None = None,
        *,
        letters: bool = True,
        step_s: float = 0.0,
    ) -> None:
        self.feed, self.sink, self.stop, self.letters, self.seen = feed, sink, Stop(), Letters(), Seen()
        self.delivery = Delivery(
            feed,
            sink,
            options or DeliveryOptions(),
            encode=lines,
            stop=self.stop,
            dead_letters=self.letters if letters else None,
            observer=self.seen,
            clock=Clock(step_s),
        )

    def __call__(self) -> Run:
        self.delivery.run()
        return self


FAILED = AttemptFailed("it failed", status=1)


# --- batches --------------------------------------------------------------------------------------------------------


def test_what_has_accumulated_is_delivered_together() -> None:
    run = Run(EventSource(arrived(event(1)), arrived(event(2), event(3)), QUIET, arrived(event(4))), Sink())()
    assert run.sink.seqs == [[1, 2, 3], [4]]
    assert run.feed.commits == [("log:3", 3), ("log:4", 1)]


def test_a_feed_without_a_pause_is_delivered_when_its_first_event_has_waited_long_enough() -> None:
    feed = EventSource(*(arrived(event(seq)) for seq in range(1, 9)))
    run = Run(feed, Sink(), DeliveryOptions(age_s=0.25), step_s=0.1)()
    assert run.sink.seqs == [[1, 2, 3], [4, 5, 6], [7, 8]]


def test_the_wait_for_a_first_event_has_no_bound_and_for_more_it_is_short() -> None:
    run = Run(EventSource(arrived(event(1)), QUIET, arrived(event(2))), Sink(), DeliveryOptions(idle_s=0.02))()
    assert run.feed.waits[:3] == [None, 0.02, None]


@pytest.mark.parametrize("events_max", [1, 2, 3, 4, 7])
def test_no_batch_is_larger_than_the_limit_and_together_they_are_the_feed(events_max: int) -> None:
    run = Run(EventSource(arrived(*map(event, range(1, 8)))), Sink(), DeliveryOptions(events_max=events_max))()
    assert [seq for batch in run.sink.seqs for seq in batch] == list(range(1, 8))
    assert max(map(len, run.sink.seqs)) == events_max
    assert run.feed.commits == [(f"log:{batch[-1]}", len(batch)) for batch in run.sink.seqs]


def test_the_events_of_a_document_stay_in_one_batch() -> None:
    first = [event(1), event(2, "chunk.added"), event(3, "chunk.added")]
    second = [event(4), event(5, "chunk.added")]
    assert Run(EventSource(arrived(*first, *second)), Sink(), DeliveryOptions(events_max=4))().sink.seqs == [
        [1, 2, 3],
        [4, 5],
    ]


def test_a_document_with_more_events_than_a_batch_may_hold_is_split() -> None:
    whole = [event(1), *(event(seq, "chunk.added") for seq in range(2, 6))]
    assert Run(EventSource(arrived(*whole)), Sink(), DeliveryOptions(events_max=2))().sink.seqs == [[1, 2], [3, 4], [5]]


def test_inside_a_snapshot_the_position_moves_only_at_its_cursors() -> None:
    snapshot = [{**event(seq), "cursor": None} for seq in (1, 2, 3)]
    snapshot[-1]["cursor"] = "log:9@3"
    run = Run(EventSource(Arrived(snapshot, "log:9@3")), Sink(), DeliveryOptions(events_max=2))()
    assert run.sink.seqs == [[1, 2], [3]]
    assert run.feed.commits == [("log:0", 2), ("log:9@3", 1)]


def test_a_bookmark_moves_the_position_and_is_not_delivered() -> None:
    run = Run(EventSource(bookmark(5), bookmark(5), bookmark(7)), Sink())()
    assert run.sink.attempts == []
    assert run.feed.commits == [("log:5", 0), ("log:7", 0)]


def test_events_without_a_line_are_committed_and_not_delivered() -> None:
    feed, sink = EventSource(arrived(event(1))), Sink()
    Delivery(feed, sink, DeliveryOptions(), encode=lambda events: [], stop=Stop(), dead_letters=None).run()
    assert sink.attempts == []
    assert feed.commits == [("log:1", 1)]


def test_what_was_read_before_the_feed_failed_is_delivered_before_that_is_raised() -> None:
    run = Run(EventSource(arrived(event(1)), VecError(Code.COMPACTED, "gone")), Sink())
    with pytest.raises(VecError, match="gone"):
        run()
    assert run.sink.seqs == [[1]]
    assert run.feed.committed == "log:1"


def test_what_was_read_and_not_committed_before_a_rewind_is_not_delivered_twice() -> None:
    """The first of two batches is committed through a new connection, which sends the events of the second again."""
    feed = EventSource(arrived(event(1), event(2)), QUIET, arrived(event(2)))

    def rewind() -> None:
        feed.rewinds, feed.on_commit = 1, lambda: None

    feed.on_commit = rewind
    run = Run(feed, Sink(), DeliveryOptions(events_max=1))()
    assert run.sink.seqs == [[1], [2]]
    assert feed.commits == [("log:1", 1), ("log:2", 1)]


# --- failure --------------------------------------------------------------------------------------------------------


def test_a_batch_that_fails_is_tried_again_and_the_position_waits_for_it() -> None:
    feed = EventSource(arrived(event(1)), QUIET, arrived(event(2)))
    sink = Sink(FAILED, FAILED)
    committed: list[str] = []
    sink.on_deliver = lambda: committed.append(feed.committed)
    run = Run(feed, sink)()
    assert sink.seqs == [[1], [1], [1], [2]]
    assert [batch.attempt for batch in sink.attempts] == [1, 2, 3, 1]
    assert committed == ["log:0"] * 3 + ["log:1"]
    assert (run.seen.retries, run.letters.kept, run.delivery.given_up) == ([1, 2], [], 0)


def test_the_pauses_between_attempts_are_random_parts_of_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[float, float]] = []

    def largest(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", largest)
    run = Run(
        EventSource(arrived(event(1))),
        Sink(*[FAILED] * 6),
        DeliveryOptions(attempts_max=6, retry_s=1.0, retry_s_max=5.0),
    )()
    assert run.stop.pauses == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert {low for low, _ in bounds} == {0.0}


def test_a_batch_that_is_given_up_is_kept_before_the_position_moves_and_the_feed_goes_on() -> None:
    feed = EventSource(arrived(event(1)), QUIET, arrived(event(2)))
    run = Run(feed, Sink(FAILED, FAILED), DeliveryOptions(attempts_max=2))
    kept: list[int] = []
    feed.on_commit = lambda: kept.append(len(run.letters.kept))
    run()
    ((batch, failure),) = run.letters.kept
    assert (batch.cursor, batch.attempt, failure) == ("log:1", 2, FAILED)
    assert kept == [1, 1]
    assert run.sink.seqs == [[1], [1], [2]]
    assert (run.delivery.given_up, run.seen.given_up) == (1, ["log:1"])


def test_a_batch_that_cannot_succeed_is_given_up_at_once() -> None:
    run = Run(EventSource(arrived(event(1))), Sink(AttemptFailed("it is too large", final=True)))()
    assert (len(run.sink.attempts), len(run.letters.kept), run.stop.pauses) == (1, 1, [])


def test_without_dead_letters_the_delivery_ends_before_the_batch_that_fails() -> None:
    run = Run(
        EventSource(arrived(event(1), event(2))), Sink(FAILED, FAILED), DeliveryOptions(attempts_max=2), letters=False
    )
    with pytest.raises(VecError, match=r"it failed \(2 events, tried 2 times\)") as caught:
        run()
    assert caught.value.code == Code.HANDLER_FAILED
    assert run.feed.commits == []


def test_without_a_bound_a_batch_is_tried_until_it_is_delivered() -> None:
    run = Run(EventSource(arrived(event(1))), Sink(*[FAILED] * 100), DeliveryOptions(attempts_max=None))()
    assert len(run.sink.attempts) == 101
    assert run.feed.committed == "log:1"


def test_an_error_that_may_pass_is_an_attempt_that_failed() -> None:
    busy = VecError(Code.BUSY, "the broker is busy", "try again")
    run = Run(EventSource(arrived(event(1))), Sink(busy, busy), DeliveryOptions(attempts_max=2))()
    ((_, failure),) = run.letters.kept
    assert failure.reason == "the broker is busy"
    assert failure.details["error"]["hint"] == "try again"
    assert failure.details == {"error": busy.to_wire()}


@pytest.mark.parametrize("error", [VecError(Code.HANDLER_FAILED, "no such command"), RuntimeError("a bug")])
def test_any_other_error_ends_the_delivery_before_the_batch(error: Exception) -> None:
    run = Run(EventSource(arrived(event(1))), Sink(error))
    with pytest.raises(type(error), match=str(error)):
        run()
    assert (len(run.sink.attempts), run.letters.kept, run.feed.commits) == (1, [], [])


def test_attempts_that_reach_nobody_are_repeated_without_a_limit_and_count_for_nothing() -> None:
    away = AttemptFailed("nobody answers", unreachable=True)
    sink = Sink(*[away] * 7, FAILED, away, FAILED)
    run = Run(EventSource(arrived(event(1))), sink, DeliveryOptions(attempts_max=2))()
    assert len(run.sink.attempts) == 10
    assert run.seen.retries == list(range(1, 10))
    assert [letter.attempt for letter, _ in run.letters.kept] == [10]
    assert run.feed.commits == [("log:1", 1)]


def test_refused_items_are_dead_letters_one_by_one_and_the_others_are_not_sent_again() -> None:
    sink = Sink(FAILED, Refused({2: "too large", 0: "no queue"}))
    run = Run(EventSource(arrived(event(1), event(2), event(3))), sink)()
    assert run.sink.seqs == [[1, 2, 3], [1, 2, 3]]
    assert [
        ([json.loads(line)["seq"] for line in letter.items], failure.reason) for letter, failure in run.letters.kept
    ] == [
        ([1], "no queue"),
        ([3], "too large"),
    ]
    assert run.delivery.given_up == 2
    assert run.feed.commits == [("log:3", 3)]


def test_the_first_items_that_an_attempt_delivered_are_not_sent_again() -> None:
    partly = AttemptFailed("a confirm is late", unreachable=True, delivered=2, refused={1: "no queue"})
    sink = Sink(partly, AttemptFailed("it is away", unreachable=True, delivered=1))
    run = Run(EventSource(arrived(*map(event, range(1, 6)))), sink)()
    assert run.sink.seqs == [[1, 2, 3, 4, 5], [3, 4, 5], [4, 5]]
    assert [json.loads(letter.items[0])["seq"] for letter, _ in run.letters.kept] == [2]
    assert run.feed.commits == [("log:5", 5)]


def test_a_batch_of_which_every_attempt_delivers_something_is_not_given_up() -> None:
    sink = Sink(*[AttemptFailed("it is slow", delivered=1)] * 4)
    run = Run(EventSource(arrived(*map(event, range(1, 6)))), sink, DeliveryOptions(attempts_max=2))()
    assert run.letters.kept == []
    assert run.seen.retries == [1] * 4
    assert run.sink.seqs[-1] == [5]


def test_without_dead_letters_a_refused_item_ends_the_delivery_before_its_batch() -> None:
    run = Run(EventSource(arrived(event(1), event(2))), Sink(Refused({1: "too large"})), letters=False)
    with pytest.raises(VecError, match="too large"):
        run()
    assert run.feed.commits == []


def test_a_batch_has_at_most_so_many_messages() -> None:
    feed = EventSource(*(arrived(event(seq)) for seq in range(1, 6)))
    run = Run(feed, Sink(), DeliveryOptions(messages_max=2))()
    assert run.sink.seqs == [[1, 2], [3, 4], [5]]


def test_dead_letters_that_cannot_be_kept_end_the_delivery_before_the_batch() -> None:
    run = Run(EventSource(arrived(event(1))), Sink(FAILED), DeliveryOptions(attempts_max=1))

    def refuse(batch: DeliveryBatch[bytes], failure: AttemptFailed) -> None:
        raise VecError(Code.INVALID_REQUEST, "no room")

    run.letters.add = refuse  # type: ignore[method-assign]
    with pytest.raises(VecError, match="no room"):
        run()
    assert run.feed.commits == []


# --- stop -----------------------------------------------------------------------------------------------------------


def test_a_stop_during_an_attempt_that_succeeds_keeps_its_outcome() -> None:
    run = Run(EventSource(arrived(event(1)), QUIET, arrived(event(2))), Sink())
    run.sink.on_deliver = run.stop.set
    run()
    assert run.sink.seqs == [[1]]
    assert run.feed.commits == [("log:1", 1)]


def test_a_stop_during_an_attempt_that_fails_gives_nothing_up() -> None:
    run = Run(EventSource(arrived(event(1))), Sink(FAILED), DeliveryOptions(attempts_max=1))
    run.sink.on_deliver = run.stop.set
    run()
    assert (run.feed.commits, run.letters.kept, run.seen.given_up) == ([], [], [])


def test_a_stop_ends_the_pause_between_two_attempts() -> None:
    run = Run(EventSource(arrived(event(1))), Sink(FAILED))
    run.stop.stops_in_pause = True
    run()
    assert (len(run.sink.attempts), len(run.stop.pauses), run.feed.commits) == (1, 1, [])


def test_an_event_of_threading_stops_a_delivery_that_waits_to_try_again() -> None:
    stop, failing = threading.Event(), threading.Event()
    sink = Sink(FAILED)
    sink.on_deliver = failing.set
    options = replace(DeliveryOptions(), retry_s=1e9, retry_s_max=1e9)
    delivery = Delivery(EventSource(arrived(event(1))), sink, options, encode=lines, stop=stop, dead_letters=Letters())
    thread = threading.Thread(target=delivery.run)
    thread.start()
    assert failing.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


# --- the file of dead letters ---------------------------------------------------------------------------------------


def test_a_dead_letter_is_a_line_of_json_with_the_failure_and_the_events(tmp_path: Path) -> None:
    letters = DeadLetterFile(tmp_path / "dead")
    for attempt in (3, 1):
        batch = DeliveryBatch(lines([event(1), event(2)]), 2, "log:2", attempt)
        letters.add(batch, AttemptFailed("it failed", command="run", status=7))
    first, second = map(json.loads, (tmp_path / "dead").read_text().splitlines())
    assert first == {
        "time": first["time"], "command": "run", "status": 7, "attempts": 3, "cursor": "log:2",
        "events": [event(1), event(2)],
    }  # fmt: skip
    assert second["attempts"] == 1


@pytest.mark.parametrize("name", ["", "/dev/null", "missing/file"])
def test_a_place_that_cannot_keep_dead_letters_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VecError, match="cannot write the dead letters") as caught:
        DeadLetterFile(tmp_path / name).add(DeliveryBatch([b"{}\n"], 1, "log:1"), FAILED)
    assert caught.value.code == Code.INVALID_REQUEST
