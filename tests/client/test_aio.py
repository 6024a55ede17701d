"""The asynchronous client, and the gateway's pool of connections: on a real daemon that is killed, stopped and
restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.running import fresh
from tests.support.waiting import PATIENCE_S, until_async
from vecd import limits
from vecd.client.aio import AsyncClient
from vecd.errors import Code, VecError
from vecd.http.daemon_pool import DaemonPool
from vecd.wire.vectors import pack_vector


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture
def own() -> Iterator[Instance]:
    """An instance whose daemon the test may kill."""
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        yield made


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await main

    asyncio.run(bounded())


@contextlib.asynccontextmanager
async def connected(instance: Instance) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(instance.settings, spawn=False) as client:
        yield client


def error_of(caught: pytest.ExceptionInfo[VecError]) -> str:
    return caught.value.code


def test_a_thousand_requests_at_once_get_each_its_own_answer(instance: Instance) -> None:
    library = fresh(instance)

    async def main() -> None:
        async with connected(instance) as client:
            await client.request("ingest", library=library, documents=[{"id": str(n), "text": "x"} for n in range(100)])
            asked = [client.submit("get", library=library, ids=[str(n % 100)]) for n in range(1000)]
            answers = [await each.result() for each in asked]
            assert [each["documents"][0]["id"] for each in answers] == [str(n % 100) for n in range(1000)]
            assert client.unanswered == 0

    run(main())


def test_writes_take_effect_in_the_order_of_the_calls(instance: Instance) -> None:
    library = fresh(instance)

    async def main() -> None:
        async with connected(instance) as client:
            writes = [
                client.submit("ingest", library=library, documents=[{"id": "a", "title": str(n), "text": "x"}])
                for n in range(300)
            ]
            seqs = [(await each.result())["seq"] for each in writes]
            assert seqs == sorted(seqs)
            found = await client.request("get", library=library, ids=["a"])
            assert found["documents"][0]["title"] == "299"

    run(main())


def test_drain_waits_until_the_daemon_has_taken_what_was_sent(instance: Instance) -> None:
    library = fresh(instance, embedder="none", dimension=2)
    document = {"vector": pack_vector([1.0, 0.0]), "metadata": {"a": "word " * 20_000}}

    async def main() -> None:
        async with connected(instance) as client:
            writes = []
            for number in range(50):
                writes.append(client.submit("ingest", library=library, documents=[{"id": str(number), **document}]))
                await client.drain()
                assert client._transport.get_write_buffer_size() <= 64 * limits.KIB
            assert sum([(await each.result())["added"] for each in writes]) == 50

    run(main())


def test_a_stream_that_is_not_read_does_not_grow_and_is_complete_when_it_is(instance: Instance) -> None:
    library = fresh(instance, embedder="none", dimension=2)
    with instance.connect() as writer:
        for start in range(0, 10_000, 2_000):
            writer.ingest(
                [{"id": f"{start + n:06d}", "vector": [1.0, n], "title": "t" * 100} for n in range(2_000)], library
            )

    async def main() -> None:
        async with connected(instance) as slow, connected(instance) as other:
            listing = slow.submit("list", library=library)
            first = await listing.next()
            assert first is not None
            await until_async(lambda: not slow._transport.is_reading())
            held = listing._unread_bytes
            for _ in range(20):
                await other.request("ping")
            assert listing._unread_bytes == held < 2 * limits.MIB
            ids = [each["id"] for each in first.body]
            async for part in listing.parts():
                if part.kind == "items":
                    ids += [each["id"] for each in part.body]
            assert ids == [f"{n:06d}" for n in range(10_000)]
            await slow.request("ping")

    run(main())


def test_a_cancelled_stream_frees_the_connection_for_other_requests(instance: Instance) -> None:
    library = fresh(instance, embedder="none", dimension=2)
    with instance.connect() as writer:
        writer.ingest([{"id": f"{n:06d}", "vector": [1.0, n], "title": "t" * 1000} for n in range(5_000)], library)

    async def main() -> None:
        async with connected(instance) as client:
            listing = client.submit("list", library=library)
            await until_async(lambda: not client._transport.is_reading())
            listing.cancel()
            await client.request("ping")
            assert await listing.next() is None
            async for _ in client.submit("list", library=library).parts():
                break  # closes the iterator, which cancels
            await client.request("ping")

    run(main())


def test_a_request_whose_task_is_cancelled_leaves_the_connection_usable(instance: Instance) -> None:
    async def main() -> None:
        async with connected(instance) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.request("jobs.claim", worker="w", kinds=["noop"], wait_s=60)
            await client.request("ping")

    run(main())


def test_an_error_of_the_daemon_is_raised_with_its_details(instance: Instance) -> None:
    async def main() -> None:
        async with connected(instance) as client:
            with pytest.raises(VecError, match="nowhere") as caught:
                await client.request("library.show", library="nowhere")
            assert error_of(caught) == Code.NOT_FOUND
            with pytest.raises(VecError) as caught:
                client.submit("search", query=object())
            assert error_of(caught) == Code.INVALID_REQUEST
            await client.request("ping")

    run(main())


def test_without_a_daemon_connect_says_so_and_starts_one_only_if_it_may(own: Instance) -> None:
    async def main() -> None:
        with pytest.raises(VecError) as caught:
            await AsyncClient.connect(own.settings, spawn=False)
        assert error_of(caught) == Code.NO_DAEMON
        clients = await asyncio.gather(*(AsyncClient.connect(own.settings) for _ in range(5)))
        pids = {(await each.request("status"))["pid"] for each in clients}
        assert len(pids) == 1
        for each in clients:
            each.close()
            await each.wait_closed()

    run(main())


def test_all_that_waits_learns_at_once_that_the_daemon_was_killed(own: Instance) -> None:
    daemon = own.start()

    async def main() -> None:
        async with connected(own) as client:
            waiting = [asyncio.ensure_future(client.request("jobs.claim", worker="w", kinds=["noop"], wait_s=60))]
            watch = client.submit("watch")
            assert await watch.next() is not None
            waiting.append(asyncio.ensure_future(anext(aiter(watch.parts()))))  # type: ignore[arg-type]
            await client.request("ping")
            daemon.kill()
            for each in waiting:
                with pytest.raises(VecError) as caught:
                    await each
                assert error_of(caught) == Code.CONNECTION_LOST
            with pytest.raises(VecError) as caught:
                client.submit("ping")
            assert error_of(caught) == Code.CONNECTION_LOST

    run(main())


def test_a_stopped_daemon_is_noticed_by_all_connections(own: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SILENCE_S", 0.3)
    daemon = own.start()

    async def main() -> None:
        clients = [await AsyncClient.connect(own.settings, spawn=False) for _ in range(10)]
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            for answer in await asyncio.gather(*(each.request("ping") for each in clients), return_exceptions=True):
                assert isinstance(answer, VecError)
                assert answer.code == Code.STALLED
                assert str(daemon.pid) in answer.message
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        for each in clients:
            await each.wait_closed()

    run(main())


def test_a_long_answer_of_a_daemon_at_work_is_waited_for(own: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SILENCE_S", 0.2)
    own.start()

    async def main() -> None:
        async with connected(own) as client:
            answer = await client.request("jobs.claim", worker="w", kinds=["noop"], wait_s=1.5)
            assert answer["job"] is None

    run(main())


def test_the_pool_goes_on_after_the_daemon_was_killed_or_restarted(own: Instance) -> None:
    daemon = own.start()
    library = fresh(own)

    async def main() -> None:
        pool = DaemonPool(own.settings)
        documents = [{"id": "a", "text": "x"}]
        await asyncio.gather(*(pool.request("ping") for _ in range(50)))
        assert (await pool.request("ingest", library=library, documents=documents))["added"] == 1
        daemon.kill()
        daemon.wait()
        assert (await pool.request("count", library=library))["documents"] == 1
        first = (await pool.request("status"))["pid"]
        await asyncio.to_thread(own.vec, "daemon", "restart")
        assert (await pool.request("status"))["pid"] != first
        await pool.close()

    run(main())


def test_the_pool_repeats_a_read_whose_answer_the_death_of_the_daemon_took(own: Instance) -> None:
    daemon = own.start()

    async def main() -> None:
        pool = DaemonPool(own.settings)
        await asyncio.gather(pool.request("ping"), pool.request("ping"))  # a connection for each of the two
        os.kill(daemon.pid, signal.SIGSTOP)  # the request is sent, and not answered
        asked = asyncio.ensure_future(pool.request("status"))
        submitted = asyncio.ensure_future(pool.request("jobs.submit", kind="prune"))
        await asyncio.sleep(0.1)
        daemon.kill()
        assert (await asked)["pid"] != daemon.pid
        with pytest.raises(VecError) as caught:
            await submitted
        assert error_of(caught) == Code.CONNECTION_LOST
        await pool.close()

    run(main())


def test_a_borrowed_connection_with_an_unread_stream_is_not_lent_again(instance: Instance) -> None:
    async def main() -> None:
        pool = DaemonPool(instance.settings)
        async with pool.connection() as client:
            client.submit("watch")
        async with pool.connection() as other:
            assert other is not client
            await other.request("ping")
        async with pool.connection() as third:
            assert third is other
        await pool.close()
        await client.wait_closed()

    run(main())


def test_a_connect_that_is_cancelled_leaves_no_socket_behind(own: Instance) -> None:
    own.start()

    async def main() -> None:
        async with connected(own) as client:
            before = (await client.request("status"))["connections"]
            for _ in range(5):
                task = asyncio.ensure_future(AsyncClient.connect(own.settings))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with asyncio.timeout(PATIENCE_S):
                while (await client.request("status"))["connections"] != before:
                    pass

    run(main())
