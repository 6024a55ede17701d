"""The queue: by priority, then by age, among those that may run; nothing waits without need, nothing is overtaken."""

from __future__ import annotations

import random
import time

from vecd.jobs.queue import Queue, QueuedJob

FREE = (None, None)


def queue_of(*entries: QueuedJob, limits: dict[str, tuple[int | None, int | None]] | None = None) -> Queue:
    queue = Queue(lambda kind: (limits or {}).get(kind, FREE))
    for entry in entries:
        queue.put(entry)
    return queue


def taken(queue: Queue, now_us: int = 0) -> list[int]:
    """All that can be taken at once."""
    found = []
    while (entry := queue.take(now_us)) is not None:
        found.append(entry.job_id)
    return found


def test_a_higher_priority_is_sooner_and_then_the_older_job() -> None:
    queue = queue_of(QueuedJob(1, "a"), QueuedJob(2, "a", priority=5), QueuedJob(3, "a"), QueuedJob(4, "a", priority=5))
    assert taken(queue) == [2, 4, 1, 3]


def test_a_delayed_job_is_taken_when_its_time_has_come() -> None:
    queue = queue_of(QueuedJob(1, "a", ready_us=100), QueuedJob(2, "a"))
    assert queue.next_us() == 100
    assert taken(queue, 99) == [2]
    assert taken(queue, 100) == [1]
    assert queue.next_us() is None


def test_jobs_with_one_lock_are_taken_one_after_the_other() -> None:
    queue = queue_of(*(QueuedJob(number, "a", lock_key="k") for number in (1, 2, 3)), QueuedJob(4, "a"))
    first = queue.take(0)
    assert first is not None
    assert first.job_id == 1
    assert taken(queue) == [4]
    queue.release(first)
    assert taken(queue) == [2]


def test_a_kind_and_a_library_take_no_more_than_their_limits() -> None:
    limits: dict[str, tuple[int | None, int | None]] = {"a": (3, 1)}
    entries = [QueuedJob(number, "a", library=f"l{number % 2}") for number in range(1, 5)]
    queue = queue_of(*entries, QueuedJob(5, "a"), QueuedJob(6, "a"), QueuedJob(7, "b"), limits=limits)
    assert taken(queue) == [1, 2, 5, 7]  # one of each library, and three of the kind
    queue.release(entries[0])
    assert taken(queue) == [3]


def test_what_is_paused_is_not_taken_until_it_is_resumed() -> None:
    queue = queue_of(QueuedJob(1, "a"), QueuedJob(2, "b"))
    queue.pause(["a"])
    assert taken(queue) == [2]
    queue.pause([""])
    queue.resume(["a"])
    assert taken(queue) == []
    queue.resume([""])
    assert taken(queue) == [1]


def test_a_job_that_waits_for_another_is_taken_when_it_does_not_any_more() -> None:
    queue = queue_of(QueuedJob(1, "a", waits=True))
    assert taken(queue) == []
    queue.put(QueuedJob(1, "a"))
    assert taken(queue) == [1]


def test_a_removed_job_is_not_taken_wherever_it_was() -> None:
    parked = [QueuedJob(number, "a", lock_key="k") for number in (1, 2, 3)]
    queue = queue_of(*parked, QueuedJob(4, "a", ready_us=50), QueuedJob(5, "a"))
    first = queue.take(0)
    assert first is parked[0]
    assert taken(queue) == [5]
    for job_id in (2, 4):
        queue.remove(job_id)
    queue.release(first)
    assert taken(queue, 100) == [3]
    assert len(queue) == 0


def test_jobs_that_the_daemon_died_of_run_one_at_a_time() -> None:
    entries = [QueuedJob(1, "a", suspect=True), QueuedJob(2, "b", suspect=True), QueuedJob(3, "a")]
    queue = queue_of(*entries)
    assert taken(queue) == [1, 3]
    queue.release(entries[0])
    assert taken(queue) == [2]


