"""vec watch: every event once, in one order, from any position, live or from the log, and never a silent gap."""

from __future__ import annotations

import datetime
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.history import log_of, replayed
from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import end_of_input, feed, fresh, ids_in, line_of, rest_of, running
from tests.support.waiting import until

from .watching import EVENT, head, past, put, watching


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    """An instance with a history: two libraries, one of which is gone; documents added, updated and deleted."""
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("library", "create", "past")
        made.vec("library", "create", "notes")
        for name in ("past", "notes"):
            put(made, name, [{"id": f"d{number}", "texts": ["one", "two"]} for number in range(20)])
        put(made, "notes", [{"id": "d1", "text": "changed"}, {"op": "delete", "id": "d2"}])
        made.vec("library", "delete", "past")
        yield made


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"d{number}", "text": f"text {number}"} for number in range(start, start + count)]


# --- what is printed ------------------------------------------------------------------------------------------------


def test_the_whole_log_is_every_seq_once_and_replays_to_what_is_there(instance: Instance) -> None:
    events = past(instance, "--from", "beginning")
    assert [list(event) for event in events] == [EVENT] * len(events)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    with instance.connect() as client:
        assert [event["cursor"] for event in events] == [f"{client.log}:{event['seq']}" for event in events]
        assert len(events) == client.status()["seq"]
    for name, documents in replayed(events).items():
        assert sorted(documents) == ids_in(instance, name)
    assert {event["type"] for event in events} == {
        "library.created", "library.deleted",
        "document.added", "document.updated", "document.deleted", "chunk.added", "chunk.deleted",
    }  # fmt: skip


def test_events_of_a_library_that_is_gone_still_have_its_name(instance: Instance) -> None:
    events = past(instance, "--from", "beginning", "--library", "past")
    assert (events[0]["type"], events[-1]["type"]) == ("library.created", "library.deleted")
    assert len(events) == 2 + 20 * 3
    assert {event["library"] for event in events} == {"past"}


def test_now_without_following_is_nothing(instance: Instance) -> None:
    assert past(instance) == []
    assert past(instance, "--from", "now") == []
    assert past(instance, "--from", head(instance)) == []


def test_a_cursor_goes_on_behind_the_event_that_carries_it(instance: Instance) -> None:
    """From every event of the log, also from the middle of a document's."""
    everything = past(instance, "--from", "beginning")
    with instance.connect() as client:
        for place, event in enumerate(everything):
            after = client.watch(event["cursor"], follow=False, limit=5)
            assert list(after) == everything[place + 1 : place + 6]
    assert past(instance, "--from", everything[3]["cursor"]) == everything[4:]
    with instance.connect() as client:
        assert past(instance, "--from", f"{client.log}:0") == everything


def test_a_time_goes_on_with_what_happened_then_or_later(instance: Instance) -> None:
    everything = past(instance, "--from", "beginning")
    for moment in sorted({event["time"] for event in everything}):
        later = [event for event in everything if event["time"] >= moment]
        assert past(instance, "--from", moment) == later
        with_zone = datetime.datetime.fromisoformat(moment).astimezone(
            datetime.timezone(datetime.timedelta(hours=5, minutes=30))
        )
        assert past(instance, "--from", with_zone.isoformat()) == later
    assert past(instance, "--from", "2001-01-01") == everything
    assert past(instance, "--from", "2001-01-01T00:00:00") == everything
    assert past(instance, "--from", "2001-01-01T00:00:00Z") == everything
    assert past(instance, "--from", "2999-01-01") == []


@pytest.mark.parametrize("ago", ["-15m", "-900s", "-1.5h", "-2d", "-1w"])
def test_a_time_ago_goes_back_that_far(instance: Instance, ago: str) -> None:
    assert past(instance, "--from", ago) == past(instance, "--from", "beginning")


def test_no_time_ago_is_now(instance: Instance) -> None:
    assert past(instance, "--from", "-0s") == []


