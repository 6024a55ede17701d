"""The routes that relays and sources share."""

from __future__ import annotations

from starlette.responses import Response

from ...connectors.definition import Direction
from ..call import Call, json_answer
from ..endpoint import Answer, Body, Endpoint, Parameter
from ..schemas import BOOLEAN, COUNT, STRING, Schema, ref


def name_in_path(direction: Direction) -> Parameter:
    return Parameter(direction, "path", STRING, f"The name of a {direction}.", required=True)


def endpoints(direction: Direction, shown: Schema, listed: Schema) -> tuple[Endpoint, ...]:
    """List, show, pause, resume, remove, and the dead letters. `shown` is the schema of one, `listed` of all."""
    plural, tag, op = f"{direction}s", f"{direction}s", direction
    base = f"/v1/{plural}"
    one = f"{base}/{{{direction}}}"
    name = (name_in_path(direction),)
    answer = {200: Answer(f"The {direction}.", shown)}

    # A connector sees all libraries that it is not restricted to, and names a server: it is of the whole instance.
    async def list_(call: Call) -> Response:
        call.check("read", None)
        return json_answer(await call.collect(f"{op}.list", plural))

    async def show(call: Call) -> Response:
        call.check("read", None)
        return json_answer(await call.daemon(f"{op}.show", name=call.path[direction]))

    async def pause(call: Call) -> Response:
        call.check("admin", None)
        return json_answer(await call.daemon(f"{op}.pause", name=call.path[direction]))

    async def resume(call: Call) -> Response:
        call.check("admin", None)
        return json_answer(await call.daemon(f"{op}.resume", name=call.path[direction]))

    async def remove(call: Call) -> Response:
        call.check("admin", None)
        return json_answer(await call.daemon(f"{op}.remove", name=call.path[direction]))

    async def dead(call: Call) -> Response:
        call.check("read", None)
        bodies = call.query.get("bodies", False)
        found = await call.collect(
            f"{op}.dead", "dead_letters", name=call.path[direction], after=call.query.get("after"), bodies=bodies
        )
        for letter in found["dead_letters"]:
            if bodies:
                letter["body"] = letter["body"].decode("utf-8", "replace")
        return json_answer(found)

    async def retry(call: Call) -> Response:
        call.check("write", None)
        body = await call.json_body()
        return json_answer(await call.daemon(f"{op}.retry", name=call.path[direction], **body))

    async def drop(call: Call) -> Response:
        call.check("admin", None)
        body = await call.json_body()
        return json_answer(await call.daemon(f"{op}.drop", name=call.path[direction], **body))

    which = Body(ref("Letters"), required=False)
    return (
        Endpoint("GET", base, list_, "read", f"List all {plural}.", tag,
                 {200: Answer(f"The {plural}, by name.", listed)}, op=f"{op}.list"),
        Endpoint("GET", one, show, "read", f"Show a {direction}.", tag, answer, name, op=f"{op}.show"),
        Endpoint("POST", f"{one}/pause", pause, "admin", f"Stop a {direction}, which keeps its position.", tag,
                 answer, name, op=f"{op}.pause"),
        Endpoint("POST", f"{one}/resume", resume, "admin", f"Continue a {direction}.", tag, answer, name,
                 op=f"{op}.resume"),
        Endpoint("DELETE", one, remove, "admin", f"Remove a {direction}.", tag, answer, name, op=f"{op}.remove"),
        Endpoint("GET", f"{one}/dead-letters", dead, "read", f"List the dead letters of a {direction}.", tag,
                 {200: Answer("A page of dead letters, by number.", ref("DeadLetters"))},
                 (*name,
                  Parameter("after", "query", COUNT, "The number of the last letter before the page."),
                  Parameter("bodies", "query", BOOLEAN, "Include the messages.")), op=f"{op}.dead"),
        Endpoint("POST", f"{one}/dead-letters/retry", retry, "write", "Try dead letters again.", tag,
                 {200: Answer("How many.", ref("Retrying"))}, name, which, op=f"{op}.retry"),
        Endpoint("POST", f"{one}/dead-letters/drop", drop, "admin", "Delete dead letters.", tag,
                 {200: Answer("How many.", ref("Dropped"))}, name, which, op=f"{op}.drop"),
    )  # fmt: skip