def test_brief_jobs_are_taken_together_but_not_past_a_job_that_is_not() -> None:
    queue = queue_of(QueuedJob(1, "a", brief=True), QueuedJob(2, "b"), QueuedJob(3, "a", brief=True))
    first = queue.take(0)
    assert first is not None
    assert queue.take(0, brief=True) is None
    assert taken(queue) == [2, 3]


class Model:
    """The same by looking at every job each time."""

    def __init__(self, limits: dict[str, tuple[int | None, int | None]]) -> None:
        self.limits = limits
        self.pending: dict[int, QueuedJob] = {}
        self.running: list[QueuedJob] = []
        self.paused: set[str] = set()

    def may(self, entry: QueuedJob, now_us: int) -> bool:
        kind_max, library_max = self.limits.get(entry.kind, FREE)
        of_kind = [each for each in self.running if each.kind == entry.kind]
        of_library = [each for each in of_kind if each.library == entry.library]
        return not (
            entry.waits
            or entry.ready_us > now_us
            or self.paused & {"", entry.kind}
            or (kind_max is not None and len(of_kind) >= kind_max)
            or (library_max is not None and entry.library is not None and len(of_library) >= library_max)
            or (entry.lock_key is not None and any(each.lock_key == entry.lock_key for each in self.running))
            or (entry.suspect and any(each.suspect for each in self.running))
        )

    def take(self, now_us: int) -> QueuedJob | None:
        found = [entry for entry in self.pending.values() if self.may(entry, now_us)]
        if not found:
            return None
        best = min(found, key=lambda entry: entry.order)
        del self.pending[best.job_id]
        self.running.append(best)
        return best


def test_whatever_comes_and_goes_the_best_job_that_may_run_is_taken() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    limits = {"a": (3, 2), "b": (None, 1), "c": (1, None)}
    queue, model = queue_of(limits=limits), Model(limits)
    now_us = job_id = 0
    for _ in range(6_000):
        now_us += chance.randrange(3)
        act = chance.random()
        if act < 0.3:
            job_id += 1
            entry = QueuedJob(
                job_id,
                chance.choice("abcd"),
                chance.choice((None, "x", "y", "z")),
                chance.randrange(3),
                chance.choice((0, 0, now_us + chance.randrange(20))),
                chance.choice((None, None, "k", "l")),
                chance.random() < 0.1,
                chance.random() < 0.1,
            )
            queue.put(entry)
            model.pending[job_id] = entry
        elif act < 0.35 and model.pending:
            gone = chance.choice(sorted(model.pending))
            queue.remove(gone)
            del model.pending[gone]
        elif act < 0.6 and model.running:
            ended = model.running.pop(chance.randrange(len(model.running)))
            queue.release(ended)
            if chance.random() < 0.2:  # it is to be tried again
                again = QueuedJob(ended.job_id, ended.kind, ended.library, ended.priority, now_us + 5, ended.lock_key)
                queue.put(again)
                model.pending[again.job_id] = again
        elif act < 0.64:
            kinds = [chance.choice(("", "a", "b"))]
            if chance.random() < 0.4:
                queue.pause(kinds)
                model.paused.update(kinds)
            else:
                queue.resume(kinds)
                model.paused.difference_update(kinds)
        else:
            assert queue.take(now_us) is model.take(now_us)
    assert len(queue) == len(model.pending)


def test_jobs_behind_a_lock_do_not_slow_the_others() -> None:
    def cost_s(behind: int) -> float:
        queue = queue_of(*(QueuedJob(number, "a", lock_key="k", priority=1) for number in range(behind + 1)))
        assert queue.take(0) is not None
        started = time.perf_counter()
        for number in range(2_000):
            entry = QueuedJob(1_000_000 + number, "b")
            queue.put(entry)
            assert queue.take(0) is entry
            queue.release(entry)
        return time.perf_counter() - started

    cost_s(10)
    # If each of the others looked at all that wait, ten thousand would cost a thousand times more than ten. (The first
    # one finds them unparked, and parks them.)
    assert min(cost_s(10_000) for _ in range(3)) < 50 * min(cost_s(10) for _ in range(3))
