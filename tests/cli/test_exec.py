"""vec watch --exec: a command for each batch, one at a time; the cursor moves when it is done."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.running import fresh, rest_of, running
from tests.support.waiting import until

from .watching import head, past, put, watching

#: So that tries follow each other at once.
FAST = {"VEC_RETRY_S": "0.001"}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash", **FAST}) as made:
        made.vec("status")
        yield made


def documents(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Each makes two events."""
    return [{"id": f"d{number}", "text": f"text {number}"} for number in range(start, start + count)]


def handled(folder: Path) -> list[list[dict[str, Any]]]:
    """The batches that `into` has kept, in order."""
    files = sorted(folder.glob("batch-*"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def into(folder: Path) -> str:
    """A command that keeps each batch in a file of its own, and its environment beside it."""
    name = 'n=$(printf %04d "$(ls | grep -c batch-)")'
    return f'cd {shlex.quote(str(folder))} && {name} && env > "env-$n" && cat > "tmp" && mv tmp "batch-$n"'


def after(instance: Instance, cursor: str) -> list[Any]:
    return past(instance, "--from", cursor)


# --- batches --------------------------------------------------------------------------------------------------------


def test_a_command_gets_the_events_as_ndjson_and_what_they_are_in_its_environment(
    instance: Instance, tmp_path: Path
) -> None:
    start = head(instance)
    put(instance, fresh(instance), documents(3))
    instance.vec("watch", "--no-follow", "--from", start, "--exec", into(tmp_path))
    assert handled(tmp_path) == [after(instance, start)]
    told = (tmp_path / "env-0000").read_text()
    assert f"VEC_CURSOR={head(instance)}\n" in told
    assert "VEC_EVENTS=7\n" in told
    assert "VEC_ATTEMPT=1\n" in told


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7])
def test_no_batch_is_larger_than_asked_for_and_together_they_are_the_log(
    instance: Instance, tmp_path: Path, batch: int
) -> None:
    start = head(instance)
    put(instance, fresh(instance), documents(10))
    instance.vec("watch", "--no-follow", "--from", start, "--batch", str(batch), "--exec", into(tmp_path))
    batches = handled(tmp_path)
    assert [event for each in batches for event in each] == after(instance, start)
    assert max(map(len, batches)) <= batch
    if batch > 1:
        assert all(not each[0]["type"].startswith("chunk.") for each in batches), "a document's events stay together"


def test_what_comes_while_a_command_runs_comes_together_in_the_next(instance: Instance, tmp_path: Path) -> None:
    library = fresh(instance)
    command = f"{into(tmp_path)}; touch running; until [ -e go ]; do sleep 0.01; done"
    with running(instance, "watch", "-l", library, "--exec", command):
        watching(instance, 1)
        put(instance, library, documents(1))
        until(lambda: (tmp_path / "running").exists(), "the first run")
        for number in range(1, 6):
            put(instance, library, documents(1, number))
        (tmp_path / "go").touch()
        until(lambda: len(handled(tmp_path)) == 2, "the second run")
    assert [len(each) for each in handled(tmp_path)] == [2, 10]


def test_lines_for_ingest_go_to_the_command_too(instance: Instance, tmp_path: Path) -> None:
    start, library = head(instance), fresh(instance)
    put(instance, library, [{"id": "a", "text": "one"}])
    put(instance, library, [{"op": "delete", "id": "a"}])
    watch = ["watch", "--no-follow", "--from", start, "-l", library, "--format", "ingest", "--no-vectors"]
    instance.vec(*watch, "--exec", into(tmp_path))
    assert handled(tmp_path) == [[{"id": "a", "texts": ["one"]}, {"op": "delete", "id": "a"}]]


def test_what_the_command_says_is_said(instance: Instance) -> None:
    start = head(instance)
    put(instance, fresh(instance), documents(1))
    done = instance.vec("watch", "--no-follow", "--from", start, "--exec", "wc -l; echo talk >&2")
    assert (done.stdout.strip(), done.stderr) == ("3", "talk\n")


def test_a_command_that_reads_nothing_is_judged_by_its_status(instance: Instance, tmp_path: Path) -> None:
    """With more on its stdin than a pipe holds."""
    start, file = head(instance), tmp_path / "cursor"
    put(instance, fresh(instance), documents(2_000))
    instance.vec("watch", "--no-follow", "--from", start, "--exec", "true", "--cursor-file", str(file))
    assert file.read_text().strip() == head(instance)
    file.write_text(start)
    instance.vec(
        "watch", "--no-follow", "--exec", "false", "--cursor-file", str(file), "--on-failure", "stop", status=1
    )
    assert file.read_text().strip() == start


