"""vec relay, through the real door: the command, the daemon, the process of the connectors, a file at the other end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_receiver import Answer, Receiver
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.errors import Code, VecError


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def put(instance: Instance, *ids: str) -> None:
    with instance.connect() as client:
        client.ingest([{"id": each, "text": f"text of {each}"} for each in ids])


def lines(path: Path) -> list[Any]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]


def relay(instance: Instance, name: str = "out") -> Any:
    (found,) = [each for each in instance.objects("relay", "list") if each["name"] == name]
    return found


def connector_pids(instance: Instance) -> list[int]:
    """The processes of the connectors of this instance's daemon."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"vecd.connectors" in command and os.fsencode(instance.settings.socket) in command:
                found.append(int(entry.name))
    return found


def test_a_relay_delivers_each_event_as_vec_watch_prints_it(instance: Instance, tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    put(instance, "before")
    instance.vec("relay", "add", "out", f"file://{out}", "--from", "beginning")
    put(instance, "a", "b")
    watched = instance.objects("watch", "--from", "beginning", "--no-follow")
    until(lambda: len(lines(out)) >= len(watched), "the relay's last line")
    assert lines(out) == watched
    until(lambda: relay(instance)["lag"] == 0, "the stored position")
    shown = until(lambda: (found := relay(instance))["delivered"] == len(watched) and found, "the report")
    assert (shown["state"], shown["delivered"], shown["error"]) == ("running", len(watched), None)
    assert shown["cursor"] == watched[-1]["cursor"]


def test_a_relay_sends_only_what_it_was_asked_for(instance: Instance, tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    instance.vec("relay", "add", "out", f"file://{out}", "--type", "document.*", "--payload", "--from", "beginning")
    put(instance, "a")
    (event,) = until(lambda: lines(out), "a line")
    assert event["type"] == "document.added"
    assert event["data"]["document"]["chunks"][0]["text"] == "text of a"


def test_a_relay_goes_on_at_its_cursor_when_its_process_or_the_daemon_is_killed(
    instance: Instance, tmp_path: Path
) -> None:
    out = tmp_path / "out.ndjson"
    instance.vec("relay", "add", "out", f"file://{out}", "--type", "document.added")
    put(instance, "a")
    until(lambda: lines(out), "the first line")
    (before,) = connector_pids(instance)
    os.kill(before, signal.SIGKILL)
    put(instance, "b")
    until(lambda: len(lines(out)) >= 2, "the second line")
    pid = instance.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not connector_pids(instance), "the end of the process of a daemon that was killed")
    instance.start()
    put(instance, "c")
    until(lambda: len({line["data"]["id"] for line in lines(out)}) == 3, "the third line")
    assert sorted({line["data"]["id"] for line in lines(out)}) == ["a", "b", "c"]


def test_the_position_is_stored_while_the_next_batch_waits_for_its_receiver(instance: Instance) -> None:
    """Although far more of the log is on its way to the relay than it reads meanwhile."""
    with instance.connect() as client:
        for batch in range(20):
            client.ingest([{"id": f"{batch}-{number}", "text": "a"} for number in range(500)])
    with Receiver() as receiver:
        receiver.answer = lambda _: Answer(503 if len(receiver.received) > 1 else 204)
        instance.vec("relay", "add", "out", receiver.url, "--from", "beginning")
        until(lambda: len(receiver.received) > 1, "the second batch")
        last = json.loads(receiver.received[0].body.split(b"\n")[-2])
        until(lambda: relay(instance)["cursor"] == last["cursor"], "the position behind the first batch")
        assert relay(instance)["lag"] > 10_000


def test_the_process_runs_only_while_there_are_connectors(instance: Instance, tmp_path: Path) -> None:
    assert connector_pids(instance) == []
    instance.vec("relay", "add", "out", f"file://{tmp_path}/out")
    until(lambda: connector_pids(instance), "the process")
    instance.vec("relay", "remove", "out")
    until(lambda: not connector_pids(instance), "its end")
    assert instance.objects("relay", "list") == []
    assert instance.objects("consumers", "list") == []


def test_a_relay_that_cannot_deliver_says_why_and_goes_on_when_it_can(instance: Instance, tmp_path: Path) -> None:
    out = tmp_path / "missing" / "out.ndjson"
    instance.vec("relay", "add", "out", f"file://{out}")
    put(instance, "a")
    shown = until(lambda: (found := relay(instance))["error"] and found, "an error")
    assert shown["state"] == "failing"
    assert f"cannot append to {out}" in shown["error"]["message"]
    assert shown["lag"] > 0
    out.parent.mkdir()
    until(lambda: len(lines(out)) >= 2, "the lines")
    until(lambda: relay(instance)["state"] == "running", "the state")


def test_the_position_of_a_relay_is_a_consumer_that_only_the_relay_moves(instance: Instance, tmp_path: Path) -> None:
    instance.vec("relay", "add", "out", f"file://{tmp_path}/out")
    assert [each["name"] for each in instance.objects("consumers", "list")] == ["relay.out"]
    for command in (
        ("consumers", "delete", "relay.out"),
        ("consumers", "reset", "relay.out", "--to", "beginning"),
        ("watch", "--consumer", "relay.out"),
    ):
        assert "vec relay reset out" in instance.vec(*command, status=2).stderr


def test_what_cannot_be_a_relay_is_refused_before_it_is_stored(instance: Instance, tmp_path: Path) -> None:
    for status, *arguments in (
        (2, "out", "file://relative"), (2, "out", "nosuch:///x"), (2, "a b", f"file://{tmp_path}/x"),
        (2, "out", f"file://{tmp_path}/x", "-p", "nosuch=1"), (2, "out", f"file://{tmp_path}/x", "--where", "((("),
        (4, "out", f"file://{tmp_path}/x", "--library", "nosuch"), (2, "out", f"file://{tmp_path}/x", "--type", "x.y"),
        (2, "out", f"file://{tmp_path}/x", "--from", "yesterday"),
    ):  # fmt: skip
        instance.vec("relay", "add", *map(str, arguments), status=int(status))
    assert instance.objects("relay", "list") == []
    instance.vec("relay", "add", "out", f"file://{tmp_path}/x")
    assert "already exists" in instance.vec("relay", "add", "out", f"file://{tmp_path}/y", status=1).stderr


def test_a_paused_relay_keeps_its_position_and_continues_there(instance: Instance, tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    instance.vec("relay", "add", "out", f"file://{out}", "--type", "document.added", "--paused")
    put(instance, "a")
    assert relay(instance)["state"] == "paused"
    instance.vec("relay", "resume", "out")
    until(lambda: len(lines(out)) == 1, "the first line")
    until(lambda: relay(instance)["lag"] == 0, "the stored position")
    (paused,) = instance.objects("relay", "pause", "out")
    assert (paused["paused"], paused["state"], paused["rate"]) == (True, "paused", None)
    until(lambda: not any(each["holder"] for each in instance.objects("consumers", "list")), "the end of its watch")
    put(instance, "b")
    assert relay(instance)["lag"] == 2
    assert len(lines(out)) == 1
    instance.vec("relay", "resume", "out")
    until(lambda: len(lines(out)) == 2, "the second line")


def test_a_reset_sends_from_the_given_position_on(instance: Instance, tmp_path: Path) -> None:
    out = tmp_path / "out.ndjson"
    instance.vec("relay", "add", "out", f"file://{out}", "--type", "document.added")
    put(instance, "a", "b")
    until(lambda: len(lines(out)) == 2, "the lines")
    first = lines(out)[0]["cursor"]
    before = relay(instance)["generation"]
    (moved,) = instance.objects("relay", "reset", "out", "--to", first)
    assert moved["generation"] == before + 1
    until(lambda: [line["data"]["id"] for line in lines(out)] == ["a", "b", "b"], "the second line once more")
    instance.vec("relay", "reset", "out", "--to", "beginning")
    until(lambda: [line["data"]["id"] for line in lines(out)] == ["a", "b", "b", "a", "b"], "both once more")


def test_a_relay_that_is_added_again_is_of_a_generation_that_never_was(instance: Instance, tmp_path: Path) -> None:
    """What a runner of the removed one still does, and what it left at the broker, is not taken for the new one's."""
    seen = set()
    for _ in range(3):
        instance.vec("relay", "add", "out", f"file://{tmp_path}/out")
        instance.vec("relay", "reset", "out", "--to", "beginning")
        seen |= {relay(instance)["generation"] - 1, relay(instance)["generation"]}
        instance.vec("relay", "remove", "out")
    assert len(seen) == 6


def test_a_runner_of_an_earlier_generation_can_commit_nothing(instance: Instance, tmp_path: Path) -> None:
    instance.vec("relay", "add", "out", f"file://{tmp_path}/out", "--paused")
    cursor = relay(instance)["cursor"]
    put(instance, "a")
    head = instance.objects("watch", "--from", "beginning", "--no-follow")[-1]["cursor"]
    with instance.connect() as client:
        earlier = client.relay("out")["generation"]
        client.reset_relay("out", cursor)
        letter = {"position": head, "code": "x", "reason": "x", "attempts": 1, "about": {}, "body": b""}
        with pytest.raises(VecError) as caught:
            client.commit_relay("out", earlier, cursor=head, dead_letters=[letter]).result()
        assert caught.value.code == Code.LEASE_LOST
        with pytest.raises(VecError) as caught:
            client.watch_relay("out", earlier)
        assert caught.value.code == Code.LEASE_LOST
        assert list(client.relay_dead_letters("out")) == []
        client.commit_relay("out", earlier + 1, cursor=head, dead_letters=[letter]).result()
        assert client.relay("out")["lag"] == 0
        assert [each["position"] for each in client.relay_dead_letters("out")] == [head]


def test_a_trim_stops_at_a_relay_and_a_relay_whose_position_was_trimmed_says_so(
    instance: Instance, tmp_path: Path
) -> None:
    out = tmp_path / "out.ndjson"
    instance.vec("relay", "add", "out", f"file://{out}", "--type", "document.added", "--paused")
    put(instance, "a")
    (trimmed,) = instance.objects("trim", "--keep-count", "0")
    assert trimmed["held_by"] == "relay.out"
    instance.vec("trim", "--keep-count", "0", "--past-consumers")
    instance.vec("relay", "resume", "out")
    shown = until(lambda: (found := relay(instance))["error"] and found, "the error")
    assert (shown["state"], shown["error"]["code"]) == ("failing", "compacted")
    assert "vec relay reset out --to beginning" in shown["error"]["hint"]
    instance.vec("relay", "reset", "out", "--to", "beginning")
    put(instance, "b")
    until(lambda: [line["data"]["id"] for line in lines(out)] == ["b"], "what is left")


def test_the_relays_of_a_backup_that_is_opened_elsewhere_are_paused(instance: Instance, tmp_path: Path) -> None:
    instance.vec("relay", "add", "out", f"file://{tmp_path}/out")
    instance.vec("backup", str(tmp_path / "copy.db"))
    with Instance({"VEC_EMBEDDER": "hash"}) as other:
        other.vec("restore", str(tmp_path / "copy.db"))
        other.start()
        assert relay(other)["state"] == "paused"
    assert relay(instance)["paused"] is False


def test_a_position_that_was_trimmed_is_refused_by_add_and_reset(instance: Instance, tmp_path: Path) -> None:
    put(instance, "a", "b", "c")
    first = instance.objects("watch", "--from", "beginning", "--no-follow")[0]["cursor"]
    url = f"file://{tmp_path / 'out'}"
    instance.vec("relay", "add", "early", url, "--from", first)
    until(lambda: relay(instance, "early")["lag"] == 0, "all events")
    instance.vec("trim", "--keep-count", "1")
    done = instance.vec("relay", "add", "late", url, "--from", first, status=5)
    assert "has been trimmed" in done.stderr
    assert "use beginning" in done.stderr
    instance.vec("relay", "reset", "early", "--to", first, status=5)
    assert [each["name"] for each in instance.objects("relay", "list")] == ["early"]
    instance.vec("relay", "add", "late", url, "--from", "beginning")


def test_a_second_relay_of_a_stream_of_redis_is_refused_and_a_reset_back_warns(instance: Instance) -> None:
    put(instance, "a")
    url = "redis://127.0.0.1:1/events"
    instance.vec("relay", "add", "live", url, "--paused")
    done = instance.vec("relay", "add", "two", "redis://localhost:1/events", "--paused", status=1)
    assert "the relay 'live' already writes to" in done.stderr
    instance.vec("relay", "add", "two", "redis://localhost:1/others", "--paused")
    done = instance.vec("relay", "reset", "live", "--to", "beginning")
    assert "redis-cli DEL events events:vec" in done.stderr
    assert "drops" not in instance.vec("relay", "reset", "live", "--to", "now").stderr


@pytest.mark.parametrize("command", ["relay", "source"])
def test_a_dead_letter_that_is_not_there_is_an_error(instance: Instance, command: str, tmp_path: Path) -> None:
    instance.vec(command, "add", "x", f"file://{tmp_path / 'x'}", "--paused")
    for verb in ("retry", "drop"):
        done = instance.vec(command, verb, "x", "99", status=4)
        assert f"{command} 'x' has no dead letter 99" in done.stderr
        instance.vec(command, verb, "x", "--all")
    (removed,) = instance.objects(command, "remove", "x")
    assert removed["state"] == "removed"
