"""vec mcp, asked by the client of the protocol's own SDK."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from tests.support.instance import BIN, Instance
from tests.support.running import fresh

Answers = Callable[[Client], Awaitable[Any]]


def ask(instance: Instance, *options: str, work: Answers) -> Any:
    """Does something with a `vec mcp` of its own."""

    async def run() -> Any:
        server = StdioServerParameters(
            command=str(BIN / "vec"), args=["mcp", *options], env=dict(instance.environment), cwd=instance.home
        )
        async with asyncio.timeout(60), Client(server) as client:
            return await work(client)

    return asyncio.run(run())


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """The answer of a tool that succeeds."""
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content.get("result", answer.structured_content)


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    """The error of a tool that fails."""
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error, answer.structured_content
    return str(answer.content[0].text)  # type: ignore[union-attr]


def test_an_assistant_finds_and_reads_documents(instance: Instance, library: str) -> None:
    instance.vec("ingest", "-l", library, stdin='{"id":"a","text":"rotate the logs"}\n{"id":"b","text":"bake bread"}\n')

    async def work(client: Client) -> None:
        (listed,) = await call(client, "libraries")
        assert (listed["name"], listed["documents"]) == (library, 2)
        hits = await call(client, "search", query="rotate logs", k=1)
        assert [hit["document_id"] for hit in hits] == ["a"]
        found, missing = await call(client, "get", ids=["b", "none"])
        assert (found["chunks"][0]["text"], missing) == ("bake bread", None)

    ask(instance, "-l", library, work=work)


def test_it_reads_only_unless_told_otherwise(instance: Instance, library: str) -> None:
    async def reads(client: Client) -> None:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {"libraries", "search", "get", "watch"}
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        assert "ingest" in await refusal(client, "ingest", documents=[{"id": "a", "text": "x"}])

    async def writes(client: Client) -> None:
        (tool,) = (tool for tool in (await client.list_tools()).tools if tool.name == "ingest")
        assert tool.annotations
        assert not tool.annotations.read_only_hint
        counts = await call(
            client, "ingest", documents=[{"id": "a", "text": "rotate the logs"}, {"id": "b", "text": 7}]
        )
        assert (counts["added"], counts["failed"], counts["errors"][0]["index"]) == (1, 1, 1)

    ask(instance, "-l", library, work=reads)
    assert instance.objects("count", "-l", library)[0]["documents"] == 0
    ask(instance, "-l", library, "--write", work=writes)
    assert instance.objects("count", "-l", library)[0]["documents"] == 1


def test_other_libraries_do_not_exist_for_it(instance: Instance, library: str) -> None:
    other, third = fresh(instance), fresh(instance)
    instance.vec("ingest", "-l", other, stdin='{"id": "secret", "text": "rotate the logs"}\n')

    async def work(client: Client) -> None:
        assert {each["name"] for each in await call(client, "libraries")} == {library, third}
        assert await call(client, "search", query="rotate the logs") == []
        for tool, arguments in (
            ("search", {"query": "logs"}), ("get", {"ids": ["secret"]}), ("watch", {"after": "beginning"}),
            ("ingest", {"documents": [{"id": "x", "text": "x"}]}),
        ):  # fmt: skip
            assert "is not open to this server (forbidden)" in await refusal(client, tool, library=other, **arguments)
        seen = await call(client, "watch", after="beginning")
        assert other not in {event["library"] for event in seen["events"]}
        assert "name the library" in await refusal(client, "get", ids=["a"])

    ask(instance, "-l", library, "-l", third, "--write", work=work)


def test_a_watch_waits_for_a_change_and_a_search_does_not_wait_for_it(instance: Instance, library: str) -> None:
    async def work(client: Client) -> None:
        start = await call(client, "watch")
        assert start["events"] == []
        waiting = asyncio.ensure_future(call(client, "watch", after=start["cursor"], wait_s=30))
        assert await call(client, "search", query="anything") == []
        assert not waiting.done()
        await call(client, "ingest", documents=[{"id": "new", "text": "rotate the logs"}])
        seen = await waiting
        assert [(event["type"], event["data"]["id"]) for event in seen["events"]] == [("document.added", "new")]
        assert await call(client, "watch", after=seen["cursor"]) == {"events": [], "cursor": seen["cursor"]}

    ask(instance, "-l", library, "--write", work=work)


def test_what_the_daemon_refuses_the_assistant_reads(instance: Instance, library: str) -> None:
    async def work(client: Client) -> None:
        told = await refusal(client, "search", query="logs", where=["year >>> 3"])
        assert "invalid_filter" in told
        assert "less than or equal to 50" in await refusal(client, "search", query="logs", k=51)
        assert "invalid_cursor" in await refusal(client, "watch", after="yesterday?")

    ask(instance, "-l", library, work=work)


def test_it_finds_a_daemon_that_was_restarted(instance: Instance, library: str) -> None:
    async def work(client: Client) -> None:
        await call(client, "libraries")
        await asyncio.to_thread(instance.vec, "daemon", "restart")
        (listed,) = await call(client, "libraries")
        assert listed["name"] == library

    ask(instance, "-l", library, work=work)


@pytest.mark.parametrize("given", [b"", b"not a message\n"])
def test_it_ends_when_its_input_ends(instance: Instance, given: bytes) -> None:
    done = subprocess.run(
        [BIN / "vec", "mcp"], input=given, env=instance.environment, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