def test_n_is_how_many_events_there_are(instance: Instance) -> None:
    everything = past(instance, "--from", "beginning")
    for n in (1, 7, len(everything)):
        assert past(instance, "--from", "beginning", "-n", str(n)) == everything[:n]
        # Following, it ends there as well.
        assert instance.objects("watch", "--from", "beginning", "-n", str(n)) == everything[:n]
    assert past(instance, "--from", "beginning", "-n", "1000000") == everything
    assert past(instance, "--from", "beginning", "--type", "document.updated", "-n", "3") == [
        event for event in everything if event["type"] == "document.updated"
    ]


def test_only_the_libraries_that_are_asked_for(instance: Instance) -> None:
    everything = past(instance, "--from", "beginning")
    for names in (["notes"], ["past"], ["past", "notes"]):
        options = [option for name in names for option in ("--library", name)]
        assert past(instance, "--from", "beginning", *options) == [
            event for event in everything if event["library"] in names
        ]
    done = instance.vec("watch", "-l", "note", status=4)
    assert "did you mean 'notes'?" in done.stderr


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["document.added"], r"document\.added"),
        (["document.*"], r"document\..*"),
        (["*"], ".*"),
        (["*.added"], r".*\.added"),
        (["document.deleted", "library.*"], r"document\.deleted|library\..*"),
        (["chunk.[ad]*", "document.updated"], r"chunk\..*|document\.updated"),
    ],
)
def test_only_the_types_that_are_asked_for(instance: Instance, patterns: list[str], wanted: str) -> None:
    options = [option for pattern in patterns for option in ("--type", pattern)]
    events = past(instance, "--from", "beginning", *options)
    assert events == [e for e in past(instance, "--from", "beginning") if re.fullmatch(wanted, e["type"])]
    assert events


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("document.add", "did you mean 'document.added'?"),
        ("docs.*", "types: "),
        ("job.done", "types: "),
        ("", "types: "),
    ],
)
def test_a_type_that_there_is_not_is_a_usage_error_with_the_nearest(
    instance: Instance, pattern: str, hint: str
) -> None:
    done = instance.vec("watch", "--type", pattern, status=2)
    assert f"no event type matches {pattern!r}" in done.stderr
    if pattern == "document.add":
        assert hint in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["-n", "0"], ["-n", "x"], ["--timeout", "-1"], ["--timeout", "x"], ["--form", "now"]]
)
def test_options_that_make_no_sense_are_usage_errors(instance: Instance, arguments: list[str]) -> None:
    assert instance.vec("watch", *arguments, status=2).stdout == ""


# --- cursors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "position",
    [
        "yesterday", "", "15m", "-15", "-15y", "12", ":5", "abc:", "abc:-1", "abc:1.5", "XYZ:5", "abc: 5",
        "2026-13-01", "2026-01-32", "2026-01-01T25:00:00Z", "2026-01-01Tnoon", "beginning ", "NOW",
    ],
)  # fmt: skip
def test_a_position_that_is_none_is_a_usage_error(instance: Instance, position: str) -> None:
    done = instance.vec("watch", "--no-follow", "--from", position, status=2)
    assert "(invalid_cursor)" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "position",
    [
        "0001-01-01",
        "9999-12-31T23:59:59",
        "-99999999999999999999w",
        pytest.param("abc:" + "9" * 5_000, id="5000-digits"),
        pytest.param("-" + "9" * 5_000 + "w", id="5000-digits-ago"),
        "abc:" + "9" * 25,
        "-0.0000001s",
    ],
)
def test_a_position_far_out_is_answered_and_never_a_bug(instance: Instance, position: str) -> None:
    done = instance.vec("watch", "--no-follow", "--from", position, status=None)
    assert done.returncode in (0, 2, 5), done.stderr
    assert "bug" not in done.stderr


def test_a_cursor_of_another_log_or_past_the_head_is_exit_5_and_never_a_skip(instance: Instance) -> None:
    log, seq = head(instance).split(":")
    foreign = instance.vec("watch", "--from", "0123456789abcdef:1", status=5)
    assert "belongs to another log" in foreign.stderr
    assert log in foreign.stderr
    ahead = instance.vec("watch", "--from", f"{log}:{int(seq) + 1}", status=5)
    assert "is past the head of the log" in ahead.stderr
    assert (foreign.stdout, ahead.stdout) == ("", "")


