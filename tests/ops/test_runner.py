"""What every transport may rely on: each request is answered once, writes in order, streams at their reader's pace."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.inprocess import Daemon, Ops, daemon
from vecd import limits
from vecd.errors import Code, VecError
from vecd.ops.budget import Budget
from vecd.ops.call import Call
from vecd.ops.table import OPS, Immediate, Op
from vecd.wire.vectors import pack_vector


async def failure(ops: Ops, op: str, /, **fields: Any) -> VecError:
    with pytest.raises(VecError) as caught:
        await ops.call(op, **fields)
    return caught.value


async def settled(times: int = 20) -> None:
    """Lets every task that can go on do so."""
    for _ in range(times):
        await asyncio.sleep(0)


# --- calls ------------------------------------------------------------------------------------------------------------


async def test_a_document_is_found_by_a_call_without_a_socket(ops: Ops) -> None:
    await ops.call("library.create", library="found", embedder="hash")
    added = await ops.call("ingest", library="found", documents=[{"id": "a", "text": "rotate the logs"}])
    assert (added["added"], added["failed"]) == (1, 0)
    found = await ops.call("search", library="found", query="logs")
    assert [hit["document_id"] for hit in found["hits"]] == ["a"]


async def test_an_answer_in_pages_is_read_as_items_and_an_end(ops: Ops) -> None:
    await ops.call("library.create", library="pages", embedder="none", dimension=2)
    documents = [{"id": f"{n:03}", "vector": pack_vector([1.0, n])} for n in range(limits.PAGE_ITEMS + 5)]
    seq = (await ops.call("ingest", library="pages", documents=documents))["seq"]
    listed = await ops.call("list", library="pages")
    assert [each["id"] for each in listed["items"]] == [each["id"] for each in documents]
    assert listed["seq"] >= seq


async def test_a_result_that_fits_no_message_becomes_a_stream_of_its_list(here: Daemon) -> None:
    async def many(call: Call) -> dict[str, Any]:
        return {"found": [{"n": n} for n in range(100)], "seq": 7}

    ops = here.connect({"many": Op(many)}, message_bytes_max=50, window=100)
    answer = await ops.send("many")
    assert await answer.whole() == {"items": [{"n": n} for n in range(100)], "seq": 7}


async def test_a_single_item_that_fits_no_message_is_too_large(here: Daemon) -> None:
    async def large(call: Call) -> dict[str, Any]:
        return {"found": [{"text": "x" * 100}]}

    error = await failure(here.connect({"large": Op(large)}, message_bytes_max=50), "large")
    assert error.code == Code.TOO_LARGE


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_op_is_unsupported(ops: Ops) -> None:
    error = await failure(ops, "fly")
    assert error.code == Code.UNSUPPORTED
    assert "'fly'" in error.message


async def test_a_field_of_the_wrong_type_is_named(ops: Ops) -> None:
    error = await failure(ops, "search", query="t", k="ten")
    assert (error.code, error.details["field"]) == (Code.INVALID_REQUEST, "k")


async def test_an_error_of_the_engine_reaches_the_sender_as_it_is(ops: Ops) -> None:
    assert (await failure(ops, "library.show", library="nowhere")).code == Code.NOT_FOUND


@pytest.mark.parametrize("immediate", [False, True])
async def test_a_bug_in_a_handler_is_internal_and_logged_and_ends_nothing(
    here: Daemon, caplog: pytest.LogCaptureFixture, immediate: bool
) -> None:
    async def broken(call: Call) -> dict[str, Any]:
        raise ZeroDivisionError("by nothing")

    def broken_at_once(call: Call) -> dict[str, Any]:
        raise ZeroDivisionError("by nothing")

    ops = here.connect({**OPS, "broken": Immediate(broken_at_once) if immediate else Op(broken)})
    with caplog.at_level(logging.ERROR, "vecd.ops"):
        error = await failure(ops, "broken")
    assert error.code == Code.INTERNAL
    assert "ZeroDivisionError: by nothing" in error.message
    (record,) = caplog.records
    assert record.exc_info is not None
    assert await ops.call("ping") == {}
    assert ops.runner.is_idle


async def test_memory_that_the_system_does_not_give_is_busy_and_no_bug(here: Daemon) -> None:
    async def hungry(call: Call) -> dict[str, Any]:
        raise MemoryError

    assert (await failure(here.connect({"hungry": Op(hungry)}), "hungry")).code == Code.BUSY


async def test_a_number_that_is_in_use_is_refused_and_the_first_request_is_answered(here: Daemon) -> None:
    finish = asyncio.Event()

    async def wait(call: Call) -> dict[str, Any]:
        await finish.wait()
        return {"waited": True}

    ops = here.connect({"wait": Op(wait)})
    first = ops.push("wait", number=5)
    second = ops.push("wait", number=5)
    assert second.failure is not None
    assert (second.failure.code, second.failure.details["field"]) == (Code.INVALID_REQUEST, "id")
    finish.set()
    assert await first.whole() == {"waited": True}
    again = ops.push("wait", number=5)  # answered: the number is free
    assert await again.whole() == {"waited": True}


# --- the order of writes ----------------------------------------------------------------------------------------------


async def test_writes_take_effect_in_the_order_they_were_sent(ops: Ops) -> None:
    """Long and short ones, into a library that the first of them creates and a later one replaces."""
    sent = [await ops.send("library.create", library="ordered", embedder="hash")]
    for n in range(12):
        padding = [{"id": f"{n}-{m}", "text": f"word {m} " * 50} for m in range(40 if n % 3 == 0 else 0)]
        documents = [*padding, {"id": "last", "text": f"write {n}"}]
        sent.append(await ops.send("ingest", library="ordered", documents=documents))
        if n == 5:
            sent.append(await ops.send("library.delete", library="ordered"))
            sent.append(await ops.send("library.create", library="ordered", embedder="hash"))
    answers = [await each.whole() for each in sent]
    seqs = [answer["seq"] for answer in answers]
    assert seqs == sorted(seqs)
    (document,) = (await ops.call("get", library="ordered", ids=["last"]))["documents"]
    assert document["chunks"][0]["text"] == "write 11"
    assert (await ops.call("get", library="ordered", ids=["0-0"]))["documents"] == [None]
    assert (await ops.call("get", library="ordered", ids=["9-0"]))["documents"] != [None]


async def test_writes_of_another_sender_do_not_wait_for_a_write_that_is_being_prepared(here: Daemon) -> None:
    passed: list[str] = []
    prepared = asyncio.Event()

    async def write(call: Call) -> dict[str, Any]:
        name = call.fields.text("name")
        if name == "slow":
            await prepared.wait()
        async with call.slot:
            passed.append(name)
        return {}

    table = {"write": Op(write, write=True)}
    one, other = here.connect(table), here.connect(table)
    sent = [await one.send("write", name="slow"), await one.send("write", name="behind it")]
    await other.call("write", name="another's")
    prepared.set()
    for each in sent:
        await each.whole()
    assert passed == ["another's", "slow", "behind it"]


async def test_a_write_that_fails_holds_up_no_other(here: Daemon) -> None:
    async def write(call: Call) -> dict[str, Any]:
        if call.fields.flag("fails"):
            raise VecError(Code.INVALID_REQUEST, "no")
        async with call.slot:
            return {"written": True}

    ops = here.connect({"write": Op(write, write=True, makes_libraries=True)})
    failing = await ops.send("write", fails=True)
    assert await ops.call("write") == {"written": True}
    assert failing.failure is not None


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_a_watch_gets_events_as_they_happen_and_ends_when_it_is_cancelled(ops: Ops) -> None:
    await ops.call("library.create", library="watched", embedder="hash")
    async with ops.stream("watch", libraries=["watched"]) as events:
        assert (await events.message() or {})["items"] == []  # the subscription stands
        await ops.call("ingest", library="watched", documents=[{"id": "a", "text": "t"}])
        assert [event["type"] for event in await events.take(2)] == ["document.added", "chunk.added"]
        end = await events.cancel()
    assert end["reason"] == "cancelled"
    assert ":" in end["cursor"]
    assert ops.runner.is_idle
    assert not ops.runner.is_streaming


async def test_a_stream_that_the_reader_leaves_is_cancelled(here: Daemon) -> None:
    ended = asyncio.Event()

    async def endless(call: Call) -> dict[str, Any]:
        try:
            while True:
                await call.items([1, 2, 3])
        finally:
            ended.set()

    ops = here.connect({**OPS, "endless": Op(endless, stream=True)}, window=1)
    async with ops.stream("endless") as numbers:
        assert await numbers.take(5) == [1, 2, 3, 1, 2]
    assert ended.is_set()
    assert numbers.ending == {"reason": "cancelled"}


async def test_a_stream_that_is_cancelled_before_it_began_ends_too(here: Daemon) -> None:
    async def never(call: Call) -> dict[str, Any]:
        raise AssertionError("this does not run")

    ops = here.connect({**OPS, "never": Op(never, stream=True)})
    answer = ops.push("never")
    assert ops.push("cancel", target=answer.number).ending == {"cancelled": True}
    assert await answer.whole() == {"items": [], "reason": "cancelled"}
    assert ops.runner.is_idle


async def test_only_streams_can_be_cancelled(ops: Ops, here: Daemon) -> None:
    finish = asyncio.Event()

    async def wait(call: Call) -> dict[str, Any]:
        await finish.wait()
        return {}

    ops = here.connect({**OPS, "wait": Op(wait)})
    waiting = await ops.send("wait")
    assert await ops.call("cancel", target=waiting.number) == {"cancelled": False}
    assert await ops.call("cancel", target=12345) == {"cancelled": False}
    finish.set()
    assert await waiting.whole() == {}


async def test_a_sender_has_so_many_streams_and_no_more(here: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAMS_MAX", 2)
    ops, another = here.connect(), here.connect()
    streams = [await ops.send("watch") for _ in range(2)]
    assert (await failure(ops, "watch")).code == Code.BUSY
    async with another.stream("watch") as events:
        assert await events.message() is not None
    for each in streams:
        await each.cancel()


# --- back-pressure ----------------------------------------------------------------------------------------------------


async def test_pages_are_made_as_they_are_read(here: Daemon) -> None:
    made: list[int] = []

    async def pages(call: Call) -> dict[str, Any]:
        for n in range(10):
            await call.wait_for_room()
            made.append(n)
            await call.items([n])
        return {"done": True}

    ops = here.connect({"pages": Op(pages)}, window=2)
    answer = await ops.send("pages")
    await settled()
    assert made == [0, 1]  # two wait for their reader
    assert await anext(answer) == 0
    await settled()
    assert made == [0, 1, 2]
    assert await answer.whole() == {"items": list(range(1, 10)), "done": True}
    assert made == list(range(10))


async def test_two_answers_at_once_are_made_for_one_sender(here: Daemon) -> None:
    made: list[int] = []
    read = asyncio.Event()

    async def large(call: Call) -> dict[str, Any]:
        await call.wait_for_room()
        made.append(call.id)
        await read.wait()
        return {}

    table = {"large": Op(large)}
    ops, another = here.connect(table), here.connect(table)
    answers = [await ops.send("large") for _ in range(5)]
    await settled()
    assert len(made) == limits.CONNECTION_ANSWERS_AT_ONCE
    answers.append(await another.send("large"))
    await settled()
    assert len(made) == limits.CONNECTION_ANSWERS_AT_ONCE + 1
    read.set()
    for each in answers:
        await each.whole()


async def test_while_too_much_is_unread_only_senders_that_have_read_everything_are_answered(
    here: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNREAD_BYTES_MAX", 500)

    async def pages(call: Call) -> dict[str, Any]:
        for _ in range(call.fields.integer("count", 1, low=1, high=9)):
            await call.wait_for_room()
            await call.items(["x" * 300])
        return {}

    table = {"pages": Op(pages)}
    slow, quick = here.connect(table), here.connect(table)
    unread = await slow.send("pages", count=3)
    await settled()
    assert len(unread.messages) == 2  # then too much was unread
    for _ in range(3):
        assert await quick.call("pages") == {"items": ["x" * 300]}
    assert len(unread.messages) == 2
    assert len((await unread.whole())["items"]) == 3
    assert here.service.budget.unread_bytes == 0


async def test_a_full_sender_takes_no_more_until_something_is_answered(
    here: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNANSWERED_MAX", 3)
    finish = asyncio.Queue[None]()

    async def wait(call: Call) -> dict[str, Any]:
        await finish.get()
        return {}

    ops = here.connect({"wait": Op(wait)})
    answers = [await ops.send("wait") for _ in range(3)]
    assert not ops.runner.takes_more
    fourth = asyncio.ensure_future(ops.send("wait"))
    await settled()
    assert not fourth.done()
    for _ in range(4):
        finish.put_nowait(None)
    answers.append(await fourth)
    for each in answers:
        assert await each.whole() == {}
    assert ops.runner.takes_more


async def test_the_backlog_of_all_senders_has_a_bound_and_a_sender_with_nothing_unanswered_is_served(
    here: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BACKLOG_BYTES_MAX", 1_000)
    budget = here.service.budget
    finish, told = asyncio.Event(), list[None]()

    async def wait(call: Call) -> dict[str, Any]:
        await finish.wait()
        return {}

    ops, another = here.connect({"wait": Op(wait)}), here.connect({**OPS, "wait": Op(wait)})
    budget.on_backlog_room.append(lambda: told.append(None))
    large = await ops.send("wait", padding=bytes(2_000))
    assert budget.backlog_full
    assert not ops.runner.takes_more
    assert another.runner.takes_more
    assert await another.call("ping") == {}
    ops.hang_up()
    await settled()
    assert budget.backlog_full, "the request is held in memory until it is done"
    finish.set()
    await settled()
    assert large.ending == {} or large.failure is not None
    assert (budget.backlog_bytes, told) == (0, [None])
    budget.on_backlog_room.clear()


# --- senders that go, and daemons that stop ---------------------------------------------------------------------------


async def test_writes_of_a_sender_that_is_gone_take_effect_and_its_streams_end(here: Daemon, ops: Ops) -> None:
    leaving = here.connect()
    await ops.call("library.create", library="left", embedder="hash")
    watch = await leaving.send("watch")
    await watch.message()
    await leaving.send("ingest", library="left", documents=[{"id": "a", "text": "t"}])
    leaving.hang_up()
    await asyncio.gather(*leaving.runner.sender.tasks.values())
    assert leaving.runner.is_idle
    assert (await ops.call("count", library="left"))["documents"] == 1


async def test_an_answer_for_a_sender_that_is_gone_is_not_made(here: Daemon) -> None:
    made = False

    async def large(call: Call) -> dict[str, Any]:
        nonlocal made
        await begin.wait()
        await call.wait_for_room()
        made = True
        return {}

    begin = asyncio.Event()
    ops = here.connect({"large": Op(large)})
    await ops.send("large")
    await settled()
    ops.hang_up()
    begin.set()
    await settled()
    assert ops.runner.is_idle
    assert not made


async def test_draining_answers_what_was_asked_ends_streams_and_refuses_the_rest(here: Daemon) -> None:
    finish = asyncio.Event()

    async def wait(call: Call) -> dict[str, Any]:
        await finish.wait()
        return {"stopping": call.stopping}

    ops = here.connect({**OPS, "wait": Op(wait)})
    waiting, watch = await ops.send("wait"), await ops.send("watch")
    await watch.message()
    drained = asyncio.ensure_future(ops.drain())
    assert (await watch.whole())["reason"] == "shutting_down"
    late = ops.push("ping")
    assert late.failure is not None
    assert late.failure.code == Code.SHUTTING_DOWN
    assert not drained.done()
    finish.set()
    assert await waiting.whole() == {"stopping": True}
    await drained


async def test_what_a_drain_cannot_wait_for_is_told_that_the_daemon_stops(here: Daemon) -> None:
    async def wait(call: Call) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    ops = here.connect({"wait": Op(wait, write=True)})
    answers = [await ops.send("wait") for _ in range(3)]
    ops.runner.drain()
    ops.runner.cancel_all()  # some have not begun
    for each in answers:
        with pytest.raises(VecError) as caught:
            await each.whole()
        assert caught.value.code == Code.SHUTTING_DOWN
    assert ops.runner.is_idle


async def test_a_shutdown_is_answered_and_begins(tmp_path: Path) -> None:
    async with daemon(tmp_path) as stopped:
        assert await stopped.connect().call("shutdown") == {}
        assert stopped.stopping.is_set()


# --- large answers that wait for room ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("library.list", {}),
        ("consumers.list", {}),
        ("schedule.list", {}),
        ("jobs.list", {}),
        ("jobs.logs", {"job_id": 1}),
        ("jobs.wait", {"job_ids": [1]}),
        ("get", {"ids": ["a"]}),
        ("list", {}),
    ],
)
async def test_an_answer_that_may_be_large_waits_for_room(
    here: Daemon, monkeypatch: pytest.MonkeyPatch, op: str, fields: dict[str, Any]
) -> None:
    job = await here.connect().call("jobs.submit", kind="noop")
    if "job_id" in fields or "job_ids" in fields:
        fields = {name: [job["job_id"]] if name == "job_ids" else job["job_id"] for name in fields}
    await here.connect().call("ingest", documents=[{"id": "a", "text": "t"}])
    budget, ops = here.service.budget, here.connect()
    asked, room = asyncio.Event(), asyncio.Event()

    async def begin_answer() -> None:
        asked.set()
        await room.wait()
        await Budget.begin_answer(budget)

    monkeypatch.setattr(budget, "begin_answer", begin_answer)
    answer = asyncio.ensure_future(ops.call(op, **fields))
    await asyncio.wait([answer, asyncio.ensure_future(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert asked.is_set()
    await settled()
    assert not answer.done()
    room.set()
    await answer
    assert ops.runner.is_idle