# --- failure --------------------------------------------------------------------------------------------------------


def test_a_batch_is_tried_again_until_it_is_handled(instance: Instance, tmp_path: Path) -> None:
    start, file = head(instance), tmp_path / "cursor"
    put(instance, fresh(instance), documents(1))
    command = f'cat >> {tmp_path}/seen; [ "$VEC_ATTEMPT" = 3 ]'
    watch = ["watch", "--no-follow", "--from", start, "--cursor-file", str(file), "--exec", command]
    done = instance.vec(*watch)
    assert [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()] == 3 * after(instance, start)
    assert file.read_text().strip() == head(instance)
    assert re.findall(r"status 1 \(attempt (\d) of 5\)", done.stderr) == ["1", "2"]


def test_a_batch_that_is_given_up_is_on_disk_and_the_feed_goes_on(instance: Instance, tmp_path: Path) -> None:
    start, file, dead = head(instance), tmp_path / "cursor", tmp_path / "dead"
    library = fresh(instance)
    put(instance, library, documents(3))
    command = 'if grep -q "\\"d1\\""; then exit 7; fi'
    watch = ["watch", "--no-follow", "--from", start, "-l", library, "--type", "document.*", "--cursor-file", str(file)]
    done = instance.vec(
        *watch, "--exec", command, "--batch", "1", "--retries", "2", "--dead-letter", str(dead), status=3
    )
    (letter,) = map(json.loads, dead.read_text().splitlines())
    wanted = [event for event in after(instance, start) if event["data"].get("id") == "d1"]
    assert letter == {
        "time": letter["time"], "command": command, "status": 7, "attempts": 2, "cursor": wanted[0]["cursor"],
        "events": wanted,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", letter["time"])
    assert dead.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() == head(instance)
    assert str(dead) in done.stderr


def test_dead_letters_are_kept_with_the_data_unless_said_otherwise_and_are_added_to(instance: Instance) -> None:
    dead = instance.settings.data / "dead-letters.ndjson"
    dead.unlink(missing_ok=True)
    start = head(instance)
    put(instance, fresh(instance), documents(1))
    for _ in range(2):
        instance.vec("watch", "--no-follow", "--from", start, "--exec", "kill -9 $$", "--retries", "1", status=3)
    assert [json.loads(line)["status"] for line in dead.read_text().splitlines()] == [137, 137]


def test_with_stop_a_batch_that_fails_ends_it_and_comes_again(instance: Instance, tmp_path: Path) -> None:
    start, file = head(instance), tmp_path / "cursor"
    put(instance, fresh(instance), documents(2))
    watch = ["watch", "--no-follow", "--from", start, "--cursor-file", str(file), "--on-failure", "stop"]
    done = instance.vec(*watch, "--retries", "2", "--exec", "exit 3", status=1)
    assert "(handler_failed)" in done.stderr
    assert file.exists() is False or file.read_text().strip() == start
    instance.vec(*watch, "--exec", into(tmp_path))
    assert handled(tmp_path) == [after(instance, start)]


def test_a_name_of_dead_letters_that_is_not_utf_8_is_shown_by_its_bytes(instance: Instance, tmp_path: Path) -> None:
    put(instance, fresh(instance), [{"id": "a", "text": "a"}])
    dead = os.fsencode(tmp_path) + b"/dead-\xff"
    failing = ["--from", "beginning", "--no-follow", "--exec", "exit 1", "--retries", "1"]
    done = instance.vec("watch", *failing, "--dead-letter", os.fsdecode(dead), status=3)
    assert "/dead-\\xff" in done.stderr
    assert os.path.getsize(dead) > 0


def test_dead_letters_that_cannot_be_written_stop_it_before_the_batch(instance: Instance, tmp_path: Path) -> None:
    start, file = head(instance), tmp_path / "cursor"
    file.write_text(start)
    put(instance, fresh(instance), documents(1))
    watch = ["watch", "--no-follow", "--cursor-file", str(file), "--retries", "1", "--exec", "false"]
    done = instance.vec(*watch, "--dead-letter", str(tmp_path / "no" / "where"), status=2)
    assert str(tmp_path / "no" / "where") in done.stderr
    assert file.read_text().strip() == start


@pytest.mark.parametrize(
    "option", [["--batch", "2"], ["--retries", "2"], ["--dead-letter", "x"], ["--on-failure", "stop"]]
)
def test_options_of_the_command_want_one(instance: Instance, option: list[str]) -> None:
    assert "--exec" in instance.vec("watch", *option, status=2).stderr


@pytest.mark.parametrize("command", ["", " "])
def test_an_empty_command_is_a_usage_error(instance: Instance, command: str) -> None:
    assert "the command of --exec is empty" in instance.vec("watch", "--no-follow", "--exec", command, status=2).stderr


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("place", ["--cursor-file", "--consumer"])
def test_a_signal_lets_the_running_command_finish_and_keeps_its_outcome(
    instance: Instance, tmp_path: Path, number: int, status: int, place: str
) -> None:
    library = fresh(instance)
    kept = str(tmp_path / "cursor") if place == "--cursor-file" else f"finish-{number}"
    command = f"cat > {tmp_path}/seen; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    with running(instance, "watch", "-l", library, place, kept, "--exec", command) as watcher:
        watching(instance, 1)
        put(instance, library, documents(1))
        until(lambda: (tmp_path / "seen").exists(), "the run")
        watcher.send_signal(number)
        time.sleep(0.2)  # it has the signal, and must not end by it
        assert watcher.poll() is None
        (tmp_path / "go").touch()
        assert watcher.wait() == status
        assert rest_of(watcher.stderr) == ""
    assert past(instance, "-l", library, place, kept) == []


@pytest.mark.parametrize("status", [0, 1])
def test_a_signal_between_two_batches_ends_it_at_once(instance: Instance, tmp_path: Path, status: int) -> None:
    """Also while it waits to try again what failed: the batch comes again in the next run."""
    library, file = fresh(instance), tmp_path / "cursor"
    file.write_text(head(instance))
    patient = {**instance.environment, "VEC_RETRY_S": "1000000"}
    watch = ["watch", "-l", library, "--cursor-file", str(file), "--exec", f"echo x >> {tmp_path}/ran; exit {status}"]
    with running(instance, *watch, env=patient) as watcher:
        watching(instance, 1)
        put(instance, library, documents(1))
        until(lambda: (tmp_path / "ran").exists(), "the run")
        if status == 0:
            until(lambda: file.read_text().strip() == head(instance), "its outcome")
        else:
            assert watcher.stderr is not None
            assert b"retry in" in watcher.stderr.readline()
        watcher.send_signal(signal.SIGTERM)
        assert watcher.wait() == 143
    assert len(past(instance, "-l", library, "--cursor-file", str(file))) == (2 if status else 0)


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "soon"])
def test_a_pause_between_tries_that_is_no_time_is_refused(instance: Instance, given: str) -> None:
    environment = {**instance.environment, "VEC_RETRY_S": given}
    with running(instance, "watch", "--no-follow", "--exec", "true", env=environment) as watcher:
        assert watcher.wait() == 2
        assert "VEC_RETRY_S must be a number of seconds from 0 up" in rest_of(watcher.stderr)


