"""vec watch: filters, payloads, snapshots, gaps, consumers, and the barrier."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.running import fresh, line_of, rest_of, running
from tests.support.waiting import until

from .watching import EVENT, head, past, put, watching


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["id"] for event in events if "document" in event["type"]]


def trimmed(instance: Instance) -> str:
    """Nothing of the log is left; the cursor that it begins behind."""
    return str(instance.objects("trim", "--keep-count", "0", "--past-consumers")[0]["oldest"])


# --- what is printed ------------------------------------------------------------------------------------------------


def test_where_lets_through_the_events_of_documents_that_pass_and_tells_when_one_leaves(
    instance: Instance, library: str
) -> None:
    start = head(instance)
    put(instance, library, [{"id": name, "text": name, "metadata": {"n": n}} for n, name in enumerate("abc")])
    put(instance, library, [{"id": "b", "text": "b", "metadata": {"n": 9}}])
    put(instance, library, [{"op": "delete", "id": "c"}])
    events = past(instance, "--from", start, "-l", library, "--type", "document.*", "-w", "n in (1, 2)")
    told = [(event["type"], event["data"]["id"], event["data"].get("left", False)) for event in events]
    assert told == [
        ("document.added", "b", False),
        ("document.added", "c", False),
        ("document.updated", "b", True),
        ("document.deleted", "c", False),
    ]
    done = instance.vec("watch", "--where", "n >", status=2)
    assert "(invalid_filter)" in done.stderr


def test_a_payload_is_the_document_as_it_was_after_and_before(instance: Instance, library: str) -> None:
    start = head(instance)
    put(instance, library, [{"id": "a", "title": "T", "texts": ["one", "two"], "metadata": {"n": 1}}])
    put(instance, library, [{"id": "a", "text": "three"}])
    put(instance, library, [{"op": "delete", "id": "a"}])
    added, updated, deleted = past(instance, "--from", start, "--type", "document.*", "--payload")
    old = {
        "id": "a", "title": "T", "metadata": {"n": 1},
        "chunks": [{"chunk_id": "a#0", "text": "one"}, {"chunk_id": "a#1", "text": "two"}],
    }  # fmt: skip
    new: dict[str, Any] = {"id": "a", "title": None, "metadata": {}, "chunks": [{"chunk_id": "a#0", "text": "three"}]}
    assert added["data"]["document"] == updated["data"]["replaced"] == old
    assert updated["data"]["document"] == deleted["data"]["replaced"] == new
    assert [list(event) for event in (added, updated, deleted)] == 3 * [EVENT]


def test_vectors_are_lists_of_numbers_and_bring_their_documents(instance: Instance, vectors: str) -> None:
    start = head(instance)
    put(instance, vectors, [{"id": "a", "vector": [1, 2.5, -3]}])
    for options in (["--vectors"], ["--payload", "--vectors"]):
        (event,) = past(instance, "--from", start, "--type", "document.*", *options)
        assert event["data"]["document"]["chunks"] == [{"chunk_id": "a#0", "text": None, "vector": [1.0, 2.5, -3.0]}]
    (chunk,) = past(instance, "--from", start, "--type", "chunk.*", "--vectors")
    assert chunk["data"]["vector"] == [1.0, 2.5, -3.0]
    (bare,) = past(instance, "--from", start, "--type", "document.*", "--payload", "--no-vectors")
    assert "vector" not in bare["data"]["document"]["chunks"][0]


def test_until_is_inclusive(instance: Instance, library: str) -> None:
    start = head(instance)
    put(instance, library, [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}])
    everything = past(instance, "--from", start)
    for place, event in enumerate(everything):
        assert instance.objects("watch", "--from", start, "--until", event["cursor"]) == everything[: place + 1]
    assert instance.objects("watch", "--from", start, "--until", start) == []


# --- snapshots ------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_the_state_then_its_end_then_every_later_change(instance: Instance, library: str) -> None:
    put(instance, library, [{"id": name, "text": name} for name in "abc"])
    put(instance, library, [{"op": "delete", "id": "b"}])
    with running(instance, "watch", "--snapshot", "-l", library, "--type", "document.*") as watcher:
        items = [line_of(watcher.stdout) for _ in range(4)]
        assert [item["type"] for item in items] == [
            "snapshot.library", "snapshot.document", "snapshot.document", "snapshot.end",
        ]  # fmt: skip
        assert ids(items) == ["a", "c"]
        put(instance, library, [{"id": "d", "text": "d"}])
        assert line_of(watcher.stdout)["data"]["id"] == "d"


def test_a_snapshot_that_is_cut_short_goes_on_from_the_cursor_file(instance: Instance, tmp_path: Path) -> None:
    library, file = fresh(instance, embedder="none", dimension=1), tmp_path / "cursor"
    wanted = [f"d{number:04}" for number in range(1_300)]
    put(instance, library, [{"id": its_id, "vector": [1]} for its_id in wanted])
    watch = ["watch", "--snapshot", "-l", library, "--cursor-file", str(file)]
    with running(instance, *watch) as watcher:
        printed = [line_of(watcher.stdout)]
        until(file.exists, "a cursor")
        watcher.kill()
        printed += [json.loads(line) for line in rest_of(watcher.stdout).splitlines(True) if line.endswith("\n")]
    kept = file.read_text().strip()
    behind = next((place for place, item in enumerate(printed) if item["cursor"] == kept), -1)
    put(instance, library, [{"id": "later", "vector": [2]}])
    rest = past(instance, *watch[1:])
    found = ids(printed[: behind + 1]) + ids(rest)
    assert found == [*wanted, "later"]


def test_a_snapshot_is_only_for_those_who_have_no_place_yet(instance: Instance, library: str, tmp_path: Path) -> None:
    put(instance, library, [{"id": "a", "text": "one"}])
    for place in (["--cursor-file", str(tmp_path / "cursor")], ["--consumer", f"snap-{library}"]):
        first = past(instance, "--snapshot", "-l", library, *place)
        assert [item["type"] for item in first] == ["snapshot.library", "snapshot.document", "snapshot.end"]
        assert past(instance, "--snapshot", "-l", library, *place) == []


@pytest.mark.parametrize("start", ["beginning", "-15m", "2026-01-01"])
def test_a_snapshot_is_of_now(instance: Instance, start: str) -> None:
    assert "snapshot" in instance.vec("watch", "--snapshot", "--from", start, status=2).stderr


# --- gaps -----------------------------------------------------------------------------------------------------------


def test_a_position_that_was_trimmed_away_is_exit_5_or_mended_and_told(instance: Instance, library: str) -> None:
    start = head(instance)
    put(instance, library, [{"id": "a", "text": "one"}])
    oldest = trimmed(instance)
    put(instance, library, [{"id": "b", "text": "two"}])
    watch = ["watch", "--no-follow", "--from", start, "-l", library, "--type", "document.*"]
    refused = instance.vec(*watch, status=5)
    assert "(compacted)" in refused.stderr
    assert oldest in refused.stderr
    assert refused.stdout == ""
    mended = instance.vec(*watch, "--on-gap", "oldest")
    assert "(compacted)" in mended.stderr
    assert f"continuing from {oldest}" in mended.stderr
    assert ids([json.loads(line) for line in mended.stdout.splitlines()]) == ["b"]
    anew = instance.vec(*watch, "--on-gap", "snapshot", "--exec", "cat")
    assert "(compacted)" in anew.stderr
    assert ids([json.loads(line) for line in anew.stdout.splitlines()]) == ["a", "b"]


def test_a_cursor_file_behind_a_trim_is_left_alone(instance: Instance, library: str, tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    file.write_text(head(instance))
    put(instance, library, [{"id": "a", "text": "one"}])
    trimmed(instance)
    before = file.read_text()
    put(instance, library, [{"id": "b", "text": "one"}])
    assert f"the cursor is in {file}" in instance.vec("watch", "--cursor-file", str(file), status=5).stderr
    assert file.read_text() == before


# --- consumers ------------------------------------------------------------------------------------------------------


def test_slices_of_a_consumer_put_together_are_the_log(instance: Instance, library: str) -> None:
    start, name = head(instance), f"slices-{library}"
    put(instance, library, [{"id": f"d{number}", "text": "x"} for number in range(20)])
    together: list[Any] = []
    while piece := past(instance, "--consumer", name, "--from", start, "-n", "7"):
        together += piece
    assert together == past(instance, "--from", start)
    instance.vec("consumers", "delete", name)


def test_a_second_holder_is_refused_by_name_of_the_first(instance: Instance) -> None:
    with running(instance, "watch", "--consumer", "only-one") as first:
        watching(instance, 1)
        refused = instance.vec("watch", "--consumer", "only-one", status=75)
        assert f"process {first.pid}" in refused.stderr
        assert "(consumer_held)" in refused.stderr
        first.kill()
        first.wait()
        until(lambda: instance.vec("watch", "--consumer", "only-one", "--no-follow", status=None).returncode == 0)
    instance.vec("consumers", "delete", "only-one")


def test_what_was_printed_is_acknowledged_and_the_rest_comes_again(instance: Instance, library: str) -> None:
    """Killed in the middle: nothing is left out."""
    start, name = head(instance), f"killed-{library}"
    put(instance, library, [{"id": f"d{number}", "text": "x"} for number in range(3_000)])
    wanted = [event["seq"] for event in past(instance, "--from", start)]
    seen: list[int] = []
    for count in (1, 1_500, 4_000):
        with running(instance, "watch", "--consumer", name, "--from", start) as watcher:
            seen += [line_of(watcher.stdout)["seq"] for _ in range(count)]
            watcher.kill()
            lines = rest_of(watcher.stdout).splitlines(True)
            seen += [json.loads(line)["seq"] for line in lines if line.endswith("\n")]
        watching(instance, 0)
    seen += [event["seq"] for event in past(instance, "--consumer", name)]
    last = wanted[0] - 1
    for seq in seen:
        assert seq <= last + 1, f"a gap between {last} and {seq}"
        last = max(last, seq)
    assert last == wanted[-1]
    instance.vec("consumers", "delete", name)


@pytest.mark.parametrize("place", ["file", "consumer"])
def test_bookmarks_move_the_place_of_a_quiet_filter(instance: Instance, tmp_path: Path, place: str) -> None:
    library, file = fresh(instance), tmp_path / "cursor"
    kept = ["--cursor-file", str(file)] if place == "file" else ["--consumer", "quiet"]
    with running(instance, "watch", "-l", library, "--type", "library.deleted", *kept):
        watching(instance, 1)
        put(instance, library, [{"id": "a", "text": "one"}])
        if place == "file":
            until(lambda: file.exists() and file.read_text().strip() == head(instance), "the bookmark")
        else:
            assert instance.objects("watch", "--flush", "--consumer", "quiet")[0]["cursor"] == head(instance)
    if place == "consumer":
        watching(instance, 0)
        instance.vec("consumers", "delete", "quiet")


def test_a_place_is_kept_in_one_way(instance: Instance, tmp_path: Path) -> None:
    done = instance.vec("watch", "--consumer", "c", "--cursor-file", str(tmp_path / "cursor"), status=2)
    assert "cannot be combined with" in done.stderr


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "x" * 200])
def test_a_name_that_no_consumer_can_have_is_a_usage_error(instance: Instance, name: str) -> None:
    assert instance.vec("watch", f"--consumer={name}", "--no-follow", status=2).stdout == ""


# --- the barrier ----------------------------------------------------------------------------------------------------


def test_flush_answers_when_all_who_watch_have_got_everything(instance: Instance, library: str) -> None:
    with running(instance, "watch", "-l", library) as watcher:
        watching(instance, 1)
        put(instance, library, [{"id": "a", "text": "one"}])
        assert instance.objects("watch", "--flush") == [{"cursor": head(instance)}]
        assert line_of(watcher.stdout)["data"]["id"] == "a"
    watching(instance, 0)
    assert instance.objects("watch", "--flush") == [{"cursor": head(instance)}], "nobody is waited for"


def test_flush_of_a_consumer_waits_for_its_acks_and_times_out_with_124(instance: Instance, library: str) -> None:
    with running(instance, "watch", "-l", library, "--consumer", "stops") as watcher:
        watching(instance, 1)
        watcher.send_signal(signal.SIGSTOP)
        put(instance, library, [{"id": "a", "text": "one"}])
        flush = ["watch", "--flush", "--consumer", "stops", "--timeout"]
        assert "(timeout)" in instance.vec(*flush, "0.3", status=124).stderr
        flushed: list[Any] = []
        waiting = threading.Thread(target=lambda: flushed.extend(instance.objects(*flush, "60")))
        waiting.start()
        watcher.send_signal(signal.SIGCONT)
        waiting.join()
        assert flushed == [{"cursor": head(instance)}]
    watching(instance, 0)
    instance.vec("consumers", "delete", "stops")
    assert instance.vec("watch", "--flush", "--consumer", "stops", status=4).stdout == ""


@pytest.mark.parametrize(
    "other", [["-n", "1"], ["--from", "beginning"], ["-l", "x"], ["--exec", "true"], ["--snapshot"]]
)
def test_flush_goes_alone(instance: Instance, other: list[str]) -> None:
    assert "--flush" in instance.vec("watch", "--flush", *other, status=2).stderr


def test_a_reader_that_is_stopped_gets_all_it_missed(instance: Instance, library: str) -> None:
    with running(instance, "watch", "-l", library, "--type", "document.*") as watcher:
        watching(instance, 1)
        os.kill(watcher.pid, signal.SIGSTOP)
        put(instance, library, [{"id": f"d{number}", "text": "x" * 200} for number in range(5_000)])
        os.kill(watcher.pid, signal.SIGCONT)
        assert [line_of(watcher.stdout)["data"]["id"] for _ in range(5_000)] == [f"d{n}" for n in range(5_000)]
