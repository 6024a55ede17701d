"""vec consumers: who reads the log under a name, how far they are, and how to move or forget them."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.running import running
from tests.support.waiting import until
from vecd.errors import Code, VecError

from .watching import head, past, put, watching

# mypy knows cli/ by its folder's name; it is imported by the name that it is installed under.
cursors: Any = importlib.import_module("vec_cli.cursors")


@pytest.fixture
def consumer(instance: Instance, library: str) -> str:
    """A consumer that is two events behind."""
    name = f"c-{library}"
    put(instance, library, [{"id": "a", "text": "one"}])
    past(instance, "--consumer", name)
    put(instance, library, [{"id": "b", "text": "two"}])
    return name


def found(instance: Instance, name: str) -> dict[str, Any] | None:
    return next((each for each in instance.objects("consumers", "list") if each["name"] == name), None)


def test_the_list_has_how_far_each_is_behind_and_who_holds_it(instance: Instance, consumer: str) -> None:
    body = found(instance, consumer)
    assert body is not None
    assert list(body) == ["name", "cursor", "seq", "lag", "holder", "created_at", "acked_at"]
    assert (body["lag"], body["holder"]) == (2, None)
    assert int(head(instance).partition(":")[2]) == body["seq"] + 2
    with running(instance, "watch", "--consumer", consumer) as watcher:
        watching(instance, 1)

        def caught_up() -> bool:
            body = found(instance, consumer)
            return body is not None and f"process {watcher.pid}" in str(body["holder"]) and body["lag"] == 0

        until(caught_up, "its acks")
    names = [each["name"] for each in instance.objects("consumers", "list")]
    assert names == sorted(names)


def test_a_reset_moves_it_anywhere(instance: Instance, library: str, consumer: str) -> None:
    body = instance.objects("consumers", "reset", consumer, "--to", "now")[0]
    assert (body["cursor"], body["lag"]) == (head(instance), 0)
    assert past(instance, "--consumer", consumer) == []
    everything = past(instance, "--from", "beginning")
    instance.vec("consumers", "reset", consumer, "--to", everything[4]["cursor"])
    assert past(instance, "--consumer", consumer) == everything[5:]
    instance.vec("consumers", "reset", consumer, "--to", "beginning")
    assert past(instance, "--consumer", consumer) == everything


@pytest.mark.parametrize(("to", "status"), [("nonsense", 2), ("0123456789abcdef:1", 5)])
def test_a_reset_to_nowhere_leaves_it_where_it_is(instance: Instance, consumer: str, to: str, status: int) -> None:
    before = found(instance, consumer)
    instance.vec("consumers", "reset", consumer, "--to", to, status=status)
    assert found(instance, consumer) == before


def test_one_that_is_deleted_is_gone_and_may_be_made_again(instance: Instance, consumer: str) -> None:
    assert instance.objects("consumers", "delete", consumer)[0]["name"] == consumer
    assert found(instance, consumer) is None
    assert past(instance, "--consumer", consumer) == []  # a new one, from now


def test_one_that_is_not_there_is_exit_4(instance: Instance) -> None:
    for arguments in (["reset", "nobody", "--to", "now"], ["delete", "nobody"]):
        assert "'nobody'" in instance.vec("consumers", *arguments, status=4).stderr


def test_one_that_is_held_is_neither_moved_nor_deleted(instance: Instance, consumer: str) -> None:
    with running(instance, "watch", "--consumer", consumer) as watcher:
        watching(instance, 1)
        for arguments in (["reset", consumer, "--to", "now"], ["delete", consumer]):
            done = instance.vec("consumers", *arguments, status=75)
            assert f"process {watcher.pid}" in done.stderr


@pytest.mark.parametrize("arguments", [["reset", "c"], ["reset"], ["delete"], ["forget", "c"]])
def test_what_is_missing_is_a_usage_error(instance: Instance, arguments: list[str]) -> None:
    assert instance.vec("consumers", *arguments, status=2).stdout == ""


@pytest.mark.parametrize("noticed", [False, True])
def test_what_was_done_is_acknowledged_to_a_daemon_that_was_restarted(noticed: bool) -> None:
    """Whether or not the connection's end was noticed before the ack."""
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        daemon = own.start()
        put(own, "default", [{"id": "a", "text": "one"}])
        with own.connect() as client:
            feed = client.watch("beginning", consumer="c")
            place = cursors.ConsumerCursor("c", own.connect)
            events = [next(feed) for _ in range(3)]
            daemon.kill()
            daemon.wait()
            if noticed:
                with pytest.raises(VecError, match="was lost"):
                    next(feed)
            own.start()
            place.keep(feed, events[-1]["cursor"])
            with pytest.raises(VecError) as lost:
                place.secure(feed)
            assert lost.value.code == "connection_lost"
            place.salvage()
        (body,) = own.objects("consumers", "list")
        assert body["cursor"] == events[-1]["cursor"]


def test_an_ack_that_a_silent_daemon_does_not_take_is_kept_for_the_next_connection() -> None:
    class Silent:
        def ack(self, cursor: str) -> None:
            raise VecError(Code.STALLED, "the daemon has not answered for 6 s")

        def settle(self) -> None:
            pass

    acked: list[str] = []

    class Again:
        def ack(self, consumer: str, cursor: str) -> None:
            acked.append(cursor)

    place, silent = cursors.ConsumerCursor("c", lambda: pytest.fail("not asked for")), Silent()
    place.keep(silent, "log:7")
    with pytest.raises(VecError, match="has not answered"):
        place.secure(silent)
    place.resume(Again())
    assert acked == ["log:7"]