def test_a_pause_of_0_between_tries_tries_again_at_once(instance: Instance, tmp_path: Path) -> None:
    library = fresh(instance)
    put(instance, library, documents(1))
    environment = {**instance.environment, "VEC_RETRY_S": "0"}
    watch = ["watch", "-l", library, "--from", "beginning", "--no-follow", "--retries", "2", "--exec", "exit 1"]
    with running(instance, *watch, "--dead-letter", str(tmp_path / "dead"), env=environment) as watcher:
        assert watcher.wait() == 3
        assert "again in 0.0 s" in rest_of(watcher.stderr)


def test_a_second_signal_is_for_the_command(instance: Instance, tmp_path: Path) -> None:
    library = fresh(instance)
    with running(instance, "watch", "-l", library, "--exec", f"touch {tmp_path}/ran; exec sleep 1000") as watcher:
        watching(instance, 1)
        put(instance, library, documents(1))
        until(lambda: (tmp_path / "ran").exists(), "the run")
        for number in (signal.SIGTERM, signal.SIGINT):  # two of the same could be taken as one
            watcher.send_signal(number)
        assert watcher.wait() in (143, 130)


@pytest.mark.parametrize("place", ["--cursor-file", "--consumer", None])
@pytest.mark.parametrize("option", [[], ["--no-reconnect"]])
def test_a_daemon_that_is_restarted_while_the_command_runs_loses_no_outcome(
    tmp_path: Path, place: str | None, option: list[str]
) -> None:
    with Instance({"VEC_EMBEDDER": "hash", **FAST}) as own:
        own.vec("status")
        put(own, "default", documents(1))
        kept = [] if place is None else [place, str(tmp_path / "cursor") if place == "--cursor-file" else "outcome"]
        command = f"cat >> {tmp_path}/seen; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
        with running(own, "watch", "--from", "beginning", *kept, *option, "--exec", command) as watcher:
            until(lambda: (tmp_path / "seen").exists(), "the run")
            own.vec("daemon", "restart")
            put(own, "default", documents(1, 1))
            (tmp_path / "go").touch()
            if option:
                assert watcher.wait() == 75
            else:
                until(lambda: len((tmp_path / "seen").read_text().splitlines()) == 5, "the events behind the restart")
                watcher.send_signal(signal.SIGTERM)
                assert watcher.wait() == 143
        seen = [json.loads(line)["seq"] for line in (tmp_path / "seen").read_text().splitlines()]
        assert seen == list(range(1, 4 if option else 6)), "each once, in order"
        if kept:
            assert [event["seq"] for event in past(own, *kept)] == ([4, 5] if option else [])