def test_slices_with_a_cursor_file_put_together_are_the_whole_log(instance: Instance, tmp_path: Path) -> None:
    everything = past(instance, "--from", "beginning")
    file = tmp_path / "cursor"
    together: list[Any] = []
    while piece := past(instance, "--from", "beginning", "--cursor-file", str(file), "-n", "7"):
        together += piece
        assert file.read_text() == piece[-1]["cursor"] + "\n"
        assert len(piece) == 7 or together == everything
    assert together == everything
    assert os.listdir(tmp_path) == ["cursor"]  # nothing is left beside it


def test_filtered_slices_put_together_are_the_filtered_log(instance: Instance, tmp_path: Path) -> None:
    options = ["--from", "beginning", "--library", "notes", "--type", "document.*"]
    together: list[Any] = []
    while piece := past(instance, *options, "--cursor-file", str(tmp_path / "cursor"), "-n", "4"):
        together += piece
    assert together == past(instance, *options)


def test_a_first_run_that_found_nothing_still_keeps_its_place(instance: Instance, tmp_path: Path) -> None:
    """As from cron: what happens between two runs is in the second, also if the first began with nothing to say."""
    file = tmp_path / "cursor"
    library = fresh(instance)
    assert past(instance, "--cursor-file", str(file)) == []
    put(instance, library, numbered(2))
    first = past(instance, "--cursor-file", str(file))
    assert [event["type"] for event in first] == ["document.added", "chunk.added"] * 2
    put(instance, library, numbered(1, 2))
    instance.vec("watch", "--cursor-file", str(file), "--library", library, "--timeout", "0.2", status=124)
    assert past(instance, "--cursor-file", str(file)) == []