def test_a_daemon_that_does_not_come_back_is_exit_75_and_the_batch_comes_again(tmp_path: Path) -> None:
    with Instance({"VEC_EMBEDDER": "hash", **FAST}) as own:
        own.vec("status")
        put(own, "default", documents(1))
        command = f"cat > {tmp_path}/seen; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
        watch = ["watch", "--from", "beginning", "--consumer", "c", "--no-reconnect", "--exec", command]
        with running(own, *watch) as watcher:
            until(lambda: (tmp_path / "seen").exists(), "the run")
            own.vec("daemon", "stop")
            (tmp_path / "go").touch()
            assert watcher.wait() == 75
            assert "they will be repeated" in rest_of(watcher.stderr)
        assert own.pid() is None, "no daemon was started for the acknowledgement"
        assert len(past(own, "--consumer", "c")) == 3


def test_a_signal_while_the_daemon_is_away_ends_it_and_the_outcome_is_kept(tmp_path: Path) -> None:
    with Instance({"VEC_EMBEDDER": "hash", **FAST}) as own:
        own.vec("status")
        put(own, "default", documents(1))
        command = f"cat > {tmp_path}/seen; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
        with running(own, "watch", "--from", "beginning", "--consumer", "c", "--exec", command) as watcher:
            until(lambda: (tmp_path / "seen").exists(), "the run")
            own.vec("daemon", "stop")
            (tmp_path / "go").touch()
            assert watcher.stderr is not None
            assert b"resuming from" in watcher.stderr.readline()
            watcher.send_signal(signal.SIGTERM)
            own.vec("daemon", "start")
            assert watcher.wait() == 143
        assert past(own, "--consumer", "c") == []


def test_a_quiet_filter_moves_the_cursor_by_bookmarks(instance: Instance, tmp_path: Path) -> None:
    library, file = fresh(instance), tmp_path / "cursor"
    watch = ["watch", "--type", "library.deleted", "-l", library, "--cursor-file", str(file), "--exec", "exit 1"]
    with running(instance, *watch):
        watching(instance, 1)
        put(instance, library, documents(3))
        until(lambda: file.exists() and file.read_text().strip() == head(instance), "the bookmark")


def test_a_killed_watch_repeats_no_more_than_the_batch_it_was_in(instance: Instance, tmp_path: Path) -> None:
    library, start, file = fresh(instance), head(instance), tmp_path / "cursor"
    file.write_text(start)
    put(instance, library, documents(40))
    seen = tmp_path / "seen"
    watch = ["watch", "-l", library, "--cursor-file", str(file), "--batch", "4", "--exec", f"cat >> {seen}"]
    for count in (8, 24, 48):
        with running(instance, *watch) as watcher:
            until(lambda: seen.exists() and seen.read_bytes().count(b"\n") >= count, "some batches")  # noqa: B023
            watcher.kill()
            watcher.wait()
    instance.vec(*watch, "--no-follow")
    seqs = [json.loads(line)["seq"] for line in seen.read_text().splitlines()]
    last = int(start.split(":")[1])
    for seq in seqs:
        assert last - 4 < seq <= last + 1, f"{seq} behind {last}"
        last = max(last, seq)
    assert last == int(head(instance).split(":")[1])