def test_a_run_that_timed_out_with_nothing_still_keeps_its_place(instance: Instance, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    library = fresh(instance)
    instance.vec("watch", "--cursor-file", str(file), "--timeout", "0.1", status=124)
    put(instance, library, numbered(1))
    assert [event["data"].get("id") for event in past(instance, "--cursor-file", str(file))] == ["d0", None]


def test_a_filter_that_nothing_passes_still_moves_the_cursor(instance: Instance, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    instance.vec("watch", "--from", "beginning", "--no-follow", "--type", "chunk.*", "-l", fresh(instance),
                 "--cursor-file", str(file))  # fmt: skip
    assert file.read_text().strip() == head(instance)


@pytest.mark.parametrize(
    ("content", "status"),
    [("nonsense\n", 2), ("0123456789abcdef:1\n", 5), (b"\xff\xfe", 2)],
    ids=["text", "foreign", "bytes"],
)
def test_a_cursor_file_with_something_else_in_it_is_an_error_and_left_alone(
    instance: Instance, tmp_path: Path, content: str | bytes, status: int
) -> None:
    file = tmp_path / "cursor"
    raw = content.encode() if isinstance(content, str) else content
    file.write_bytes(raw)
    assert instance.vec("watch", "--no-follow", "--cursor-file", str(file), status=status).stdout == ""
    assert file.read_bytes() == raw


def test_an_empty_cursor_file_is_none(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "cursor").write_text("")
    assert past(instance, "--from", "beginning", "-n", "1", "--cursor-file", str(tmp_path / "cursor"))[0]["seq"] == 1
    assert (tmp_path / "cursor").read_text().endswith(":1\n")


@pytest.mark.parametrize("where", ["missing/cursor", "folder"])
def test_a_cursor_file_that_cannot_be_is_named(instance: Instance, tmp_path: Path, where: str) -> None:
    (tmp_path / "folder").mkdir()
    done = instance.vec("watch", "--from", "beginning", "-n", "1", "--cursor-file", str(tmp_path / where), status=2)
    assert str(tmp_path / where) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_watcher_killed_again_and_again_leaves_no_gap(instance: Instance, tmp_path: Path) -> None:
    """kill -9 in the middle, while an ingest runs: what the cursor file has is a whole cursor, and was printed."""
    library, file, count = fresh(instance), tmp_path / "cursor", 6_000
    file.write_text(head(instance) + "\n")
    start = int(file.read_text().split(":")[1])
    printed: list[int] = []  # seqs in the order they were printed, over all watchers
    done, halves = threading.Event(), []

    def read_again_and_again() -> None:
        while not done.is_set():
            if not re.fullmatch(r"[0-9a-f]+:\d+\n", text := file.read_text()):
                halves.append(text)

    reader = threading.Thread(target=read_again_and_again, daemon=True)
    reader.start()
    with running(instance, "ingest", "-l", library, "--batch", "20") as ingest:
        writer = threading.Thread(target=feed, args=(ingest, ndjson(numbered(count))), daemon=True)
        writer.start()
        for round_ in range(6):
            with running(instance, "watch", "--library", library, "--cursor-file", str(file)) as watcher:
                printed += [line_of(watcher.stdout)["seq"] for _ in range(150 * (round_ + 1))]
                watcher.send_signal(signal.SIGKILL)
                for line in rest_of(watcher.stdout).splitlines(keepends=True):
                    if line.endswith("\n"):
                        printed.append(json.loads(line)["seq"])
            assert int(file.read_text().split(":")[1]) <= max(printed)
        writer.join()
        end_of_input(ingest)
        assert ingest.wait() == 0
    done.set()
    reader.join()
    assert halves == []
    printed += [event["seq"] for event in past(instance, "--library", library, "--cursor-file", str(file))]
    # Each watcher went on at most one page before where the last one ended, and never behind it.
    seen = start
    for seq in printed:
        assert seq <= seen + 1, f"a gap between {seen} and {seq}"
        seen = max(seen, seq)
    assert seen == start + 2 * count


# --- live -----------------------------------------------------------------------------------------------------------


def test_events_arrive_while_the_ingest_still_runs(instance: Instance) -> None:
    library = fresh(instance)
    with running(instance, "watch", "--library", library, "--type", "document.*") as watcher:
        watching(instance, 1)
        with running(instance, "ingest", "-l", library) as ingest:
            for number in range(5):
                feed(ingest, ndjson(numbered(1, number)))
                event = line_of(watcher.stdout)
                assert (event["type"], event["data"]["id"]) == ("document.added", f"d{number}")
            assert ingest.poll() is None
        put(instance, library, [{"op": "delete", "id": "d0"}])
        assert line_of(watcher.stdout)["type"] == "document.deleted"
        assert watcher.poll() is None


def test_catching_up_passes_into_live_without_a_gap_or_a_repeat(instance: Instance) -> None:
    """Three writers at once, and watchers that begin at different times: each sees one order, and all the same."""
    start = head(instance)
    first = int(start.split(":")[1])
    libraries = [fresh(instance, embedder="none", dimension=1) for _ in range(3)]
    count = 3 * (1 + 2 * 2_000)
    lines = ndjson([{"id": str(number), "vector": [1]} for number in range(2_000)])
    watchers = []

    def watch() -> None:
        watchers.append(instance.objects("watch", "--from", start, "-n", str(count)))

    threads = [
        threading.Thread(target=instance.vec, args=("ingest", "-l", name, "--batch", "50"), kwargs={"stdin": lines})
        for name in libraries
    ]
    threads[1:1] = [threading.Thread(target=watch)]
    threads += [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(watchers) == 2
    assert [event["seq"] for event in watchers[0]] == list(range(first + 1, first + 1 + count))
    assert watchers[0] == watchers[1] == past(instance, "--from", start)


def test_a_timeout_is_exit_124_after_what_there_was(instance: Instance) -> None:
    done = instance.vec("watch", "--timeout", "0.2", status=124)
    assert (done.stdout, done.stderr) == ("", "")
    start, library = head(instance), fresh(instance)
    put(instance, library, numbered(2))
    own = ("--from", start, "--library", library)  # other tests' libraries may still have events
    events = past(instance, *own)
    assert len(events) == 5
    assert instance.objects("watch", *own, "--timeout", "1.5", status=124) == events
    assert instance.objects("watch", *own, "-n", "3", "--timeout", "60") == events[:3]
    instance.vec("watch", "--from", "beginning", "--timeout", "0", status=124)


def test_a_timeout_also_ends_what_would_go_on_for_ever(instance: Instance) -> None:
    """Events come without a pause, so that the watcher is never at the head."""
    start = head(instance)
    library = fresh(instance, embedder="none", dimension=1)
    stop = threading.Event()

    def write() -> None:
        with instance.connect() as client:
            number = 0
            while not stop.is_set():
                client.ingest([{"id": str(number % 100), "vector": [float(number)]}], library)
                number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert instance.objects("watch", "--from", start, "--library", library, "--timeout", "1", status=124)
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("place", [[], ["--consumer", "had-enough"]])
def test_a_reader_that_has_had_enough_ends_it_quietly_and_at_once(instance: Instance, place: list[str]) -> None:
    """As `vec watch | head -1` does. No further event is needed."""
    library = fresh(instance)
    with running(instance, "watch", "--library", library, *place) as watcher:
        watching(instance, 1)
        put(instance, library, numbered(1))
        assert line_of(watcher.stdout)["type"] == "document.added"
        assert watcher.stdout is not None
        watcher.stdout.close()
        assert watcher.wait() == 141
        assert rest_of(watcher.stderr) == ""
    with instance.connect() as client:
        until(lambda: all(each["holder"] is None for each in client.consumers()), "the consumer to be free")


def test_head_of_a_long_log_ends_quietly(instance: Instance) -> None:
    """In a pipe of a shell, with more to print than a pipe holds."""
    put(instance, fresh(instance), numbered(3_000))
    command = 'vec watch --from beginning --no-follow | head -n 1; echo "${PIPESTATUS[0]}"'
    path = f"{BIN}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], env={**instance.environment, "PATH": path}, capture_output=True, check=False, text=True
    )
    first, status = done.stdout.splitlines()
    assert (json.loads(first)["seq"], status, done.stderr) == (1, "141", "")


def test_ctrl_c_ends_it_quietly_at_any_moment(instance: Instance) -> None:
    """Many times, at the moment it stands: it may be in the middle of importing what it prints with."""
    for _ in range(12):
        with running(instance, "watch") as watcher:
            watching(instance, 1)
            watcher.send_signal(signal.SIGINT)
            assert watcher.wait() == 130
            assert rest_of(watcher.stderr) == ""
        watching(instance, 0)


# --- the daemon goes away -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [0, 2])
def test_without_reconnecting_a_daemon_that_stops_ends_it_with_a_cursor_to_go_on_from(seen: int) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(1))
        with running(own, "watch", "--no-reconnect") as watcher:
            watching(own, 1)
            put(own, "default", numbered(seen, 1))
            events = [line_of(watcher.stdout) for _ in range(2 * seen)]
            before = head(own)
            own.vec("daemon", "stop")
            assert watcher.wait() == 75
            said = rest_of(watcher.stderr)
        match = re.search(r"resume from (\S+)", said)
        assert match, said
        assert match[1] == before
        assert not events or events[-1]["cursor"] == before
        put(own, "default", numbered(1, 10))
        assert [event["data"].get("id") for event in past(own, "--from", match[1])] == ["d10", None]


@pytest.mark.parametrize("place", ["--cursor-file", "--consumer", None])
def test_a_watch_goes_on_through_kills_and_stops_of_the_daemon_each_event_once(
    tmp_path: Path, place: str | None
) -> None:
    kept = [] if place is None else [place, str(tmp_path / "cursor") if place == "--cursor-file" else "lives"]
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(3))
        with running(own, "watch", "--from", "beginning", "-n", "13", *kept) as watcher:
            printed = [line_of(watcher.stdout) for _ in range(7)]
            for number, ended in enumerate(("killed", "stopped", "killed")):
                if ended == "stopped":
                    own.vec("daemon", "stop")
                    said = watcher.stderr
                    assert said is not None
                    while b"stopping" not in said.readline():
                        pass
                    own.vec("status", "--no-spawn", status=69)  # a watch does not undo a stop
                else:
                    pid = own.pid()
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                put(own, "default", numbered(1, 10 + number))
                printed += [line_of(watcher.stdout) for _ in range(2)]
            assert watcher.wait() == 0
            assert [event["seq"] for event in printed] == list(range(1, 14)), "each once, in order"
        with own.connect() as client:
            assert printed == log_of(client)
        if kept:
            assert past(own, *kept) == []


def test_a_daemon_that_a_watch_started_leaves_no_zombie_and_no_descriptor_when_it_is_killed() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own, running(own, "watch") as watcher:
        descriptors = set()
        for killed in range(1, 4):
            watching(own, 1)
            descriptors.add(len(os.listdir(f"/proc/{watcher.pid}/fd")))
            assert children(watcher.pid) == []
            pid = own.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            until(lambda gone=pid: own.pid() not in (None, gone), f"the start after kill {killed}")  # type: ignore[misc]
        assert len(descriptors) == 1


def children(pid: int) -> list[str]:
    """The processes of which this one is the parent, zombies too (Linux)."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_daemon_that_is_killed_while_it_is_stopped_by_a_signal_is_started_again() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(1))
        with running(own, "watch", "--type", "document.*", "-n", "1") as watcher:
            watching(own, 1)
            pid = own.pid()
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            said = watcher.stderr
            assert said is not None
            assert b"is stopped" in said.readline()
            os.kill(pid, signal.SIGKILL)
            until(lambda: own.pid() not in (None, pid), "a start by the watch")
            watching(own, 1)
            put(own, "default", numbered(1, 1))
            assert line_of(watcher.stdout)["data"]["id"] == "d1"


def test_a_watch_outlives_a_daemon_that_is_killed_before_it_has_answered() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(1))
        pid = own.pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with running(own, "watch", "--from", "beginning", "--type", "document.*") as watcher:
            fds = Path(f"/proc/{watcher.pid}/fd")
            until(lambda: any("socket:" in os.path.realpath(fd) for fd in fds.iterdir()), "its connection")
            os.kill(pid, signal.SIGKILL)
            assert line_of(watcher.stdout)["data"]["id"] == "d0"


def test_a_daemon_that_is_killed_while_a_watch_starts_it_is_started_again() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(1))
        with running(own, "watch", "--type", "document.*", "-n", "1") as watcher:
            watching(own, 1)
            pid = own.pid()
            for _ in range(2):
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                pid = until(lambda gone=pid: None if own.pid() == gone else own.pid(), "a start")  # type: ignore[misc]
            watching(own, 1)
            put(own, "default", numbered(1, 1))
            assert line_of(watcher.stdout)["data"]["id"] == "d1"


def test_a_timeout_bounds_the_wait_for_a_daemon_that_was_stopped() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(1))
        with running(own, "watch", "--timeout", "4") as watcher:
            watching(own, 1)
            own.vec("daemon", "stop")
            assert watcher.wait() == 124
        own.vec("status", "--no-spawn", status=69)


def test_a_daemon_that_is_killed_ends_it_with_exit_75_and_the_cursor_file_goes_on(tmp_path: Path) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        put(own, "default", numbered(3))
        file = tmp_path / "cursor"
        watch = ["watch", "--from", "beginning", "--cursor-file", str(file), "--no-reconnect"]
        with running(own, *watch) as watcher:
            printed = [line_of(watcher.stdout) for _ in range(7)]
            until(lambda: file.exists() and file.read_text().endswith(":7\n"), "the cursor in its file")
            pid = own.pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert watcher.wait() == 75
            assert "the connection to the daemon was lost" in rest_of(watcher.stderr)
        put(own, "default", numbered(1, 10))
        printed += past(own, "--cursor-file", str(file))
        with own.connect() as client:
            assert printed == log_of(client)
